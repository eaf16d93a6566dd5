"""The devices on the PCI bus, as several probes ask for them."""

from __future__ import annotations

from typing import Final

import msgspec

from warmspare.host.port import Host, Missing, Unreadable
from warmspare.model.facts import Cause

DEVICES: Final = "/sys/bus/pci/devices"
NVIDIA: Final = "0x10de"
DISPLAY: Final = "0x03"
ACCELERATOR: Final = "0x1200"
"""Processing accelerators: AMD's Instinct are GPUs of this class; what others put into it are none."""


class Device(msgspec.Struct, frozen=True):
    """One function of a PCI device: `0000:00:06.0`, the vendor `0x10de`, the class `0x030200`."""

    address: str
    vendor: str
    kind: str


def devices(host: Host, vendor: str | None = None) -> tuple[Device, ...]:
    """All devices, or one vendor's; () where the machine has no PCI bus.

    Raises:
        Unreadable: the bus, or a device on it, cannot be read.
    """
    try:
        addresses = host.list(DEVICES)
    except Missing:
        none_or_hidden(host, DEVICES)
        return ()
    found = (_device(host, address, vendor) for address in addresses)
    return tuple(device for device in found if device)


def _device(host: Host, address: str, vendor: str | None) -> Device | None:
    try:
        made_by = host.read(f"{DEVICES}/{address}/vendor").strip()
        if vendor not in (None, made_by):
            return None
        return Device(address, made_by, host.read(f"{DEVICES}/{address}/class").strip())
    except Missing:  # unplugged meanwhile
        return None


def shows_sysfs(host: Host) -> bool:
    """Whether /sys is shown to us at all (not in a bare chroot): only then "not there" means "there is none".

    Raises:
        Unreadable: that cannot be told, or nobody asked.
    """
    return host.exists("/sys/class")


def none_or_hidden(host: Host, path: str) -> None:
    """After a folder of /sys was missing: say that it is unknown where /sys itself is hidden.

    Raises:
        Unreadable: /sys is not shown to us, or that cannot be told.
    """
    if not shows_sysfs(host):
        raise Unreadable(Cause.DENIED, f"/sys is not shown to us, so {path} may be there")
