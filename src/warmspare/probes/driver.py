"""The NVIDIA driver: whether its kernel part and its user-mode library are there, and their version."""

from __future__ import annotations

import re
from typing import Final, Literal

from warmspare.host.port import Host, Missing, Unreadable
from warmspare.model.facts import Cause, Fact
from warmspare.probes.api import probe

NO_DRIVER: Final = frozenset({"9", "12"})
"""NVML's codes for a driver that is not loaded and a library that is not found. Source: nvml.h."""


class Driver(Fact, frozen=True, kw_only=True):
    """The driver. `kernel_version` is the module's, `library` whether libcuda loads here.

    `module` tells the open kernel module from the proprietary one.
    """

    found: bool
    kernel_version: str | None
    module: Literal["open", "proprietary"] | None
    library: bool

    @property
    def major(self) -> int | None:
        """The first number of the version: 580 of 580.159.04."""
        return int(self.kernel_version.split(".")[0]) if self.kernel_version else None


@probe
def driver(host: Host) -> Driver:
    """From /proc/driver/nvidia/version, else from NVML (WSL2 has no module), and by loading libcuda."""
    version: str | None = None
    module: Literal["open", "proprietary"] | None = None
    try:
        text = host.read("/proc/driver/nvidia/version")
    except Missing:
        version = _nvml_version(host)
    else:
        found = re.search(r"\s(\d{3,4}\.\d{1,4}(?:\.\d{1,4})?)\s", text)
        version = found[1] if found else None
        module = "open" if "Open Kernel Module" in text else "proprietary"
    library = _library(host)
    return Driver(found=version is not None or library, kernel_version=version, module=module, library=library)


def _nvml_version(host: Host) -> str | None:
    try:
        version = str(host.nvml("nvmlSystemGetDriverVersion"))
    except Missing:
        return None
    except Unreadable as unreadable:
        if unreadable.cause is Cause.INVALID and unreadable.code in NO_DRIVER:
            return None
        raise
    return version if re.fullmatch(r"\d{3,4}(\.\d{1,4}){1,2}", version) else None


def _library(host: Host) -> bool:
    for name in ("libcuda.so.1", "/usr/lib/wsl/lib/libcuda.so.1"):
        try:
            return host.symbol(name, "cuInit")
        except Missing:
            continue
    return False
