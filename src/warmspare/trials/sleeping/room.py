"""Whether the host has the memory that a sleep at level 1 takes: its weights lie there for as long as it sleeps."""

from __future__ import annotations

import subprocess
import sys
from typing import Final, Literal, NamedTuple

from warmspare.control import host_memory
from warmspare.control.host_memory import MIB
from warmspare.model.facts import Cause, Count, Outcome, Proof
from warmspare.trials.api import NotTried
from warmspare.trials.sleeping.bench import Bench
from warmspare.trials.sleeping.parts import ROOM, Part

TIMES: Final = 1.5
"""Weights are copied block by block, and pinned blocks are rounded up."""
TOUCH_S: Final = 300.0
SCORE: Final = "/proc/self/oom_score_adj"
TOUCH: Final = """
import contextlib, ctypes, mmap, sys
with contextlib.suppress(OSError), open(sys.argv[2], "w") as score:
    score.write("1000")
size = int(sys.argv[1])
memory = mmap.mmap(-1, size)
memory.madvise(mmap.MADV_NOHUGEPAGE)
place = ctypes.addressof(ctypes.c_char.from_buffer(memory))
for start in range(0, size, 1 << 28):
    ctypes.memset(place + start, 1, min(1 << 28, size - start))
"""
"""The largest of those that die first, so that nobody else's memory is taken for it."""


class SleepRoom(Proof, frozen=True, kw_only=True):
    """Memory for `needed_mib`, 1.5 times the weights: `had` by what the kernel has available, or by touching it.

    `how` is what decided: a control group's `limit`, what is `available`, or that so much was `touched` by a process
    that ended at once (or could not be, and was ended: memory that grows on demand shows less than it has).
    """

    needed_mib: Count | None = None
    had: bool | None = None
    how: Literal["limit", "available", "touched"] | None = None
    limit_mib: Count | None = None
    available_mib: Count | None = None


class Had(NamedTuple):
    """What the host has to give in bytes: by the kernel; what it has in all; by control groups (None: no limit)."""

    available: int
    total: int
    limit: int | None


def sleep_room(bench: Bench) -> SleepRoom:
    """Ask the kernel; where it has less in all than is needed, try."""
    weights_mib = bench.weights_mib()
    if weights_mib is None:
        raise NotTried(Cause.SKIPPED, "the model's weights are not on this disk yet, so that their size is not known")
    needed = int(weights_mib * TIMES) * MIB
    had = Had(host_memory.available_bytes(), host_memory.total_bytes(), host_memory.limit_bytes())
    return judged(bench, needed, had)


def judged(bench: Bench, needed: int, had: Had) -> SleepRoom:
    """Whether so many bytes can be had of that."""
    how: Literal["limit", "available", "touched"] = "available"
    if had.limit is not None and (had.limit < needed or had.limit < had.available):
        enough, how = had.limit >= needed, "limit"
    elif had.available >= needed or had.total >= needed:
        enough = had.available >= needed
    else:
        enough, how = bench.steps.prepare("touch the memory that its weights will lie in", touched, needed), "touched"
    return SleepRoom(
        outcome=Outcome(kind="done"),
        needed_mib=needed // MIB,
        had=enough,
        how=how,
        limit_mib=None if had.limit is None else had.limit // MIB,
        available_mib=had.available // MIB,
    )


def touched(size: int) -> bool:
    """Whether a process that ends at once gets so many bytes.

    Raises:
        NotTried: it takes too long, as where memory is written to disk for it.
    """
    try:
        toucher = subprocess.run(
            [sys.executable, "-I", "-c", TOUCH, str(size), SCORE],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=TOUCH_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NotTried(Cause.TIMEOUT, f"{size // MIB} MiB were not touched within {TOUCH_S:g} s") from None
    return toucher.returncode == 0


PARTS: Final = (Part(SleepRoom, sleep_room, ROOM, found_too=True),)
