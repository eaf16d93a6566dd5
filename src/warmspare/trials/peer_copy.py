"""Copy from one GPU to another, one way, and let the second one check its own memory; name the path it went."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import ClassVar, Final, Literal, NamedTuple

from warmspare.control import cuda_abi as abi
from warmspare.control.cuda import CudaError, Stream
from warmspare.control.kernels import ALL, GOLDEN, POISON, WORD_BYTES, Mismatch
from warmspare.model.facts import Cause, Count, GbPerS, Kind, Known, Outcome, Proof, Reading, Seconds, Text
from warmspare.probes.gpus import PAIR
from warmspare.trials import nvlink_counters, peer_speed
from warmspare.trials.api import NotTried, Steps, trial
from warmspare.trials.given import Pair
from warmspare.trials.peer_speed import Side, sides

NO_PEERS: Final = frozenset({abi.PEER_ACCESS_UNSUPPORTED, abi.TOO_MANY_PEERS, abi.NOT_SUPPORTED})
"""How a driver refuses peer access, and then stages copies through the host."""
FASTER: Final = 1.1
"""Faster than a PCIe link can carry by this factor is no PCIe."""
COUNTED: Final = 0.9
"""NVLink that counted this part of the bytes has carried them."""
IDLE: Final = 0.1
"""NVLink that counted less than this part has carried something else, if anything."""
ANY_PCIE: Final = 121.0
"""What no PCIe link of today is faster than: 16 lanes of generation 6, in GB/s. Links are told wrong in some VMs."""
DIRECT: Final = 0.5
"""A copy slower than this part of the GPU's own stores does not take their way."""

Path = Literal["nvlink", "pcie", "staged"]
Shown = Literal["refusal", "counters", "speed", "stores"]
BLIND: Final = "the check kernel did not see a planted fault"


class PeerCopy(Proof, frozen=True, kw_only=True):
    """One-way copy of a non-repeating pattern, checked by the destination GPU on its own memory.

    Speeds are in decimal GB/s: of the copy engine one way, of both GPUs sending at once (together), and of the first
    GPU's own stores into the second's memory. `latency_s` is one load from the second's memory, `small_copy_s` a copy
    of 8 bytes. `counted` is which part of the bytes NVLink says it carried, None where it does not count.
    `refusal` is why the driver gives no peer access; the copy is then staged through the host.
    """

    KIND: ClassVar[Kind] = PAIR

    peer_access: bool | None = None
    refusal: Text | None = None
    path: Path | None = None
    path_by: Shown | None = None
    gb_per_s: GbPerS | None = None
    spread: Seconds | None = None
    both_ways_gb_per_s: GbPerS | None = None
    store_gb_per_s: GbPerS | None = None
    latency_s: Seconds | None = None
    small_copy_s: Seconds | None = None
    counted: Seconds | None = None
    link_gb_per_s: GbPerS | None = None
    pcie_gb_per_s: GbPerS | None = None
    size_mib: Count | None = None


@trial(deadline=60, touches="two GPUs: at most 256 MiB, and a tenth of the free memory, of each", quick=True)
def peer_copy(steps: Steps, pair: Pair) -> PeerCopy:
    """Peer access is enabled or its refusal kept; poison, one-way copy, check on the destination; speeds, path."""
    source, target = steps.prepare("make contexts", sides, pair)
    steps.prepare("plant a fault", _see_faults, source, target)
    refusal = steps("enable peer access", _enable, source, target)
    if refusal is None:  # else the target could fetch what the source may not bring
        steps("enable it the other way", _enable, target, source)
    seed = secrets.randbits(63)
    source.kernels.fill(source.buffer.pointer, source.buffer.size, seed, source.stream)
    _arrives(steps, "copy", seed, (source, target), lambda: peer_speed.copy(source, target))
    if refusal is None:
        stored = secrets.randbits(63)
        where = (target.buffer.pointer, target.buffer.size, stored)
        _arrives(steps, "store", stored, (source, target), lambda: source.kernels.fill(*where, source.stream))
        if (seen := steps("load", source.kernels.check, *where, source.stream)).wrong:
            steps.wrong(f"the first GPU reads what the second does not hold: {_told(seen, target)}")
    return _measured(steps, pair, (source, target), refusal)


def _arrives(steps: Steps, name: str, seed: int, both: tuple[Side, Side], send: Callable[[], None]) -> None:
    """Poison the target by its own hand, send, and let it check its own memory."""
    source, target = both
    target.context.set_words(target.buffer.pointer, POISON, target.buffer.size // 4)
    target.context.synchronize()
    steps(name, _and_wait, source.stream, send)
    where = (target.buffer.pointer, target.buffer.size, seed)
    found = steps(f"check the {name} on the second GPU", target.kernels.check, *where)
    if found.wrong:
        steps.wrong(_told(found, target))


def _fill(side: Side, seed: int) -> None:
    """A pattern that the other side's differs from in every word: what stays of it has not been written over."""
    side.kernels.fill(side.buffer.pointer, side.buffer.size, seed)
    side.context.synchronize()


def _holds(steps: Steps, name: str, side: Side, where: tuple[int, int], seed: int) -> None:
    """What many copies in a row have left is checked by the GPU that has it: some faults come only under load."""
    offset, size = where
    first = seed + offset // WORD_BYTES * GOLDEN & ALL
    found = steps(name, side.kernels.check, side.buffer.pointer + offset, size, first)
    if found.wrong:
        at = offset + (found.first or 0) * WORD_BYTES
        steps.wrong(f"{found.wrong} of {size // WORD_BYTES} words are wrong, the first at byte {at}")


def _and_wait(stream: Stream, start: Callable[[], None]) -> None:
    start()
    stream.synchronize()


def _told(found: Mismatch, target: Side) -> str:
    """A mismatch in words; memory that is still poison says that nothing came."""
    words, first = target.buffer.size // WORD_BYTES, found.first or 0
    held = target.buffer.read(WORD_BYTES, first * WORD_BYTES)
    if held == POISON.to_bytes(WORD_BYTES // 2, "little") * 2:
        what = "no byte arrived" if found.wrong == words else f"{found.wrong} of {words} words never arrived"
    else:
        what = f"{found.wrong} of {words} words are wrong"
    return f"{what}, the first at byte {first * WORD_BYTES}"


def _measured(steps: Steps, pair: Pair, both: tuple[Side, Side], refusal: str | None) -> PeerCopy:
    """All speeds of a pair whose content was right, and the path that they show."""
    source, target = both
    size = target.buffer.size
    numbers = (pair.source.nvml, pair.target.nvml)
    before = nvlink_counters.carried(*numbers)
    seed, other = secrets.randbits(63), secrets.randbits(63)
    _fill(source, seed)
    _fill(target, other)
    one_way, copies = steps("measure one way", peer_speed.one_way, source, target)
    after = nvlink_counters.carried(*numbers)
    counted = None if before is None or after is None else round(max(0, after.since(before)) / (copies * size), 3)
    _holds(steps, "check what was measured one way", target, (0, size), seed)
    _fill(target, other)
    exchange = steps("measure both ways", peer_speed.both_ways, source, target)
    half = peer_speed.half(source)
    _holds(steps, "check what was measured there", target, (0, half), seed)
    _holds(steps, "check what was measured back", source, (half, half), other)
    stores = latency_s = None
    if refusal is None:
        stores = steps("measure stores", peer_speed.stores, source, target).gb_per_s(size)
        latency_s = steps("measure a load", peer_speed.load, source, target)
    small_s = steps("measure a small copy", peer_speed.small_copy, source, target)
    speed = one_way.gb_per_s(size)
    path, by = ("staged", "refusal") if refusal else way(pair, Seen(speed, stores, counted))
    return PeerCopy(
        outcome=Outcome(kind="done"),
        peer_access=refusal is None,
        refusal=refusal,
        path=path,
        path_by=by,
        gb_per_s=speed,
        spread=round(one_way.spread, 4),
        both_ways_gb_per_s=exchange.gb_per_s(size),
        store_gb_per_s=stores,
        latency_s=latency_s,
        small_copy_s=small_s,
        counted=counted,
        link_gb_per_s=pair.nvlink_gb_per_s,
        pcie_gb_per_s=pair.pcie_gb_per_s,
        size_mib=size // 2**20,
    )


def proven(reading: Reading[PeerCopy]) -> bool:
    """Whether bytes were seen to arrive by peer access."""
    copy = reading.value if isinstance(reading, Known) else None
    return copy is not None and copy.outcome.kind == "done" and bool(copy.peer_access) and copy.path != "staged"


class Seen(NamedTuple):
    """What names a path: the speeds of the copy engine and of the GPU's own stores, and what part NVLink counted."""

    copy_gb_per_s: float
    store_gb_per_s: float | None
    counted: float | None


def way(pair: Pair, seen: Seen) -> tuple[Path | None, Shown | None]:
    """By which path copies went that were not refused peer access, and what shows it; None where nothing does.

    What NVLink counted, or what is faster than PCIe can be, went by NVLink. What is much slower than the GPU's own
    stores does not go their way: it is staged. The rest went by PCIe only where it cannot have gone by NVLink.
    """
    if seen.counted is not None and seen.counted >= COUNTED:
        return "nvlink", "counters"
    idle = seen.counted is not None and seen.counted < IDLE
    limit = max(pair.pcie_gb_per_s or ANY_PCIE, ANY_PCIE if idle else 0.0)
    fast = seen.copy_gb_per_s > FASTER * limit
    if pair.nvlinks and fast:
        return "nvlink", "speed"
    if seen.store_gb_per_s is None:
        return None, None
    if seen.copy_gb_per_s < DIRECT * seen.store_gb_per_s:
        return "staged", "stores"
    slow = pair.nvlink_gb_per_s is not None and seen.copy_gb_per_s < DIRECT * pair.nvlink_gb_per_s
    no_nvlink = pair.nvlinks == 0 or (not fast and (idle or slow))
    return ("pcie", "stores") if no_nvlink else (None, None)


def _see_faults(*sides: Side) -> None:
    for side in sides:
        if not side.kernels.sees_faults(side.buffer, secrets.randbits(63)):
            raise NotTried(Cause.INVALID, BLIND)


def _enable(source: Side, target: Side) -> str | None:
    """Why the driver does not let the source use the target's memory; None where it does."""
    try:
        source.context.enable_peer(target.context)
    except CudaError as error:
        if error.result in NO_PEERS:
            return error.code
        raise
    return None
