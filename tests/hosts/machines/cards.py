"""GPUs as NVML describes them, by the list of questions that the probes ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from machines.asking import Answers, nvml

MIB: Final = 2**20
MEMORY_V2: Final = 33554472
"""nvmlMemory_v2's structure version, which nvidia-ml-py wants as an argument."""
NO_BUS: Final = "FFFFFFFF:FF:FF.0"
GPU_END, SWITCH_END, UNKNOWN_END = 0, 2, 255
LINK_COUNT, COMMON_SPEED, SPEED, STATE, VERSION = 91, 90, 164, 165, 166
INVALID, NOT_SUPPORTED, FUNCTION_NOT_FOUND = 2, 3, 13
HOPPER: Final = (9, 0)
"""From here on NVML tells a link's state by field; before, by calls of its own. Source: nccl src/graph/xml.cc."""


class Link(NamedTuple):
    """One NVLink: `version` is NVML's enum (4 is 3.0, 6 is 4.0, 7 is 5.0), `end` the kind of its other end."""

    mb_per_s: int
    version: int
    end: int = SWITCH_END
    to: str | None = None
    up: bool = True


class Card(NamedTuple):
    """One GPU. `pci` is in sysfs' spelling. None: the driver says "not supported"; of links: nobody published it."""

    name: str
    pci: str
    capability: tuple[int, int]
    total_mib: int
    uuid: str = ""
    reserved_mib: int = 512
    used_mib: int = 0
    pcie: tuple[int, int, int, int] = (4, 16, 4, 16)
    ecc: int | None = 1
    mig: int | None = None
    persistence: int = 1
    virtualization: int = 0
    driver_model: int | None = None
    compute: tuple[int, ...] = ()
    graphics: tuple[int, ...] = ()
    fabric: int | None = 0
    links: tuple[Link, ...] | None = ()
    node: int | None = 0


class Way(NamedTuple):
    """Between two GPUs: P2P status for read, write, NVLink and atomics, and the common ancestor; None: unpublished."""

    p2p: tuple[int, int, int, int] | None
    ancestor: int | None


NODE, SYS, PHB = 40, 50, 30
LINKED: Final = (0, 0, 0, 0)
OVER_PCIE: Final = (0, 0, 5, 5)
CHIPSET: Final = (1, 1, 5, 5)
GPU_REFUSES: Final = (2, 2, 5, 5)


HGX: Final = Link(26562, 6)
"""Hopper's link to a switch, as `nvidia-smi nvlink -s` prints it: 26.562 GB/s. Source: our own H200 recordings."""


def switched(link: Link, count: int) -> tuple[Link, ...]:
    """So many links, all to switches."""
    return (link,) * count


def bridged(link: Link, *peers: tuple[str, int]) -> tuple[Link, ...]:
    """Links straight to other GPUs: an address and how many."""
    return tuple(link._replace(end=GPU_END, to=to) for to, count in peers for _ in range(count))


def across_sockets(per_socket: int, p2p: tuple[int, int, int, int] | None = (0, 0, 0, 0)) -> Callable[[int, int], Way]:
    """GPUs behind root ports of their own, so many a socket."""
    return lambda a, b: Way(p2p, NODE if a // per_socket == b // per_socket else SYS)


def bus_id(pci: str) -> str:
    """NVML's spelling of a PCI address."""
    domain, rest = pci.split(":", 1)
    return f"{int(domain, 16):08X}:{rest.upper()}"


def uuid(number: int) -> str:
    """An obviously invented UUID."""
    digit = format(number + 1, "x")
    return f"GPU-{digit * 8}-{digit * 4}-4{digit * 3}-8{digit * 3}-{digit * 12}"


def named(cards: tuple[Card, ...]) -> tuple[Card, ...]:
    """The cards with their UUIDs."""
    return tuple(card if card.uuid else card._replace(uuid=uuid(n)) for n, card in enumerate(cards))


def seen(cards: tuple[Card, ...], way: Callable[[int, int], Way], major: int) -> Answers:
    """All that NVML of a driver of this major version answers about the cards and every ordered pair of them."""
    answers = nvml("nvmlDeviceGetCount", value=len(cards))
    for n, card in enumerate(named(cards)):
        answers |= {**_identity(n, card), **_memory(n, card, major), **_modes(n, card)}
        answers |= {**_fabric(n, card, major), **_links(n, card)}
    for a in range(len(cards)):
        for b in range(len(cards)):
            if a != b:
                answers |= _pair(a, b, way(a, b))
    return answers


def _identity(n: int, card: Card) -> Answers:
    pcie = zip(
        ("CurrPcieLinkGeneration", "CurrPcieLinkWidth", "MaxPcieLinkGeneration", "MaxPcieLinkWidth"),
        card.pcie,
        strict=True,
    )
    answers: Answers = {}
    for call, value in pcie:
        answers |= nvml(f"nvmlDeviceGet{call}", n, value=value)
    return {
        **answers,
        **nvml("nvmlDeviceGetUUID", n, value=card.uuid),
        **nvml("nvmlDeviceGetName", n, value=card.name),
        **nvml("nvmlDeviceGetPciInfo", n, value=_pci_info(card.pci)),
        **nvml("nvmlDeviceGetCudaComputeCapability", n, value=list(card.capability)),
        **_node(n, card.node),
    }


def _node(n: int, node: int | None) -> Answers:
    if node is None:
        return nvml("nvmlDeviceGetMemoryAffinity", n, 4, 0, code=NOT_SUPPORTED)
    return nvml("nvmlDeviceGetMemoryAffinity", n, 4, 0, value=[2**node, 0, 0, 0])


def _pci_info(pci: str | None) -> dict[str, Any]:
    """A busId alone is what probes read; one that cannot be seen is all ones."""
    return {"busId": bus_id(pci) if pci else NO_BUS, "busIdLegacy": (pci or "ffff:ff:ff.0").upper()}


def _memory(n: int, card: Card, major: int) -> Answers:
    call = "nvmlDeviceGetMemoryInfo"
    if not card.total_mib:
        return {**nvml(call, n, MEMORY_V2, code=NOT_SUPPORTED), **nvml(call, n, code=NOT_SUPPORTED)}
    total, reserved, used = (part * MIB for part in (card.total_mib, card.reserved_mib, card.used_mib))
    first = {"total": total, "free": total - used - reserved, "used": used + reserved}
    second = {"version": MEMORY_V2, **first, "reserved": reserved, "used": used}
    if major < 510:  # R510 brought nvmlDeviceGetMemoryInfo_v2
        return {**nvml(call, n, MEMORY_V2, code=FUNCTION_NOT_FOUND), **nvml(call, n, value=first)}
    return {**nvml(call, n, MEMORY_V2, value=second), **nvml(call, n, value=first)}


def _modes(n: int, card: Card) -> Answers:
    answers: Answers = {}
    for call, mode in (("MigMode", card.mig), ("EccMode", card.ecc), ("DriverModel", card.driver_model)):
        refused = NOT_SUPPORTED if mode is None else None
        answers |= nvml(f"nvmlDeviceGet{call}", n, value=[mode, mode], code=refused)
    for call, pids in (("Compute", card.compute), ("Graphics", card.graphics), ("MPSCompute", ())):
        processes = [{"pid": pid, "usedGpuMemory": None} for pid in pids]
        answers |= nvml(f"nvmlDeviceGet{call}RunningProcesses", n, value=processes)
    return {
        **answers,
        **nvml("nvmlDeviceGetPersistenceMode", n, value=card.persistence),
        **nvml("nvmlDeviceGetComputeMode", n, value=0),
        **nvml("nvmlDeviceGetVirtualizationMode", n, value=card.virtualization),
    }


def _fabric(n: int, card: Card, major: int) -> Answers:
    call = "nvmlDeviceGetGpuFabricInfoV"
    if major < 545:  # R545 brought the versioned call
        return nvml(call, n, code=FUNCTION_NOT_FOUND)
    if card.fabric is None:
        return nvml(call, n, code=NOT_SUPPORTED)
    value = {"version": 33554468, "clusterUuid": [0] * 16, "status": 0, "cliqueId": 0, "state": card.fabric}
    return nvml(call, n, value={**value, "healthMask": 0})


def _fields(n: int, values: dict[int, int | None], scope: int = 0) -> Answers:
    """The answer to one question about several fields; None: this driver or this GPU does not have it."""
    asked = [part for field in values for part in (field, scope)]
    told = [
        {"field": field, "scope": scope, "code": NOT_SUPPORTED if value is None else 0, "value": value}
        for field, value in values.items()
    ]
    return nvml("nvmlDeviceGetFieldValues", n, *asked, value=told)


def _links(n: int, card: Card) -> Answers:
    if card.links is None:
        return {}
    up = [link.mb_per_s for link in card.links if link.up]
    common = _fields(n, {COMMON_SPEED: up[0] if up else None})
    answers = {**_fields(n, {LINK_COUNT: len(card.links) or None}), **common}
    for number, link in enumerate(card.links):
        told: dict[int, int | None] = dict.fromkeys((STATE, VERSION, SPEED))
        if card.capability >= HOPPER:
            told = {STATE: int(link.up), VERSION: link.version, SPEED: link.mb_per_s if link.up else 0}
        end, to = (link.end, link.to) if link.up else (UNKNOWN_END, None)
        answers |= {
            **_fields(n, told, number),
            **nvml("nvmlDeviceGetNvLinkState", n, number, value=int(link.up)),
            **nvml("nvmlDeviceGetNvLinkVersion", n, number, value=link.version),
            **nvml("nvmlDeviceGetNvLinkRemoteDeviceType", n, number, value=end),
            **nvml("nvmlDeviceGetNvLinkRemotePciInfo", n, number, value=_pci_info(to)),
        }
    # Without a count, links are asked for one by one until there is none.
    return answers | nvml("nvmlDeviceGetNvLinkState", n, len(card.links), code=INVALID if card.links else NOT_SUPPORTED)


def _pair(a: int, b: int, way: Way) -> Answers:
    answers: Answers = {}
    for kind, status in enumerate(way.p2p or ()):
        answers |= nvml("nvmlDeviceGetP2PStatus", a, b, kind, value=status)
    if way.ancestor is not None:
        answers |= nvml("nvmlDeviceGetTopologyCommonAncestor", a, b, value=way.ancestor)
    return answers
