"""The GPUs as NVML shows them: names that a user may call them by, free memory, and which process holds how much.

Source: nvml.h, nvmlDeviceGetMemoryInfo, nvmlDeviceGetComputeRunningProcesses.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from warmspare.control.host_memory import MIB
from warmspare.host.live import LiveHost
from warmspare.host.port import Host, Unreadable
from warmspare.model.facts import HOST, Known, fact_name
from warmspare.model.transcript import Answer, Verb
from warmspare.probes import gpus as inventory
from warmspare.probes.api import Probe, collect
from warmspare.probes.gpu import MEMORY_V2
from warmspare.probes.nvml import newest_if_supported, text

FIRST_NAMESPACE: Final = "pid:[4026531836]"
"""The machine's own pid namespace, whose numbers NVML gives. Source: include/linux/proc_ns.h, PROC_PID_INIT_INO."""
PCI: Final = re.compile(r"(?:(?:[0-9a-f]{4})?([0-9a-f]{4}):)?([0-9a-f]{2}:[0-9a-f]{2}\.[0-9])", re.IGNORECASE)


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU. `held` is MiB by pid (None: not told how much); `held` itself is None where NVML lists nobody."""

    uuid: str
    subject: str
    index: int | None
    pci: str | None
    name: str | None
    total_mib: int | None
    free_mib: int | None
    held: Mapping[int, int | None] | None


class Watch(LiveHost):
    """This machine, asked anew each time: what is free changes while we act."""

    def ask(self, verb: Verb, args: tuple[str, ...]) -> tuple[int, Answer]:
        """Put one question to the machine."""
        self.transcript.clear()
        self._places.clear()
        return super().ask(verb, args)


def cards(host: Host) -> tuple[Card, ...]:
    """All NVIDIA GPUs; none where nothing names any."""
    reading = collect(host, [Probe(inventory.gpus, inventory.Gpus)])[fact_name(inventory.Gpus), HOST]
    if not isinstance(reading, Known):
        return ()
    found = reading.value
    return tuple(_card(host, f"gpu{n}", found.ids[n], found.nvml[n], found.pci[n]) for n in range(found.count))


def named(shown: Sequence[Card], name: str) -> Card | None:
    """The GPU that a user means: its UUID, its PCI address, its number in nvidia-smi, or `gpuN` as in our reports."""
    wanted = name.strip()
    if wanted.isascii() and wanted.isdigit():
        return next((card for card in shown if card.index == int(wanted)), None)
    if address := PCI.fullmatch(wanted):
        pci = f"{address[1] or '0000'}:{address[2]}".lower()
        return next((card for card in shown if card.pci == pci), None)
    return next((card for card in shown if wanted.lower() in (card.uuid.lower(), card.subject)), None)


def vram(shown: Sequence[Card], pids: Collection[int]) -> dict[int, dict[str, int]] | None:
    """MiB by GPU of each of these processes, by NVML's lists; None where those do not tell.

    NVML numbers processes as the machine's first pid namespace does. In another one, only a process that it names
    is believed to hold what it says: one that it does not name may stand there under a number that is not ours.
    """
    if not shown or any(card.held is None for card in shown):
        return None
    found: dict[int, dict[str, int]] = {pid: {} for pid in pids}
    for card in shown:
        for pid, mib in (card.held or {}).items():
            if pid in found and mib is None:
                return None
            if pid in found and mib:
                found[pid][card.uuid] = mib
    return found if _in_first_namespace() or all(found.values()) else None


def free(shown: Sequence[Card]) -> dict[str, int] | None:
    """Free MiB by UUID; None where NVML does not tell."""
    told = {card.uuid: card.free_mib for card in shown if card.free_mib is not None}
    return told if told and len(told) == len(shown) else None


def in_use_mib(shown: Sequence[Card]) -> int | None:
    """What all processes and the driver hold together: no process can hold more."""
    used = [
        card.total_mib - card.free_mib for card in shown if card.total_mib is not None and card.free_mib is not None
    ]
    return sum(used) if used and len(used) == len(shown) else None


def _card(host: Host, subject: str, uuid: str, index: int | None, pci: str | None) -> Card:
    memory = _told(host, ("nvmlDeviceGetMemoryInfo", index, MEMORY_V2), ("nvmlDeviceGetMemoryInfo", index))
    listed = _told(
        host, ("nvmlDeviceGetComputeRunningProcesses", index), ("nvmlDeviceGetComputeRunningProcesses_v2", index)
    )
    name = _told(host, ("nvmlDeviceGetName", index))
    return Card(
        uuid=uuid,
        subject=subject,
        index=index,
        pci=pci,
        name=text(name) if name else None,
        total_mib=int(memory["total"]) // MIB if memory else None,
        free_mib=int(memory["free"]) // MIB if memory else None,
        held=_held(listed),
    )


def _told(host: Host, *calls: tuple[Any, ...]) -> Any:  # noqa: ANN401 # whatever NVML gives
    """The answer of the newest of these calls that this NVML has; None where it refuses."""
    if calls[0][1] is None:
        return None
    try:
        return newest_if_supported(host, *calls)
    except Unreadable:
        return None


def _held(listed: Any) -> dict[int, int | None] | None:  # noqa: ANN401 # whatever NVML gives
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        return None
    held: dict[int, int | None] = {}
    for one in listed:
        used, before = one["usedGpuMemory"], held.get(one["pid"], 0)
        # One line an instance of a split GPU.
        held[one["pid"]] = None if used is None or before is None else before + -(-int(used) // MIB)
    return held


def _in_first_namespace() -> bool:
    try:
        return str(Path("/proc/self/ns/pid").readlink()) == FIRST_NAMESPACE
    except OSError:
        return False
