"""A process that holds known bytes on a GPU, and does something with them only when it is told to by a signal."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from pathlib import Path
from typing import Final

from warmspare.control.cuda import Context
from warmspare.control.cuda_driver import Driver

SIZE: Final = 4 << 20
COUNTER_BYTES: Final = 8


def hold(diary: str) -> None:
    """Write `turn N right|wrong` into the diary at once and at each SIGUSR1.

    N stands on the GPU, behind it what only this process knows. It holds no pipe and no terminal, and its calls are
    copies, which wait for themselves: a synchronize as the first call after a checkpoint has crashed drivers.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})  # before CUDA's own threads
    known = hashlib.shake_256(os.urandom(16)).digest(SIZE - COUNTER_BYTES)
    buffer = Context(Driver().devices()[0]).allocate(SIZE)
    buffer.write(bytes(COUNTER_BYTES) + known)
    with Path(diary).open("w", buffering=1, encoding="ascii") as file:
        while True:
            found = buffer.read(SIZE)
            turn = int.from_bytes(found[:COUNTER_BYTES], "little")
            file.write(f"turn {turn} {'right' if found[COUNTER_BYTES:] == known else 'wrong'}\n")
            buffer.write((turn + 1).to_bytes(COUNTER_BYTES, "little") + found[COUNTER_BYTES:])
            signal.sigwait({signal.SIGUSR1})


if __name__ == "__main__":
    hold(sys.argv[1])
