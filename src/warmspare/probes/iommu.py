"""What stands between PCI devices: address translation by an IOMMU, and bridges that redirect peer-to-peer."""

from __future__ import annotations

import re
from typing import Final, Literal

from warmspare.host.port import Host, Missing, Unreadable
from warmspare.model.facts import Cause, Count, Fact, Text
from warmspare.probes.api import probe
from warmspare.probes.pci import DEVICES, DISPLAY, NVIDIA, devices, none_or_hidden, shows_sysfs

Translation = Literal["off", "passthrough", "translated", "unknown"]
GROUPS: Final = "/sys/kernel/iommu_groups"
BY_TYPE: Final[dict[str, Translation]] = {
    "identity": "passthrough",
    "DMA": "translated",
    "DMA-FQ": "translated",
}
"""What a group's domain does. The others (unmanaged: given to a VM; blocked) are no answer for us.

Source: Documentation/ABI/testing/sysfs-kernel-iommu_groups.
"""
PASSTHROUGH: Final = re.compile(r"iommu=(?:.*,)?pt(?:,.*)?|iommu\.passthrough=(?:1|on|y|yes|true)", re.IGNORECASE)


class Iommu(Fact, frozen=True, kw_only=True):
    """The IOMMU as this kernel uses it; inside a VM the host's own is not seen, and `off` says nothing of it.

    `translation` is about the NVIDIA GPUs, and for several the worst of theirs; without one, what the options
    ask for. `options` are the kernel's options about it, in their order.
    """

    groups: Count
    translation: Translation
    options: tuple[Text, ...]


class AcsRedirect(Fact, frozen=True, kw_only=True):
    """PCI bridges above NVIDIA's GPUs, those whose ACS setting we may read (all only as root), those that redirect.

    Other bridges of the machine do not count; without such a GPU there are none.
    """

    bridges: Count
    readable: Count
    redirecting: tuple[Text, ...]


@probe
def iommu(host: Host) -> Iommu:
    """Groups exist only where the kernel uses an IOMMU. Source: Documentation/ABI/testing/sysfs-kernel-iommu_groups."""
    options = tuple(map(str, host.experiment("iommu_options")["options"]))
    try:
        groups = len(host.list(GROUPS))
    except Missing:
        none_or_hidden(host, GROUPS)
        groups = 0
    translation: Translation = _translation(host, options) if groups else "off"
    return Iommu(groups=groups, translation=translation, options=options)


@probe
def acs_redirect(host: Host) -> AcsRedirect:
    """Source: NVIDIA NCCL user guide, troubleshooting: ACS is to be off for peer-to-peer on bare metal."""
    seen = host.experiment("pci_acs")
    if not seen["bus"] and not shows_sysfs(host):
        raise Unreadable(Cause.DENIED, "/sys is not shown to us, so there may be a PCI bus")
    redirecting = tuple(str(address) for address in seen["redirecting"])
    return AcsRedirect(bridges=int(seen["bridges"]), readable=int(seen["readable"]), redirecting=redirecting)


def _translation(host: Host, options: tuple[str, ...]) -> Translation:
    try:
        found = devices(host, NVIDIA)
    except Unreadable:
        return "unknown"
    gpus = [device.address for device in found if device.kind.startswith(DISPLAY)]
    if not gpus:
        return "passthrough" if any(PASSTHROUGH.fullmatch(option) for option in options) else "unknown"
    each = {_of_device(host, address) for address in gpus}
    worst: tuple[Translation, ...] = ("translated", "unknown", "passthrough", "off")
    return next(translation for translation in worst if translation in each)


def _of_device(host: Host, address: str) -> Translation:
    group = f"{DEVICES}/{address}/iommu_group"
    if not host.exists(group):
        return "off"
    try:
        return BY_TYPE.get(host.read(f"{group}/type").strip(), "unknown")
    except Missing:  # a kernel before 4.11 does not say
        return "unknown"
