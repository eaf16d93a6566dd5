"""What an image would rest on here: driver, kernel, boot, CRIU, GPUs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from warmspare import __version__
from warmspare.control.criu import Criu
from warmspare.host.port import Host
from warmspare.model.facts import HOST, Known, fact_name
from warmspare.probes import driver as probed
from warmspare.probes.api import Probe, collect
from warmspare.runtime.cards import Card
from warmspare.runtime.manifest import Gpu, Made

BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


def here(criu: Criu | None, host: Host | None, shown: tuple[Card, ...] = ()) -> Made:
    """This machine now. Without a `host` nobody is asked about the driver: nothing here uses CUDA."""
    seen = os.uname()
    return Made(
        driver=_driver(host) if host else None,
        kernel=seen.release,
        boot=BOOT.read_text(encoding="ascii").strip(),
        criu=criu.version() if criu else None,
        tool=f"warmspare {__version__}",
        architecture=seen.machine,
        gpus=tuple(Gpu(uuid=card.uuid, name=card.name or "unknown", memory_mib=card.total_mib) for card in shown),
    )


def _driver(host: Host) -> str | None:
    reading = collect(host, [Probe(probed.driver, probed.Driver)])[fact_name(probed.Driver), HOST]
    return reading.value.kernel_version if isinstance(reading, Known) else None
