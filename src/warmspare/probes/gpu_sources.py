"""What NVML and CUDA each say of which GPUs there are: the parts that `gpus` merges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from warmspare.host.port import Host, Missing, Unreadable
from warmspare.model.facts import Cause
from warmspare.probes.nvml import DRIVER_NOT_LOADED, OPERATING_SYSTEM, number, text

GPU_LIMIT: Final = 128
NO_DEVICE, BLOCKED = 100, 304
"""CUDA_ERROR_NO_DEVICE and CUDA_ERROR_OPERATING_SYSTEM. Source: cuda.h."""


class Named(msgspec.Struct, frozen=True):
    """What one library says of one GPU."""

    uuid: str | None
    pci: str | None
    place: int


class Heard(msgspec.Struct, frozen=True):
    """What a library lists, or why nothing; `doubt` when there may be GPUs all the same."""

    listed: tuple[Named, ...] = ()
    silence: Unreadable | None = None
    doubt: bool = False
    blocked: bool = False


def of_nvml(host: Host) -> Heard:
    """NVML's list. One that it counts and cannot open keeps its place, one that is not ours to open has none."""
    try:
        count = number(host.nvml("nvmlDeviceGetCount"), GPU_LIMIT + 1)
    except Unreadable as unreadable:
        doubt = not isinstance(unreadable, Missing) and unreadable.code != DRIVER_NOT_LOADED
        return Heard(silence=unreadable, doubt=doubt, blocked=unreadable.code == OPERATING_SYSTEM)
    refusals: list[Unreadable] = []
    found = tuple(gpu for n in range(count) if (gpu := _named(host, n, refusals)))
    return Heard(listed=found, silence=None if found or not refusals else refusals[0], doubt=bool(refusals))


def _named(host: Host, n: int, refusals: list[Unreadable]) -> Named | None:
    """One of NVML's GPUs; without a name where it no longer answers, None where it is not ours to open."""
    try:
        uuid = text(host.nvml("nvmlDeviceGetUUID", n))
        return Named(uuid, address(text(host.nvml("nvmlDeviceGetPciInfo", n)["busId"])), n)
    except Unreadable as unreadable:
        if unreadable.cause is Cause.DENIED:
            refusals.append(unreadable)
            return None
        return Named(None, None, n)


def address(bus_id: str) -> str:
    """A PCI address as /sys spells it: NVML writes its domain with eight digits, CUDA with four."""
    domain, _, rest = bus_id.partition(":")
    return f"{int(domain, 16):04x}:{rest.lower()}"


def broken_libcuda(answer: Mapping[str, Any]) -> Unreadable | None:
    """What an experiment's answer says of a libcuda that is there and cannot be loaded."""
    if not answer.get("broken"):  # recordings of the first versions do not say
        return None
    return Unreadable(Cause.INVALID, f"libcuda is there, and cannot be loaded: {answer['detail']}")


def of_cuda(host: Host) -> Heard:
    """CUDA's list, in its own order and without what CUDA_VISIBLE_DEVICES hides."""
    try:
        answer = host.experiment("cuda_count")
    except Unreadable as unreadable:
        return Heard(silence=unreadable, doubt=True)
    if answer["found"] and answer["init_code"] == 0 and answer["count"] is not None:
        buses = answer.get("pci_bus_ids") or [None] * len(answer["uuids"])
        return Heard(
            listed=tuple(
                Named(uuid, address(bus) if bus else None, place)
                for place, (uuid, bus) in enumerate(zip(answer["uuids"], buses, strict=True))
            )
        )
    if answer["found"]:
        code = answer["init_code"]
        refusal = Unreadable(Cause.INVALID, f"libcuda is there, and cuInit failed with {code}")
        return Heard(silence=refusal, doubt=code != NO_DEVICE, blocked=code == BLOCKED)
    if broken := broken_libcuda(answer):
        return Heard(silence=broken, doubt=True)
    return Heard(silence=Missing("libcuda.so.1"))
