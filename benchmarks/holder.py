"""A CUDA process that holds so many GiB of a GPU, filled with a pattern, and says when asked if they are right.

    python benchmarks/holder.py GIB      prints `ready`; then for each line of input `right`, or `wrong N`

Its streams may be files: a process that CRIU dumps must hold no pipe to the outside. It then looks for lines in the
file that is its input.
"""

from __future__ import annotations

import secrets
import subprocess
import sys
import time
from pathlib import Path
from typing import Final, Self

from warmspare.control.cuda import Context, Driver
from warmspare.control.kernels import Kernels

GIB: Final = 2**30
LOOK_S: Final = 0.02


def hold(gib: float) -> None:
    """Hold it, and answer."""
    context = Context(Driver().devices()[0])
    kernels, seed = Kernels(context), secrets.randbits(63)
    size = int(gib * GIB)
    buffer = context.allocate(size)
    kernels.fill(buffer.pointer, size, seed)
    context.synchronize()
    print("ready", flush=True)
    while True:
        if sys.stdin.readline():
            wrong = kernels.check(buffer.pointer, size, seed).wrong
            print(f"wrong {wrong}" if wrong else "right", flush=True)
        else:
            time.sleep(LOOK_S)


class Holder:
    """Such a process, asked by files in a folder."""

    def __init__(self, gib: float, folder: Path) -> None:
        """Start it and wait until it holds its memory."""
        self._asked, self._said = folder / "asked", folder / "said"
        self._asked.touch()
        with self._asked.open("rb") as asked, self._said.open("wb") as said:
            command = [sys.executable, __file__, str(gib)]
            self.process = subprocess.Popen(command, stdin=asked, stdout=said, stderr=said, start_new_session=True)
        self.pid = self.process.pid
        self._lines = 0
        self._next()

    def is_right(self) -> bool:
        """Whether it still holds what it held."""
        with self._asked.open("ab") as asked:
            asked.write(b"?\n")
        return self._next() == "right"

    def gone(self) -> None:
        """It was ended by somebody else: reap it."""
        self.process.wait(60)

    def __enter__(self) -> Self:
        """Ready."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it: nobody has restored it by then, or this is a driver on which that does no harm."""
        self.process.kill()
        self.process.wait(60)

    def _next(self) -> str:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            lines = self._said.read_text().splitlines()
            if len(lines) > self._lines:
                self._lines += 1
                return lines[self._lines - 1]
            time.sleep(LOOK_S)
        message = f"the holder does not answer: {self._said.read_text()[-300:]}"
        raise TimeoutError(message)


if __name__ == "__main__":
    hold(float(sys.argv[1]))
