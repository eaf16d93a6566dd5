"""Which NVIDIA GPUs this host has: the inventory that all GPU readings hang on."""

from __future__ import annotations

import itertools
import re
from typing import Annotated, Final, Literal

import msgspec

from warmspare.host.port import Host, Missing, Unreadable
from warmspare.model.facts import Cause, Count, Fact, Kind
from warmspare.probes.api import probe
from warmspare.probes.driver import NO_DRIVER
from warmspare.probes.platform import wsl_signals

GPU_LIMIT: Final = 128
PCI: Final = "/sys/bus/pci/devices"
NVIDIA: Final = "0x10de"
DISPLAY: Final = "0x03"
NO_DEVICE: Final = 100
"""CUDA_ERROR_NO_DEVICE. Source: cuda.h."""


Source = Literal["nvml", "cuda", "pci", "device files"]


class Gpus(Fact, frozen=True, kw_only=True):
    """The NVIDIA GPUs, by UUID or, where no driver names one, by PCI address. An empty list is known.

    GPU number n of the readings is `ids[n]`. `seen` is how many each source counts.
    """

    ids: Annotated[tuple[str, ...], msgspec.Meta(max_length=GPU_LIMIT)]
    seen: dict[Source, Count]

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.ids)


GPU: Final = Kind("gpu", Gpus, lambda gpus, _: tuple(f"gpu{n}" for n in range(len(gpus.ids))))  # type: ignore[attr-defined]
PAIR: Final = Kind(
    "pair",
    Gpus,
    lambda gpus, _: tuple(
        f"gpu{a}→gpu{b}"
        for a, b in itertools.combinations(range(len(gpus.ids)), 2)  # type: ignore[attr-defined]
    ),
)


@probe
def gpus(host: Host) -> Gpus:
    """Merge PCI, device files, NVML and CUDA; known only when enough of them answered to be sure.

    CUDA's and NVML's own lists win, since they name GPUs by UUID; PCI counts GPUs that no driver serves.
    Under WSL2 there is no PCI device to see, and /dev/dxg may be another vendor's.
    """
    doubts: list[Unreadable] = []
    nvml, cuda, pci = _nvml(host, doubts), _cuda(host, doubts), _pci(host)
    nodes = _nodes(host)
    lists: dict[Source, tuple[str, ...] | None] = {"nvml": nvml, "cuda": cuda, "pci": pci, "device files": nodes}
    seen = {name: len(ids) for name, ids in lists.items() if ids is not None}
    if found := max((ids for ids in (nvml, cuda) if ids), key=len, default=None) or pci:
        return Gpus(ids=found, seen=seen)
    if nodes:
        raise Unreadable(Cause.INVALID, f"{len(nodes)} /dev/nvidia… files, and neither NVML nor CUDA names a GPU")
    wsl = bool(wsl_signals(host))
    if wsl and host.exists("/dev/dxg"):
        raise Unreadable(Cause.INVALID, "/dev/dxg is there, and nothing says whose GPU is behind it")
    if pci is None and not wsl:
        raise Unreadable(Cause.DENIED, "the PCI bus cannot be read, and no driver answers")
    if doubts and (wsl or not _has_bus(host)):  # a bus that shows none settles them
        raise doubts[0]
    return Gpus(ids=(), seen=seen)


class GpuAccess(Fact, frozen=True, kw_only=True):
    """How the GPUs are reached, as the driver says of itself: one word a way, sorted; empty without a GPU.

    native: the machine's own. passthrough: a whole PCI device given to this VM. vgpu: a share of one.
    vgpu-host: this machine gives out shares. gpu-pv: Windows' paravirtualisation under WSL2.
    """

    ways: tuple[Literal["native", "passthrough", "vgpu", "vgpu-host", "gpu-pv"], ...]


WAYS: Final = ("native", "passthrough", "vgpu", "vgpu-host", "vgpu-host")
"""By NVML's virtualization mode: none, passthrough, vGPU, host vGPU, host vSGA. Source: nvml.h."""


@probe
def gpu_access(host: Host) -> GpuAccess:
    """From NVML, one GPU at a time; under WSL2 there is only one way."""
    if host.exists("/dev/dxg") and wsl_signals(host):
        return GpuAccess(ways=("gpu-pv",))
    try:
        count = int(host.nvml("nvmlDeviceGetCount"))
    except Missing:
        if gpus(host).count == 0:
            return GpuAccess(ways=())
        raise Unreadable(Cause.INVALID, "a GPU is there, and no NVML to ask how it is reached") from None
    modes = {int(host.nvml("nvmlDeviceGetVirtualizationMode", n)) for n in range(count)}
    return GpuAccess(ways=tuple(sorted({WAYS[mode] for mode in modes})))


def _nvml(host: Host, doubts: list[Unreadable]) -> tuple[str, ...] | None:
    try:
        return tuple(str(host.nvml("nvmlDeviceGetUUID", n)) for n in range(int(host.nvml("nvmlDeviceGetCount"))))
    except Missing:
        return None
    except Unreadable as unreadable:
        if unreadable.cause is not Cause.INVALID or unreadable.code not in NO_DRIVER:
            doubts.append(unreadable)
        return None


def _cuda(host: Host, doubts: list[Unreadable]) -> tuple[str, ...] | None:
    try:
        answer = host.experiment("cuda_count")
    except Unreadable as unreadable:
        doubts.append(unreadable)
        return None
    if answer["found"] and answer["init_code"] == 0 and answer["count"] is not None:
        return tuple(map(str, answer["uuids"]))
    if answer["found"] and answer["init_code"] != NO_DEVICE:
        doubts.append(Unreadable(Cause.INVALID, f"libcuda is there, and cuInit failed with {answer['init_code']}"))
    if answer.get("broken"):
        doubts.append(Unreadable(Cause.INVALID, f"libcuda is there, and cannot be loaded: {answer['detail']}"))
    return None


def _pci(host: Host) -> tuple[str, ...] | None:
    """PCI addresses of NVIDIA display controllers; no bus at all (small VMs) is none, a hidden one unknown.

    Without /sys (a chroot, a bare container) there may be a bus that we cannot see.
    """
    try:
        addresses = host.list(PCI)
    except Missing:
        return () if _sysfs(host) else None
    except Unreadable:
        return None
    return tuple(
        address
        for address in addresses
        if host.read(f"{PCI}/{address}/vendor").strip() == NVIDIA
        and host.read(f"{PCI}/{address}/class").startswith(DISPLAY)
    )


def _has_bus(host: Host) -> bool:
    try:
        host.list(PCI)
    except Unreadable:
        return False
    return True


def _sysfs(host: Host) -> bool:
    try:
        return host.exists("/sys/class")
    except Unreadable:  # a recording in which nobody asked
        return True


def _nodes(host: Host) -> tuple[str, ...]:
    return tuple(name for name in host.list("/dev") if re.fullmatch(r"nvidia\d+", name))
