"""Copy from one GPU to another, one way, and let the second one check its own memory; name the path it went."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable
from typing import ClassVar, Final, Literal

import msgspec

from warmspare.control import cuda_abi as abi
from warmspare.control.cuda import Buffer, Context, CudaError, Driver, Event, Stream
from warmspare.control.kernels import POISON, WORD_BYTES, Kernels, Mismatch
from warmspare.model.facts import Cause, Count, GbPerS, Kind, Outcome, Proof, Seconds, Text
from warmspare.probes.gpus import PAIR
from warmspare.trials import bandwidth, nvlink_counters
from warmspare.trials.api import NotTried, Steps, trial
from warmspare.trials.given import Pair

SIZE: Final = 256 * 2**20
LEAST: Final = 2**20
RING_BYTES: Final = 2**21
RING_STRIDE: Final = 4096 + 64
HOPS: Final = 4096
SMALL_COPIES: Final = 256
NO_PEERS: Final = frozenset({abi.PEER_ACCESS_UNSUPPORTED, abi.TOO_MANY_PEERS, abi.NOT_SUPPORTED})
"""How a driver refuses peer access, and then stages copies through the host."""
FASTER: Final = 1.1
"""Faster than a PCIe link can carry by this factor is no PCIe."""
COUNTED: Final = 0.9
"""NVLink that counted this part of the bytes has carried them."""
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


class _Side(msgspec.Struct, frozen=True):
    """One GPU's part."""

    context: Context
    kernels: Kernels
    buffer: Buffer
    stream: Stream


@trial(deadline=60, touches="two GPUs: at most 256 MiB, and a tenth of the free memory, of each", quick=True)
def peer_copy(steps: Steps, pair: Pair) -> PeerCopy:
    """Peer access is enabled or its refusal kept; poison, one-way copy, check on the destination; speeds, path."""
    source, target = steps.prepare("make contexts", _sides, pair)
    steps.prepare("plant a fault", _see_faults, source, target)
    refusal = steps("enable peer access", _enable, source, target)
    steps("enable it the other way", _enable, target, source)
    seed = secrets.randbits(63)
    source.kernels.fill(source.buffer.pointer, source.buffer.size, seed, source.stream)
    _arrives(steps, "copy", seed, (source, target), lambda: _copy(source, target))
    if refusal is None:
        stored = secrets.randbits(63)
        where = (target.buffer.pointer, target.buffer.size, stored)
        _arrives(steps, "store", stored, (source, target), lambda: source.kernels.fill(*where, source.stream))
        if (seen := steps("load", source.kernels.check, *where, source.stream)).wrong:
            steps.wrong(f"the first GPU reads what the second does not hold: {_told(seen, target)}")
    return _measured(steps, pair, (source, target), refusal)


def _arrives(steps: Steps, name: str, seed: int, sides: tuple[_Side, _Side], send: Callable[[], None]) -> None:
    """Poison the target by its own hand, send, and let it check its own memory."""
    source, target = sides
    target.context.set_words(target.buffer.pointer, POISON, target.buffer.size // 4)
    target.context.synchronize()
    steps(name, _and_wait, source.stream, send)
    where = (target.buffer.pointer, target.buffer.size, seed)
    found = steps(f"check the {name} on the second GPU", target.kernels.check, *where)
    if found.wrong:
        steps.wrong(_told(found, target))


def _and_wait(stream: Stream, start: Callable[[], None]) -> None:
    start()
    stream.synchronize()


def _told(found: Mismatch, target: _Side) -> str:
    """A mismatch in words; memory that is still poison says that nothing came."""
    words, first = target.buffer.size // WORD_BYTES, found.first or 0
    held = target.buffer.read(WORD_BYTES, first * WORD_BYTES)
    if held == POISON.to_bytes(WORD_BYTES // 2, "little") * 2:
        what = "no byte arrived" if found.wrong == words else f"{found.wrong} of {words} words never arrived"
    else:
        what = f"{found.wrong} of {words} words are wrong"
    return f"{what}, the first at byte {first * WORD_BYTES}"


def _measured(steps: Steps, pair: Pair, sides: tuple[_Side, _Side], refusal: str | None) -> PeerCopy:
    """All speeds of a pair whose content was right, and the path that they show."""
    source, target = sides
    size = target.buffer.size
    before = nvlink_counters.sent_bytes(pair.source.nvml)
    one_way, copies = steps("measure one way", _one_way, source, target)
    after = nvlink_counters.sent_bytes(pair.source.nvml)
    counted = None if before is None or after is None else round((after - before) / (copies * size), 3)
    both = steps("measure both ways", _both_ways, source, target)
    stores = latency_s = None
    if refusal is None:
        stores = steps("measure stores", _stores, source, target).gb_per_s(size)
        latency_s = steps("measure a load", _load, source, target)
    small_s = steps("measure a small copy", _small_copy, source, target)
    speed = one_way.gb_per_s(size)
    path, by = way(pair, speed, stores, counted, refused=refusal is not None)
    return PeerCopy(
        outcome=Outcome(kind="done"),
        peer_access=refusal is None,
        refusal=refusal,
        path=path,
        path_by=by,
        gb_per_s=speed,
        spread=round(one_way.spread, 4),
        both_ways_gb_per_s=both.gb_per_s(size),
        store_gb_per_s=stores,
        latency_s=latency_s,
        small_copy_s=small_s,
        counted=counted,
        link_gb_per_s=pair.nvlink_gb_per_s,
        pcie_gb_per_s=pair.pcie_gb_per_s,
        size_mib=size // 2**20,
    )


def way(
    pair: Pair, copy: float, stores: float | None, counted: float | None, *, refused: bool
) -> tuple[Path | None, Shown | None]:
    """By which path a copy of this speed (GB/s) went, and what shows it; None where nothing does.

    Where access is refused the driver stages. What NVLink counted, or what is faster than PCIe can be, went by
    NVLink. What is much slower than the GPU's own stores does not go their way: it is staged.
    """
    if refused:
        return "staged", "refusal"
    if counted is not None and counted >= COUNTED:
        return "nvlink", "counters"
    if pair.nvlinks and pair.pcie_gb_per_s and copy > FASTER * pair.pcie_gb_per_s:
        return "nvlink", "speed"
    if stores is None:
        return None, None
    return ("staged" if copy < DIRECT * stores else "pcie"), "stores"


def _sides(pair: Pair) -> tuple[_Side, _Side]:
    driver = Driver()
    contexts = [Context(driver.device(gpu.id)) for gpu in pair.gpus]
    share = min(context.memory().free for context in contexts) // 10
    size = min(SIZE, share) // LEAST * LEAST
    if size < RING_BYTES:
        raise NotTried(Cause.SKIPPED, f"a tenth of the free memory is {share // 2**20} MiB: too little to try with")
    source, target = (_Side(c, Kernels(c), c.allocate(size), Stream(c)) for c in contexts)
    return source, target


def _see_faults(*sides: _Side) -> None:
    for side in sides:
        if not side.kernels.sees_faults(side.buffer, secrets.randbits(63)):
            raise NotTried(Cause.INVALID, BLIND)


def _enable(source: _Side, target: _Side) -> str | None:
    """Why the driver does not let the source use the target's memory; None where it does."""
    try:
        source.context.enable_peer(target.context)
    except CudaError as error:
        if error.result in NO_PEERS:
            return error.code
        raise
    return None


def _copy(source: _Side, target: _Side) -> None:
    source.context.copy_to_peer(target.buffer, source.buffer, target.buffer.size, source.stream)


def _one_way(source: _Side, target: _Side) -> tuple[bandwidth.Speed, int]:
    """The speed, and how many copies it took to measure."""
    copies = itertools.count()

    def start() -> None:
        next(copies)
        _copy(source, target)

    return bandwidth.measure(source.stream, start), next(copies)


def _both_ways(source: _Side, target: _Side) -> bandwidth.Speed:
    """Half of the memory goes each way at once; timed on the source's stream, which waits for the other."""
    half = source.buffer.size // 2
    lower = [Buffer(side.context, side.buffer.pointer, half) for side in (source, target)]
    upper = [Buffer(side.context, side.buffer.pointer + half, half) for side in (source, target)]
    begun, ended = Event(source.context), Event(target.context)

    def start() -> None:
        target.stream.wait(begun.record(source.stream))
        source.context.copy_to_peer(lower[1], lower[0], half, source.stream)
        target.context.copy_to_peer(upper[0], upper[1], half, target.stream)
        source.stream.wait(ended.record(target.stream))

    return bandwidth.measure(source.stream, start)


def _stores(source: _Side, target: _Side) -> bandwidth.Speed:
    where = (target.buffer.pointer, target.buffer.size, 0)
    return bandwidth.measure(source.stream, lambda: source.kernels.fill(*where, source.stream))


def _load(source: _Side, target: _Side) -> float:
    """Seconds of one load from the target's memory: a ring of pointers there, followed one by one."""
    places = range(target.buffer.pointer, target.buffer.pointer + RING_BYTES - RING_STRIDE, RING_STRIDE)
    for here, following in zip(places, [*places[1:], places[0]], strict=True):
        target.buffer.write(following.to_bytes(WORD_BYTES, "little"), here - target.buffer.pointer)
    speed = bandwidth.measure(source.stream, lambda: source.kernels.chase(places[0], HOPS, source.stream))
    return round(speed.took_s / HOPS, 9)


def _small_copy(source: _Side, target: _Side) -> float:
    """Seconds of a copy of 8 bytes, one after the other."""
    small = [Buffer(side.context, side.buffer.pointer, WORD_BYTES) for side in (source, target)]

    def start() -> None:
        for _ in range(SMALL_COPIES):
            source.context.copy_to_peer(small[1], small[0], WORD_BYTES, source.stream)

    return round(bandwidth.measure(source.stream, start).took_s / SMALL_COPIES, 9)
