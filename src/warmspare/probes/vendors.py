"""GPUs and accelerators of other vendors: they are named, and never asked through NVIDIA's libraries."""

from __future__ import annotations

from typing import Final, Literal

from warmspare.host.port import Host, Unreadable
from warmspare.model.facts import Cause, Fact, Text
from warmspare.probes.api import probe
from warmspare.probes.pci import ACCELERATOR, DISPLAY, NVIDIA, Device, devices
from warmspare.probes.platform import wsl_signals

Vendor = Literal["amd", "intel", "other"]
AMD: Final = "0x1002"
BY_ID: Final[dict[str, Vendor]] = {AMD: "amd", "0x8086": "intel"}
"""Source: the PCI ID repository (pci-ids.ucw.cz); AMD's GPUs are still ATI's 1002."""
NO_GPU: Final = frozenset({
    "0x1234", "0x1af4", "0x1b36", "0x1414", "0x15ad", "0x80ee", "0x1013", "0x1d0f", "0x5853",
    "0x1a03", "0x102b", "0x19e5", "0x18ca", "0x126f",
})  # fmt: skip
"""Makers of displays nobody computes on: QEMU, virtio, QXL, Hyper-V, VMware, VirtualBox, Cirrus, EC2, Xen; and those
of a server's management controller: ASPEED, Matrox, Huawei, XGI, Silicon Motion. Source: the PCI ID repository."""
DXG: Final = "/dev/dxg"
STORE: Final = "/usr/lib/wsl/drivers"
NO_VENDORS: Final = "the experiment names vendors that we do not know"


class OtherGpus(Fact, frozen=True, kw_only=True):
    """The other vendors of GPUs here, sorted, and where each was seen: `amd: 0000:03:00.0`."""

    vendors: tuple[Vendor, ...]
    seen: tuple[Text, ...]


@probe
def other_gpus(host: Host) -> OtherGpus:
    """By the PCI bus, AMD's /dev/kfd, and under WSL2 by the drivers that Windows has.

    Source: linux/pci_ids.h; ROCm documentation (/dev/kfd).
    """
    found = devices(host)
    seen: list[tuple[Vendor, str]] = [
        (BY_ID.get(device.vendor, "other"), device.address) for device in found if _computes(device)
    ]
    if host.exists("/dev/kfd"):
        seen.append(("amd", "/dev/kfd"))
    if host.exists(DXG) and wsl_signals(host):
        drivers = _wsl_drivers(host)
        if not drivers:
            raise Unreadable(Cause.INVALID, f"{DXG} is there, and no driver in {STORE} says whose GPU is behind it")
        windows: tuple[Vendor, ...] = ("amd", "intel")
        seen += [(vendor, STORE) for vendor in windows if vendor in drivers]
    vendors = tuple(sorted({vendor for vendor, _ in seen}))
    return OtherGpus(vendors=vendors, seen=tuple(f"{vendor}: {where}" for vendor, where in seen))


def wsl_vendors(host: Host) -> frozenset[str] | None:
    """Whose display drivers Windows has: `nvidia`, `amd`, `intel`; None when that cannot be told.

    A GPU can be used through /dev/dxg only with its driver, so a vendor that is not in the set is not behind it.
    One that is may be a card taken out long ago: Windows keeps drivers.

    Raises:
        ValueError: the answer is none that can be understood.
    """
    try:
        return _wsl_drivers(host) or None
    except Unreadable:
        return None


def _wsl_drivers(host: Host) -> frozenset[str]:
    vendors = host.experiment("wsl_drivers")["vendors"]
    if not isinstance(vendors, list | tuple) or not set(vendors) <= {"nvidia", "amd", "intel"}:
        raise ValueError(NO_VENDORS)
    return frozenset(vendors)


def _computes(device: Device) -> bool:
    if device.vendor == NVIDIA:
        return False
    if device.kind.startswith(ACCELERATOR):  # of others: NPUs, FPGAs and the like
        return device.vendor == AMD
    return device.kind.startswith(DISPLAY) and device.vendor not in NO_GPU
