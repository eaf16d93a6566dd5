"""One process that drives all GPUs through NCCL, told step by step what to do: NCCL reads its environment only once.

It runs under our own Python, started by a trial's body, which names the steps: a process that hangs or dies is known
to have hung or died there. Each order is a line of JSON on its standard input, each answer one on a pipe of its own.
"""

from __future__ import annotations

import os
import secrets
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec

from warmspare.control.cuda import Buffer, Context, Driver
from warmspare.control.kernels import POISON, Expected, Kernels, Mismatch
from warmspare.control.lever import LeverRefused
from warmspare.control.nccl import FLOAT_BYTES, Communicators, Nccl
from warmspare.model.facts import Cause
from warmspare.trials.api import NotTried

MIB: Final = 2**20
WARM_UP: Final = 5
ITERATIONS: Final = 20
MOST_RANKS: Final = 255
"""Sums stay whole numbers below 2^24, exact in every order of adding: 255 * 65535 + 255 * 254 / 2 = 16743810."""
LOOK_EVERY: Final = 64
PATIENT_AFTER_S: Final = 0.5


class WrongError(Exception):
    """Something said it was done, and it was not."""


class Order(msgspec.Struct, frozen=True):
    """Which method of `Ranks` to call, with what."""

    do: Literal["prepare", "load", "join", "reduce", "leave"]
    arguments: tuple[Any, ...] = ()


class Answer(msgspec.Struct, frozen=True):
    """How it ended: `code` is what a lever refused with, or the cause of an absence."""

    kind: Literal["done", "refused", "wrong", "absent"]
    code: str = ""
    detail: str = ""
    result: Any = None


class Ranks:
    """All ranks of one communicator, one a GPU, with a buffer to send and one to receive each."""

    def __init__(self) -> None:
        """Nothing is touched yet."""
        self._gpus: list[_Rank] = []
        self._nccl: Nccl | None = None
        self._group: Communicators | None = None
        self._seed = secrets.randbits(63)

    def prepare(self, gpus: list[tuple[str, str]], sizes: list[int]) -> list[int]:
        """Take the GPUs (each its name and its id) and the largest buffers that fit; gives the sizes that do, in bytes.

        Both buffers together take at most half of a tenth of a GPU's free memory: NCCL has some of its own.
        """
        if len(gpus) > MOST_RANKS:
            raise NotTried(Cause.SKIPPED, f"sums over {len(gpus)} GPUs are not exact in 32 bits")
        driver = Driver()
        contexts = [(name, _opened(driver, name, gpu)) for name, gpu in gpus]
        most = min(context.memory().free for _, context in contexts) // 10 // 2 // 2
        fitting = [size for size in sizes if size <= most]
        if not fitting:
            raise NotTried(Cause.SKIPPED, f"no more than {most // MIB} MiB may be taken of each GPU twice")
        self._gpus = [_Rank(name, context, fitting[-1]) for name, context in contexts]
        for number, gpu in enumerate(self._gpus):
            if not gpu.sees_faults(self._seed):
                raise NotTried(Cause.INVALID, f"the check kernel of {gpu.name} did not see a planted fault")
            gpu.kernels.fill_floats(gpu.source.pointer, fitting[-1] // FLOAT_BYTES, self._seed, number)
            gpu.context.synchronize()
        return fitting

    def load(self, library: str) -> str:
        """Load NCCL; gives its version."""
        self._nccl = Nccl(library)
        return self._nccl.version

    def join(self) -> int:
        """Make the communicators; gives how many ranks there are."""
        assert self._nccl  # noqa: S101 # the trial orders them in this order
        self._group = self._nccl.communicators([gpu.context.device.ordinal for gpu in self._gpus])
        return len(self._gpus)

    def reduce(self, size: int, rounds: int, budget_s: float) -> float:
        """Sum `size` bytes of every rank, see that it is right on every GPU, and give the seconds that one takes.

        As nccl-tests does it: out of place, a warm-up of 5, then 20 enqueued one after the other; the wall clock runs
        from before the first is enqueued until every GPU has finished the last. The median of `rounds` such runs. A
        slow transport gets fewer of them, so that all rounds take about `budget_s`.
        """
        assert self._group  # noqa: S101 # likewise
        count = size // FLOAT_BYTES
        sides = zip(*((gpu.source, gpu.target, gpu.stream) for gpu in self._gpus), strict=True)
        sources, targets, streams = (list(side) for side in sides)
        enqueue = self._group.all_reduce(sources, targets, count, streams)
        self._poison(count)
        self._timed(enqueue, 1)  # connections are made by the first
        self._check(count)
        one_s = self._timed(enqueue, 1)
        iterations = max(1, min(ITERATIONS, int(budget_s / rounds / one_s)))
        self._timed(enqueue, min(WARM_UP, iterations))
        self._poison(count)
        took = [self._timed(enqueue, iterations) / iterations for _ in range(rounds)]
        self._check(count)
        return statistics.median(took)

    def leave(self) -> None:
        """Free the communicators."""
        assert self._group  # noqa: S101 # likewise
        self._group.destroy()

    def _timed(self, enqueue: Callable[[], None], iterations: int) -> float:
        started = time.perf_counter()
        for _ in range(iterations):
            enqueue()
        for gpu in self._gpus:
            gpu.over.record(gpu.stream)
        for gpu in self._gpus:
            self._wait(gpu, started)
        return time.perf_counter() - started

    def _wait(self, gpu: _Rank, started: float) -> None:
        """Look again and again, as nccl-tests does: to wait in the driver would hide what NCCL says meanwhile."""
        assert self._group  # noqa: S101 # likewise
        looked = 0
        while not gpu.over.is_over():
            looked += 1
            if looked % LOOK_EVERY == 0:
                self._group.check()
                if time.perf_counter() - started > PATIENT_AFTER_S:
                    time.sleep(0.001)
        self._group.check()

    def _poison(self, count: int) -> None:
        for gpu in self._gpus:
            gpu.context.set_words(gpu.target.pointer, POISON, count, gpu.stream)
        for gpu in self._gpus:
            gpu.stream.synchronize()

    def _check(self, count: int) -> None:
        ranks = len(self._gpus)
        expected = Expected(times=ranks, plus=ranks * (ranks - 1) // 2)
        found = []
        for gpu in self._gpus:
            wrong, first = gpu.kernels.check_floats(gpu.target.pointer, count, self._seed, expected, gpu.stream)
            if wrong:
                found.append(f"{gpu.name}: {wrong} of {count} sums are wrong, the first at {first}")
        if found:
            raise WrongError("; ".join(found[:4]))


def _opened(driver: Driver, name: str, gpu: str) -> Context:
    """A context; a refusal says of which GPU."""
    try:
        return Context(driver.device(gpu))
    except LeverRefused as refusal:
        raise LeverRefused(refusal.code, f"{name}: {refusal.detail}") from None


class _Rank:
    """A GPU's part."""

    def __init__(self, name: str, context: Context, size: int) -> None:
        self.name, self.context = name, context
        self.kernels = Kernels(context)
        self.source, self.target = context.allocate(size), context.allocate(size)
        self.stream, self.over = context.stream(), context.event()

    def sees_faults(self, seed: int) -> bool:
        """Whether the check finds whole floats right, and exactly the one that is flipped."""
        count = self.target.size // FLOAT_BYTES
        self.kernels.fill_floats(self.target.pointer, count, seed, 0)
        whole = self._checked(self.target, count, seed)
        index = seed % count
        octets = bytearray(self.target.read(FLOAT_BYTES, index * FLOAT_BYTES))
        octets[0] ^= 1
        self.target.write(bytes(octets), index * FLOAT_BYTES)
        return (whole, self._checked(self.target, count, seed)) == (Mismatch(0, None), Mismatch(1, index))

    def _checked(self, buffer: Buffer, count: int, seed: int) -> Mismatch:
        return self.kernels.check_floats(buffer.pointer, count, seed, Expected(times=1, plus=0))


def serve(told: int) -> None:
    """Carry out the orders on standard input until it ends; answer each on the descriptor `told`."""
    ranks, decoder = Ranks(), msgspec.json.Decoder(Order)
    for line in sys.stdin.buffer:
        os.write(told, msgspec.json.encode(_answer(ranks, decoder.decode(line))) + b"\n")


def _answer(ranks: Ranks, order: Order) -> Answer:
    try:
        return Answer("done", result=getattr(ranks, order.do)(*order.arguments))
    except LeverRefused as refusal:
        return Answer("refused", refusal.code, refusal.detail)
    except WrongError as error:
        return Answer("wrong", detail=str(error))
    except NotTried as absent:
        return Answer("absent", absent.cause, absent.detail)
