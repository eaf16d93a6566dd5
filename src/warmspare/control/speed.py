"""How fast this host computes, copies memory and starts programs: the standard library alone.

Work is shared among processes and not threads, so that no lock of the interpreter stands between the CPUs.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import mmap
import os
import signal
import statistics
import struct
import time
from collections.abc import Callable
from io import FileIO
from typing import Final, NoReturn

from warmspare.control import process

Work = Callable[[], int]
"""One round of work: what was done, in bytes."""

HASHED: Final = bytes(256 * 1024)
"""Fits the second cache of one core, so that memory has no part in it."""
COPIERS: Final = 32
"""More do not raise the bandwidth of a socket, and their shares would fit their own caches."""
LEAST_COPIED: Final = 64 * 2**20
"""Below this a copy shows the caches, whatever is said of them; many are larger (`host_memory.cache_bytes`)."""
RATE: Final = struct.Struct("d")
READY: Final = b"r"
WORKER_BYTES: Final = 2 * 2**20
"""What a worker takes of memory by itself: the pages of Python that it touches, and its tables."""


def hashing(workers: int, seconds: float, rounds: int) -> float:
    """SHA-256 over data that stays in a cache, GB/s of all workers together.

    Chosen since OpenSSL has had the same hand-written code for it for many versions: two boots of a machine
    have other Pythons and zlibs.
    """

    def ready() -> Work:
        def work() -> int:
            hashlib.sha256(HASHED).digest()
            return len(HASHED)

        return work

    return _rate(workers, ready, seconds, rounds) / 1e9


def copying(workers: int, total_bytes: int, seconds: float, rounds: int) -> float:
    """Copies of private memory, GB/s read plus written; `total_bytes` is what all workers hold together."""
    share = total_bytes // workers // 2 // mmap.PAGESIZE * mmap.PAGESIZE

    def ready() -> Work:
        held = [mmap.mmap(-1, share, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) for _ in range(2)]
        source, target = ((ctypes.c_char * share).from_buffer(one) for one in held)
        for place in (source, target):  # untouched pages are all one page of zeros
            ctypes.memset(place, 1, share)

        def work() -> int:
            ctypes.memmove(target, source, share)
            return 2 * share

        return work

    return _rate(workers, ready, seconds, rounds) / 1e9


def starting(program: str, seconds: float) -> float:
    """Milliseconds from asking for a trivial program to its end, the median.

    Raises:
        OSError: it cannot be started.
    """
    took: list[float] = []
    deadline = time.monotonic() + seconds
    while not took or time.monotonic() < deadline:
        began = time.perf_counter()
        os.waitpid(os.posix_spawn(program, [program], os.environ), 0)
        took.append(time.perf_counter() - began)
    return statistics.median(took) * 1e3


def _rate(workers: int, ready: Callable[[], Work], seconds: float, rounds: int) -> float:
    """What all workers did a second, of the best round; in each round all begin at once, when the last is ready.

    Raises:
        OSError: a worker could not be started, or ended without an answer.
    """
    parent, pids = os.getpid(), []
    with contextlib.ExitStack() as ends:
        told, tell = _pipe(ends)
        gates = [_pipe(ends) for _ in range(rounds)]
        try:
            for _ in range(workers):
                if (pid := os.fork()) == 0:
                    for end in (told, *(gate for _, gate in gates)):
                        end.close()
                    _worker(parent, ready, seconds, [gate.fileno() for gate, _ in gates], tell.fileno())
                pids.append(pid)
            tell.close()
            _exactly(told, workers * len(READY), pids)
            best = 0.0
            for _, gate in gates:
                gate.close()
                best = max(best, sum(rate for (rate,) in RATE.iter_unpack(_exactly(told, workers * RATE.size, pids))))
            return best
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def _pipe(ends: contextlib.ExitStack) -> tuple[FileIO, FileIO]:
    reading, writing = os.pipe()
    return (
        ends.enter_context(os.fdopen(reading, "rb", buffering=0)),
        ends.enter_context(os.fdopen(writing, "wb", buffering=0)),
    )


def _worker(parent: int, ready: Callable[[], Work], seconds: float, gates: list[int], tell: int) -> NoReturn:
    try:
        process.die_with_parent(parent)
        work = ready()
        work()
        os.write(tell, READY)
        for gate in gates:
            os.read(gate, 1)  # its end is the word to begin
            done, began = 0, time.perf_counter()
            while (took := time.perf_counter() - began) < seconds or not done:
                done += work()
            os.write(tell, RATE.pack(done / took))
        os._exit(0)
    finally:
        os._exit(1)


def _exactly(told: FileIO, size: int, workers: list[int]) -> bytes:
    """So many bytes of all of them; the others would wait for one that is lost, and we for them."""
    data = b""
    while len(data) < size:
        more = told.read(size - len(data)) if process.ready([told.fileno()], process.LOOK_AGAIN_S) else None
        if more == b"" or (more is None and any(map(_is_lost, workers))):
            message = "a worker ended without an answer"
            raise ChildProcessError(message)
        data += more or b""
    return data


def _is_lost(worker: int) -> bool:
    """Whether it ended, and not because it was done; it is left to be reaped."""
    ended = os.waitid(os.P_PID, worker, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    return ended is not None and (ended.si_code, ended.si_status) != (os.CLD_EXITED, 0)
