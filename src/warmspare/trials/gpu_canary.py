"""The GPU canary: a program that holds known bytes on a GPU, a CUDA graph that counts there, and a running stream.

Started as a program of its own. It reads a secret from its standard input, which is then closed, and at each beat it
replays the graph, reads the counter, has the GPU check all of its bytes, and writes a line of what it found, sealed
with the secret, into its open file. Only the trial and the canary's memory hold the secret. It holds no pipe and no
socket, which CRIU would refuse.

It never waits by a synchronize: were that the first call after a checkpoint, some drivers would crash. The copy of the
counter waits for what is in its stream. Source: gpunap, FINDINGS (30 of 30 on drivers 580 and 595).

When its keeper is gone it ends, unless the driver has restored it: then it does nothing more, and whoever clears the
trial away ends it (gentle.py).
"""

from __future__ import annotations

import hmac
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from warmspare.control import cuda_abi as abi
from warmspare.control.cuda import Buffer, Context, CudaError, Driver, Stream
from warmspare.control.cuda_graph import Graph
from warmspare.control.kernels import ALL, WORD_BYTES, Kernels
from warmspare.control.lever import LeverRefused

START: Final = (
    "import sys; sys.path.append(sys.argv[7]); from warmspare.trials import gpu_canary; gpu_canary.main(sys.argv[1:7])"
)
"""Run with `-P -c`, and the arguments GPU, MOST, SHARE, DIARY, RECORD, KEEPER, ROOT."""
BEAT_S: Final = 0.02
SECRET_BYTES: Final = 32
STEP_BYTES: Final = 2**20
"""What the size of the pattern is a multiple of."""
COUNTERS: Final = 1024
"""How many words the graph adds one to: all must be the same."""
TAG: Final = b"WARMSPARE_TRIAL"
SIZE, REFUSED, HIDDEN, BLIND, FULL = "size ", "refused ", "hidden ", "blind", "full"
"""How lines begin that are no beats: the size of the pattern, and why there will be no more."""


class _Quiet(Kernels):
    """Kernels in the context's own stream, whose results the copy waits for."""

    def _results(self, stream: Stream | None) -> tuple[int, int]:
        assert stream is None  # noqa: S101 # a stream of one's own has to be waited for otherwise
        first, second = struct.unpack("<2Q", self._result.read(2 * WORD_BYTES))
        return first, second


class _Held(NamedTuple):
    """What is on the GPU."""

    kernels: Kernels
    pattern: Buffer
    seed: int
    counters: Buffer
    graph: Graph
    run_on: Callable[[], None]


def main(arguments: list[str]) -> None:
    """Beat until the keeper is gone, or something fails; once restored, stay."""
    gpu, most, share, diary, record, keeper = arguments
    secret = os.read(0, SECRET_BYTES)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # CRIU refuses a pipe to the outside
    with open(diary, "w", buffering=1, encoding="ascii", errors="replace") as file:  # noqa: PTH123 # as CRIU sees it
        try:
            if held := _hold(gpu, int(most), int(share), file.write):
                _beat(held, secret, int(keeper), file.write)
        except LeverRefused as refused:
            file.write(f"{REFUSED}{refused.code}\t{refused.detail}\n")
        while _is_kept(int(keeper)) or _is_restored(Path(record)):
            time.sleep(1)


def seal(secret: bytes, line: str) -> str:
    """The mark of a line that only a holder of the secret can make."""
    return hmac.new(secret, line.encode(), "sha256").hexdigest()


def _hold(gpu: str, most: int, share: int, say: Callable[[str], object]) -> _Held | None:
    """Take a GPU's memory, a `share`th of what is free and at most `most` bytes, and check the check with it."""
    driver = Driver()
    try:
        context = Context(driver.device(gpu))
    except CudaError as error:
        if error.result != abi.INVALID_DEVICE:
            raise
        say(f"{HIDDEN}{len(driver.devices())}\n")
        return None
    size = min(most, context.memory().free // share) // STEP_BYTES * STEP_BYTES
    if not size:
        say(f"{FULL}\n")
        return None
    kernels, pattern, seed = _Quiet(context), context.allocate(size), int.from_bytes(os.urandom(7), "little")
    if not kernels.sees_faults(pattern, seed ^ 1):
        say(f"{BLIND}\n")
        return None
    kernels.fill(pattern.pointer, size, seed)
    counters = context.allocate(COUNTERS * WORD_BYTES)
    counters.write(bytes(counters.size))
    kernels.add(counters.pointer, counters.size, 0)  # loads the kernel, which a capture could not
    graph = Graph(context, lambda stream: kernels.add(counters.pointer, counters.size, 1, stream))
    busy, holder = context.stream(), Kernels(context)  # with a result of its own, beside the other stream's
    say(f"{SIZE}{size}\n")
    return _Held(kernels, pattern, seed, counters, graph, lambda: holder.hold(counters.pointer, ALL, BEAT_S / 2, busy))


def _beat(held: _Held, secret: bytes, keeper: int, say: Callable[[str], object]) -> None:
    beats = 0
    while _is_kept(keeper):
        beats += 1
        held.graph.launch()
        counts = struct.unpack(f"<{COUNTERS}Q", held.counters.read(held.counters.size))
        odd = sum(count != counts[0] for count in counts)
        wrong = held.kernels.check(held.pattern.pointer, held.pattern.size, held.seed).wrong
        wrong += not _sees(held)
        held.run_on()  # the stream has work while nobody waits for it
        line = f"{beats} {counts[0]} {wrong + odd} {os.getpid()}"
        say(f"{seal(secret, line)} {line}\n")
        time.sleep(BEAT_S)


def _sees(held: _Held) -> bool:
    """Whether the check still finds every word wrong by another seed: what is restored may run and look at nothing."""
    checked = STEP_BYTES
    return held.kernels.check(held.pattern.pointer, checked, held.seed ^ 1).wrong == checked // WORD_BYTES


def _is_kept(keeper: int) -> bool:
    """Whether the keeper lives, told by the trial's token in its environment: start times do not outlive a restore."""
    try:
        return TAG + b"=" + os.environb[TAG] in Path(f"/proc/{keeper}/environ").read_bytes()
    except OSError:
        return False


def _is_restored(record: Path) -> bool:
    """Whether it is written down that the driver restores us."""
    try:
        return str(os.getpid()) in record.read_text(encoding="ascii").split("\n")
    except OSError:
        return False
