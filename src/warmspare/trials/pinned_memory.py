"""Pin host memory in growing pieces, in a process that may be lost, until it is refused or enough is known."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import time
from collections.abc import Callable
from typing import Final

import msgspec
from msgspec.structs import replace

from warmspare.control import host_memory, process
from warmspare.control.cuda import Context, CudaError, HostBuffer
from warmspare.model.facts import Cause, Count, Outcome, Proof, Seconds, Text
from warmspare.trials.api import NotTried, Steps, trial
from warmspare.trials.given import Gpu, Gpus
from warmspare.trials.on_gpu import GIB, MIB, SHARE, opened

BOUND: Final = 8 * GIB
"""The most that is pinned: under WSL2, walls were met between 0.5 and 5 GB."""
STEP: Final = 16 * MIB
"""The first piece, and how near the wall is found."""
PIECE: Final = GIB // 2
"""The largest piece."""
ENOUGH_S: Final = 2.0
"""After so long no further piece is taken: this is a quick trial, also where pinning is slow."""
PAGE: Final = 4096


class PinnedMemory(Proof, frozen=True, kw_only=True):
    """How much host memory could be pinned, in MiB.

    `bounded` means that the trial stopped by itself, at the most that it takes; otherwise it met a wall, which it then
    narrowed to the least piece. `refusal` is what the last piece that was too large was refused with. `pin_s` is the
    time that pinning and touching all of it took.
    """

    budget_mib: Count | None = None
    bounded: bool | None = None
    refusal: Text | None = None
    pin_s: Seconds | None = None


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the process that pins: so many bytes so far, and what ended it."""

    pinned: int = 0
    ready: bool = False
    refusal: str | None = None
    wall: bool = False
    wrong: bool = False
    over: bool = False


@trial(
    deadline=40,
    touches="up to 8 GiB of host memory, pinned, never over a tenth of what is free; a CUDA context on one GPU",
    quick=True,
)
def pinned_memory(steps: Steps, given: Gpus) -> PinnedMemory:
    """Pieces double while they are granted and halve once one is refused; every page is written and read back.

    The process that pins may be killed, or hang: how far it came is then the answer.
    """
    bound = min(host_memory.free_bytes() // SHARE, BOUND) // MIB * MIB
    if not bound:
        raise NotTried(Cause.SKIPPED, f"less than {SHARE} MiB of host memory are free")
    pinner = Pinner(given.gpus, bound)
    first = steps.prepare("start a process that pins", pinner.next, steps.patience_s)
    if not first or first.refusal:
        raise NotTried(Cause.CRASHED, f"no GPU gave it a context: {first.refusal if first else _told(pinner.end())}")
    last = steps("pin", pinner.follow, steps.patience_s)
    reached = last.pinned // MIB
    if not last.over:
        return PinnedMemory(
            outcome=replace(pinner.end(), step="pin", detail=f"after {reached} MiB"), budget_mib=reached
        )
    if last.wrong:
        steps.wrong(f"pinned memory did not keep what was written to it, after {reached} MiB")
    if not last.pinned:
        steps.refused(last.refusal or "", f"not even {min(STEP, bound) // MIB} MiB could be pinned")
    if not steps("give it back", pinner.is_gone, steps.patience_s):
        return PinnedMemory(outcome=replace(pinner.end(), step="give it back"), budget_mib=reached)
    return PinnedMemory(
        outcome=Outcome(kind="done"),
        budget_mib=reached,
        bounded=not last.wall,
        refusal=last.refusal,
        pin_s=steps.took_s["pin"],
    )


def _told(end: Outcome) -> str:
    return f"it {end.kind}{f' ({end.code})' if end.code else ''}"


class Pinner:
    """The process that pins, and what it tells."""

    def __init__(self, gpus: tuple[Gpu, ...], bound: int) -> None:
        """Start it. CUDA must not have been started here: a process that is forked then cannot use it."""
        self._told, tell = os.pipe()
        self._rest = b""
        us = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                process.die_with_parent(us)
                grow(gpus, bound, lambda told: os.write(tell, msgspec.json.encode(told) + b"\n"))
            finally:
                os._exit(1)
        os.close(tell)

    def next(self, patience_s: float) -> Told | None:
        """The next thing it tells; None if nothing comes in time, or any more."""
        deadline = time.monotonic() + patience_s
        while b"\n" not in self._rest:
            in_time = process.ready([self._told], deadline - time.monotonic())
            data = os.read(self._told, 65_536) if in_time else b""
            if not data:
                return None
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return msgspec.json.decode(line, type=Told)

    def follow(self, patience_s: float) -> Told:
        """The last thing it tells; silence for longer than `patience_s` is its end too."""
        last = Told()
        while not last.over and (told := self.next(patience_s)):
            last = told
        return last

    def is_gone(self, patience_s: float) -> bool:
        """Whether it ends in time, and so gives everything back."""
        return process.first((), self._pid, patience_s)[1]

    def end(self) -> Outcome:
        """How it ended; one that has not is killed. It is left to its keeper to be reaped."""
        if not process.ready([self._told], 0):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            return Outcome(kind="hung")
        code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        return Outcome(kind="died", code=f"signal {-code}" if code < 0 else f"exit {code}")


def grow(gpus: tuple[Gpu, ...], bound: int, tell: Callable[[Told], object]) -> None:
    """Pin up to `bound` bytes in a context of the first of the GPUs that gives one, and tell every piece."""
    context = _context(gpus, tell)
    if context is None:
        return
    tell(Told(ready=True))
    pinned, piece, refusal, started = 0, STEP, None, time.monotonic()
    wall = False
    while not wall and pinned < bound and time.monotonic() - started < ENOUGH_S:
        piece = min(piece, bound - pinned, PIECE)
        try:
            buffer = context.pin(piece)
        except CudaError as error:
            refusal = error.code
            wall = piece <= STEP
            piece = max(STEP, piece // 2)
            continue
        pinned += piece
        if not keeps(buffer):
            tell(Told(pinned=pinned, wrong=True, over=True))
            return
        tell(Told(pinned=pinned))
        piece = piece if refusal else pinned
    tell(Told(pinned=pinned, refusal=refusal, wall=wall, over=True))


def _context(gpus: tuple[Gpu, ...], tell: Callable[[Told], object]) -> Context | None:
    refusal = ""
    for gpu in gpus:
        try:
            return opened(gpu)
        except CudaError as error:
            refusal = str(error)
    tell(Told(refusal=refusal, over=True))
    return None


def keeps(buffer: HostBuffer) -> bool:
    """Whether every page keeps what is written to it: until it is touched, memory may be only a promise."""
    pages = buffer.bytes()[::PAGE]
    marks = secrets.token_bytes(len(pages))
    pages[:] = marks
    return pages.tobytes() == marks
