"""How fast one GPU reaches another: by copies one way and both ways, stores of its own, one load, small copies."""

from __future__ import annotations

import itertools
from typing import Final

import msgspec

from warmspare.control.cuda import Buffer, Context, Driver, Event, Stream
from warmspare.control.kernels import WORD_BYTES, Kernels
from warmspare.model.facts import Cause
from warmspare.trials import bandwidth
from warmspare.trials.api import NotTried
from warmspare.trials.given import Pair
from warmspare.trials.on_gpu import shown

SIZE: Final = 256 * 2**20
LEAST: Final = 2**20
RING_BYTES: Final = 2**21
RING_STRIDE: Final = 4096 + 64
HOPS: Final = 4096
SMALL_COPIES: Final = 256


class Side(msgspec.Struct, frozen=True):
    """One GPU's part."""

    context: Context
    kernels: Kernels
    buffer: Buffer
    stream: Stream


def sides(pair: Pair) -> tuple[Side, Side]:
    """Both GPUs, with as much memory as a tenth of what is free allows.

    Raises:
        NotTried: that is too little.
    """
    driver = Driver()
    contexts = [Context(shown(driver, gpu)) for gpu in pair.gpus]
    share = min(context.memory().free for context in contexts) // 10
    size = min(SIZE, share) // LEAST * LEAST
    if size < RING_BYTES:
        raise NotTried(Cause.SKIPPED, f"a tenth of the free memory is {share // 2**20} MiB: too little to try with")
    source, target = (Side(c, Kernels(c), c.allocate(size), Stream(c)) for c in contexts)
    return source, target


def copy(source: Side, target: Side) -> None:
    """Put one copy of everything the source has into its stream."""
    source.context.copy_to_peer(target.buffer, source.buffer, target.buffer.size, source.stream)


def one_way(source: Side, target: Side) -> tuple[bandwidth.Speed, int]:
    """The speed, and how many copies it took to measure."""
    copies = itertools.count()

    def start() -> None:
        next(copies)
        copy(source, target)

    return bandwidth.measure(source.stream, start), next(copies)


def half(side: Side) -> int:
    """Bytes that go each way at once: the lower half there, the upper half back."""
    return side.buffer.size // 2


def both_ways(source: Side, target: Side) -> bandwidth.Speed:
    """Half of the memory goes each way at once; timed on the source's stream, which waits for the other."""
    size = half(source)
    lower = [Buffer(side.context, side.buffer.pointer, size) for side in (source, target)]
    upper = [Buffer(side.context, side.buffer.pointer + size, size) for side in (source, target)]
    begun, ended = Event(source.context), Event(target.context)

    def start() -> None:
        target.stream.wait(begun.record(source.stream))
        source.context.copy_to_peer(lower[1], lower[0], size, source.stream)
        target.context.copy_to_peer(upper[0], upper[1], size, target.stream)
        source.stream.wait(ended.record(target.stream))

    return bandwidth.measure(source.stream, start)


def stores(source: Side, target: Side) -> bandwidth.Speed:
    """The source writes by its own stores, no copy engine."""
    where = (target.buffer.pointer, target.buffer.size, 0)
    return bandwidth.measure(source.stream, lambda: source.kernels.fill(*where, source.stream))


def load(source: Side, target: Side) -> float:
    """Seconds of one load from the target's memory: a ring of pointers there, followed one by one."""
    places = range(target.buffer.pointer, target.buffer.pointer + RING_BYTES - RING_STRIDE, RING_STRIDE)
    for here, following in zip(places, [*places[1:], places[0]], strict=True):
        target.buffer.write(following.to_bytes(WORD_BYTES, "little"), here - target.buffer.pointer)
    speed = bandwidth.measure(source.stream, lambda: source.kernels.chase(places[0], HOPS, source.stream))
    return round(speed.took_s / HOPS, 9)


def small_copy(source: Side, target: Side) -> float:
    """Seconds of a copy of 8 bytes, one after the other."""
    small = [Buffer(side.context, side.buffer.pointer, WORD_BYTES) for side in (source, target)]

    def start() -> None:
        for _ in range(SMALL_COPIES):
            source.context.copy_to_peer(small[1], small[0], WORD_BYTES, source.stream)

    return round(bandwidth.measure(source.stream, start).took_s / SMALL_COPIES, 9)
