"""RDMA: network cards that read and write memory by themselves, and whether they may reach a GPU's."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

import msgspec

from warmspare.host.port import Host, Missing, Unreadable
from warmspare.model.facts import Cause, Count, Fact, Text
from warmspare.probes.api import probe
from warmspare.probes.pci import none_or_hidden

CLASS: Final = "/sys/class/infiniband"
DMA_BUF_SINCE: Final = (5, 12)
"""The first kernel whose RDMA drivers take memory as a dma-buf. Source: Linux 5.12, ib_umem_dmabuf_get."""
PeerModule = Literal["nvidia_peermem", "nv_peer_mem"]
PEER_MODULES: Final[tuple[PeerModule, ...]] = ("nvidia_peermem", "nv_peer_mem")


class RdmaPort(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One port; the rate in Gbit/s is what the link runs at, None where the driver gives none."""

    number: Count
    state: Literal["down", "init", "armed", "active", "other"]
    link_layer: Literal["infiniband", "ethernet", "other"]
    gbit_per_s: Annotated[float, msgspec.Meta(ge=0, le=1e7)] | None


class RdmaDevice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One device: `mlx5_0`, `CA` (InfiniBand and RoCE), `RNIC` (iWARP), … and its ports."""

    name: Text
    node_type: Text
    ports: tuple[RdmaPort, ...]


class RdmaDevices(Fact, frozen=True, kw_only=True):
    """The RDMA devices that the kernel has. `files` counts /dev/infiniband/uverbsN: a program needs one.

    A container may see all devices of its host and have been given no file.
    """

    devices: tuple[RdmaDevice, ...]
    files: Count


class PeerMemory(Fact, frozen=True, kw_only=True):
    """The two ways by which an RDMA card may reach GPU memory, as far as the kernel goes.

    `dma_buf_kernel` is by the kernel's version; distributions add it to older ones. Whether the GPU's driver
    exports its memory so is an attribute of the GPU.
    """

    modules: tuple[PeerModule, ...]
    dma_buf_kernel: bool

    @property
    def peermem(self) -> bool:
        """Whether a module for it is loaded."""
        return bool(self.modules)


@probe
def rdma_devices(host: Host) -> RdmaDevices:
    """Source: Documentation/ABI/stable/sysfs-class-infiniband."""
    try:
        names = host.list(CLASS)
    except Missing:
        none_or_hidden(host, CLASS)
        names = ()
    try:
        files = host.list("/dev/infiniband")
    except Missing:
        files = ()
    uverbs = [name for name in files if re.fullmatch("uverbs[0-9]{1,4}", name)]
    return RdmaDevices(devices=tuple(_device(host, name) for name in names), files=len(uverbs))


@probe
def peer_memory(host: Host) -> PeerMemory:
    """Source: NVIDIA GPUDirect RDMA documentation, "Changes in new releases" and peermem."""
    if not host.exists("/sys/module"):
        raise Unreadable(Cause.DENIED, "/sys/module is not shown to us")
    release = host.read("/proc/sys/kernel/osrelease")
    found = re.match(r"([0-9]{1,4})\.([0-9]{1,4})", release)
    if not found:
        raise Unreadable(Cause.INVALID, f"no kernel release: {release[:40]!a}")
    return PeerMemory(
        modules=tuple(name for name in PEER_MODULES if host.exists(f"/sys/module/{name}")),
        dma_buf_kernel=(int(found[1]), int(found[2])) >= DMA_BUF_SINCE,
    )


def _device(host: Host, name: str) -> RdmaDevice:
    root = f"{CLASS}/{name}"
    ports = sorted(int(port) for port in host.list(f"{root}/ports") if re.fullmatch("[0-9]{1,3}", port))
    node_type = host.read(f"{root}/node_type").rpartition(":")[2].strip()[:40]
    return RdmaDevice(name=name, node_type=node_type, ports=tuple(_port(host, root, number) for number in ports))


def _port(host: Host, root: str, number: int) -> RdmaPort:
    """`4: ACTIVE`, `InfiniBand` and `400 Gb/sec (4X NDR)` are what the files look like."""
    where = f"{root}/ports/{number}"
    state = host.read(f"{where}/state").rpartition(":")[2].strip().lower()
    layer = host.read(f"{where}/link_layer").strip().lower()
    rate = re.match(r"([0-9]{1,6}(?:\.[0-9]{1,3})?) Gb/sec", host.read(f"{where}/rate"))
    states: tuple[Literal["down", "init", "armed", "active"], ...] = ("down", "init", "armed", "active")
    layers: tuple[Literal["infiniband", "ethernet"], ...] = ("infiniband", "ethernet")
    return RdmaPort(
        number=number,
        state=next((known for known in states if known == state), "other"),
        link_layer=next((known for known in layers if known == layer), "other"),
        gbit_per_s=float(rate[1]) if rate else None,
    )
