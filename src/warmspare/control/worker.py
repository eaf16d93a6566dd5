"""A program of ours that answers line by line, and is killed when it does not: a driver call may never return."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Final, cast

import warmspare
from warmspare.control import process

READ: Final = 65_536
GRACE_S: Final = 5.0
"""How long it may take to end; one that hangs in the kernel is left to it."""


HIDES_GPUS: Final = "CUDA_VISIBLE_DEVICES"
"""What hides GPUs from us must not decide on which one another process can be restored."""


class Hung(Exception):
    """It gave no answer in time, and has been killed."""


class Died(Exception):
    """It ended instead of answering. `code` says how, such as `signal 11`."""

    def __init__(self, status: int | None) -> None:
        """Carry its exit status; negative: the signal that ended it."""
        self.code = f"signal {-status}" if status and status < 0 else f"status {status}"
        super().__init__(self.code)


class Worker:
    """One such process. It has the standard library and this package, and nothing else."""

    def __init__(self, start: str) -> None:
        """Run the Python text `start`, whose arguments are the folder of this package and our pid.

        It is in a session of its own: the terminal's Ctrl-C must not end it in the middle of a call.
        """
        root = str(Path(warmspare.__file__).parent.parent)
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", start, root, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env={name: value for name, value in os.environ.items() if name != HIDES_GPUS},
        )
        self._rest = b""

    def ask(self, request: bytes, deadline_s: float) -> bytes:
        """Its answer to one line. A worker that raised is of no further use.

        Raises:
            Hung: it gave none in time.
            Died: it ended.
        """
        stdin = cast("IO[bytes]", self._process.stdin)
        try:
            stdin.write(request + b"\n")
            stdin.flush()
        except BrokenPipeError:
            raise Died(self._status()) from None
        return self._line(time.monotonic() + deadline_s)

    def close(self) -> None:
        """End it."""
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):
                cast("IO[bytes]", pipe).close()
        self._status()

    def _line(self, deadline: float) -> bytes:
        source = cast("IO[bytes]", self._process.stdout).fileno()
        while b"\n" not in self._rest:
            if not process.ready([source], deadline - time.monotonic()):
                raise Hung
            data = os.read(source, READ)
            if not data:
                raise Died(self._status())
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _status(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE_S)
        return self._process.poll()
