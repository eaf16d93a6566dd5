"""NVLink as the driver tells it, link by link: figures are read, never looked up by a product's name."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal

import msgspec

from warmspare.host.port import Host, Unreadable
from warmspare.model.facts import Cause, Count, Fact, GbPerS, Kind, Readings
from warmspare.probes.api import probe
from warmspare.probes.gpu_sources import address
from warmspare.probes.gpus import GPU, Gpu, gpu_of
from warmspare.probes.nvml import FUNCTION_NOT_FOUND, INVALID_ARGUMENT, NOT_SUPPORTED, if_supported, number

LINK_LIMIT: Final = 36
"""NVML_NVLINK_MAX_LINKS. Source: nvml.h."""
COMMON_SPEED, LINK_COUNT, SPEED, STATE, VERSION = 90, 91, 164, 165, 166
"""NVML field ids. 164 to 166 are younger than the calls of the same names. Source: nvml.h."""
VERSIONS: Final = {1: "1.0", 2: "2.0", 3: "2.2", 4: "3.0", 5: "3.1", 6: "4.0", 7: "5.0", 8: "6.0"}
"""nvmlNvlinkVersion_t: an enumeration, not the version. Source: nvml.h."""
NOT_HERE: Final = frozenset({INVALID_ARGUMENT, NOT_SUPPORTED, FUNCTION_NOT_FOUND})
NOT_VISIBLE: Final = "FFFFFFFF"

State = Literal["active", "inactive", "sleeping", "traffic disabled"]
STATES: Final[tuple[State, ...]] = ("inactive", "active", "sleeping", "traffic disabled")
UP: Final = frozenset({"active", "sleeping"})
Remote = Literal["gpu", "npu", "switch", "unknown"]
UNKNOWN: Final = 255
REMOTES: Final[dict[int, Remote]] = {0: "gpu", 1: "npu", 2: "switch"}


Numbers = Annotated[tuple[Count, ...], msgspec.Meta(max_length=LINK_LIMIT)]


class NvLinks(Fact, frozen=True, kw_only=True):
    """The numbers of a GPU's links, up or not. No links is known: an empty list."""

    KIND: ClassVar[Kind] = GPU

    numbers: Numbers


class NvLinksUp(Fact, frozen=True, kw_only=True):
    """The numbers of a GPU's links that are up, of how many, and their raw speed one way, together, in GB/s.

    `gb_per_s` is None where the driver does not tell it.
    """

    KIND: ClassVar[Kind] = GPU

    numbers: Numbers
    of: Count
    gb_per_s: GbPerS | None


class Link(msgspec.Struct, frozen=True):
    """One link of a GPU, as a probe asks about it."""

    gpu: Gpu
    number: int


def _links_of(links: Fact, gpu: str) -> tuple[str, ...]:
    return tuple(f"{gpu}/link{n}" for n in links.numbers) if isinstance(links, NvLinks) else ()


def _link(readings: Readings, subject: str) -> Link:
    gpu, _, number = subject.partition("/link")
    return Link(gpu_of(readings, gpu), int(number))


LINK: Final = Kind("link", NvLinks, _links_of, GPU, _link)


class NvLink(Fact, frozen=True, kw_only=True):
    """One link: its state, generation, raw speed one way in GB/s, and what is at its other end.

    `gb_per_s` is None where the driver does not tell it or the link is down. `remote_pci` is None for an end
    that this machine does not show: a switch that belongs to the host, or another VM.
    """

    KIND: ClassVar[Kind] = LINK

    state: State
    version: str | None
    gb_per_s: GbPerS | None
    remote: Remote
    remote_pci: str | None


@probe
def nv_links(host: Host, gpu: Gpu) -> NvLinks:
    """By the driver's own count, else by asking for links until there is none. Source: nvml.h."""
    return NvLinks(numbers=numbers_of(host, gpu))


@probe
def nv_links_up(host: Host, gpu: Gpu) -> NvLinksUp:
    """All links of a GPU seen together: one that cannot be read leaves this unknown, and the others theirs."""
    numbers = numbers_of(host, gpu)
    up = [Link(gpu, n) for n in numbers if link_state(host, Link(gpu, n)) in UP]
    speeds = [_gb_per_s(host, link) for link in up]
    told = [speed for speed in speeds if speed is not None]
    total = round(sum(told, 0.0), 3) if len(told) == len(speeds) else None
    return NvLinksUp(numbers=tuple(link.number for link in up), of=len(numbers), gb_per_s=total)


@probe
def nv_link(host: Host, link: Link) -> NvLink:
    """A link that is down has no speed and no other end to speak of."""
    state = link_state(host, link)
    version = _of_link(host, link)[VERSION]
    if version is None:
        version = if_supported(host, "nvmlDeviceGetNvLinkVersion", link.gpu.nvml, link.number)
    remote, remote_pci = remote_of(host, link) if state in UP else ("unknown", None)
    return NvLink(
        state=state,
        version=VERSIONS.get(int(version or 0)),
        gb_per_s=_gb_per_s(host, link) if state in UP else None,
        remote=remote,
        remote_pci=remote_pci,
    )


def numbers_of(host: Host, gpu: Gpu) -> tuple[int, ...]:
    """The numbers of a GPU's links."""
    count = _fields(host, gpu, 0, LINK_COUNT)[LINK_COUNT]
    return tuple(range(number(count, LINK_LIMIT + 1))) if count is not None else _tried(host, gpu)


def link_state(host: Host, link: Link) -> State:
    """By field 165, which Hopper and later want, else by the older call. Source: NVIDIA/nccl src/graph/xml.cc."""
    state = _of_link(host, link)[STATE]
    if state is None:
        state = int(host.nvml("nvmlDeviceGetNvLinkState", link.gpu.nvml, link.number))
    return STATES[state]


def remote_of(host: Host, link: Link) -> tuple[Remote, str | None]:
    """What is at the other end, and its PCI address where this machine can see it."""
    try:
        kind = int(host.nvml("nvmlDeviceGetNvLinkRemoteDeviceType", link.gpu.nvml, link.number))
    except Unreadable as unreadable:  # younger than the other call
        if unreadable.code not in NOT_HERE:
            raise
        kind = UNKNOWN
    try:
        bus = str(host.nvml("nvmlDeviceGetNvLinkRemotePciInfo", link.gpu.nvml, link.number)["busId"])
    except Unreadable as unreadable:
        if unreadable.code not in NOT_HERE:
            raise
        bus = NOT_VISIBLE
    return REMOTES.get(kind, "unknown"), None if bus.upper().startswith(NOT_VISIBLE) else address(bus)


def _tried(host: Host, gpu: Gpu) -> tuple[int, ...]:
    for link in range(LINK_LIMIT):
        try:
            host.nvml("nvmlDeviceGetNvLinkState", gpu.nvml, link)
        except Unreadable as unreadable:
            if unreadable.code in (INVALID_ARGUMENT, NOT_SUPPORTED):
                return tuple(range(link))
            raise
    return tuple(range(LINK_LIMIT))


def _gb_per_s(host: Host, link: Link) -> float | None:
    """Per link, else what all links of the GPU have in common; NVML speaks of MB/s."""
    mb_per_s = _of_link(host, link)[SPEED] or _fields(host, link.gpu, 0, COMMON_SPEED)[COMMON_SPEED]
    return mb_per_s / 1000 if mb_per_s else None


def _of_link(host: Host, link: Link) -> dict[int, int | None]:
    return _fields(host, link.gpu, link.number, STATE, VERSION, SPEED)


def _fields(host: Host, gpu: Gpu, scope: int, *fields: int) -> dict[int, int | None]:
    """The values of NVML fields; None for one that this driver or this GPU does not have."""
    try:
        told = host.nvml("nvmlDeviceGetFieldValues", gpu.nvml, *(n for field in fields for n in (field, scope)))
    except Unreadable as unreadable:
        if unreadable.code in NOT_HERE:
            return dict.fromkeys(fields)
        raise
    if wrong := [one for one in told if one["code"] and str(one["code"]) not in NOT_HERE]:
        raise Unreadable(Cause.INVALID, f"NVML's field {wrong[0]['field']}: code {wrong[0]['code']}")
    return {int(one["field"]): None if one["value"] is None else int(one["value"]) for one in told}
