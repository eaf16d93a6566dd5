"""The NVIDIA driver: whether its kernel part and its user-mode libraries are there, and their versions."""

from __future__ import annotations

import re
from typing import Final, Literal

from warmspare.host.port import Host, Missing, Unreadable
from warmspare.model.facts import Cause, Fact, Text
from warmspare.probes.api import probe
from warmspare.probes.nvml import DRIVER_NOT_LOADED, OPERATING_SYSTEM
from warmspare.probes.platform import windows_smi, wsl_signals

VERSION: Final = r"\d{3,4}\.\d{1,4}(?:\.\d{1,4})?"


class Driver(Fact, frozen=True, kw_only=True):
    """The driver's kernel part, under WSL2 Windows' own; `kernel_version` is None where there is none.

    `module` tells the open kernel module from the proprietary one.
    """

    kernel_version: str | None
    module: Literal["open", "proprietary"] | None

    @property
    def major(self) -> int | None:
        """The first number of the version: 580 of 580.159.04."""
        return int(self.kernel_version.split(".")[0]) if self.kernel_version else None


class NvmlLibrary(Fact, frozen=True, kw_only=True):
    """The management library: whether it is there, its own version, and what it refuses to work for.

    `refusal` is the driver's answer where the library loads and does not get to work: not the same as a
    library that is not there. `code` is NVML's.
    """

    found: bool
    version: str | None
    code: str | None
    refusal: Text | None


@probe
def driver(host: Host) -> Driver:
    """From /proc/driver/nvidia/version, else from NVML (WSL2 has no module), else from Windows' own nvidia-smi."""
    version: str | None = None
    module: Literal["open", "proprietary"] | None = None
    try:
        text = host.read("/proc/driver/nvidia/version")
    except Missing:
        version = _nvml_version(host)
        if version is None:
            _make_sure_of_proc(host)
    else:
        found = re.search(rf"\s({VERSION})\s", text)
        version = found[1] if found else None
        module = "open" if "Open Kernel Module" in text else "proprietary"
    return Driver(kernel_version=version, module=module)


@probe
def nvml_library(host: Host) -> NvmlLibrary:
    """Its version is `13.580.159.04`: CUDA's major number before the driver's. Source: nvmlSystemGetNVMLVersion."""
    try:
        text = str(host.nvml("nvmlSystemGetNVMLVersion"))
    except Missing:
        return NvmlLibrary(found=False, version=None, code=None, refusal=None)
    except Unreadable as unreadable:
        if unreadable.cause is not Cause.INVALID or unreadable.code is None:
            raise
        return NvmlLibrary(found=True, version=None, code=unreadable.code, refusal=unreadable.detail)
    found = re.fullmatch(rf"\d{{1,3}}\.({VERSION})", text)
    return NvmlLibrary(found=True, version=found[1] if found else None, code=None, refusal=None)


def _make_sure_of_proc(host: Host) -> None:
    """No module is none only where /proc is shown to us.

    Raises:
        Unreadable: it is not.
    """
    try:
        host.read("/proc/self/status")
    except Missing:
        raise Unreadable(Cause.DENIED, "/proc is not shown to us, so there may be a driver") from None


def _nvml_version(host: Host) -> str | None:
    try:
        version = str(host.nvml("nvmlSystemGetDriverVersion"))
    except Missing:
        return None
    except Unreadable as unreadable:
        if unreadable.code == OPERATING_SYSTEM and wsl_signals(host):  # Windows' own tool still tells
            found = re.search(rf"^Driver Version\s*: ({VERSION})", windows_smi(host).stdout, re.MULTILINE)
            return found[1] if found else None
        if unreadable.code == DRIVER_NOT_LOADED:
            return None
        raise
    return version if re.fullmatch(VERSION, version) else None
