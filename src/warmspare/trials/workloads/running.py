"""A program of the matrix as who started it sees it: told what to do line by line, and asked how it went."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Final, Literal, cast

import msgspec

import warmspare
from warmspare.control import process
from warmspare.control.worker import READ, Died, Hung

START: Final = (
    "import sys; kind, told, root = sys.argv[1:]; sys.path.append(root);"
    " from warmspare.trials.workloads import serving; serving.serve(kind, int(told))"
)
ENDING_S: Final = 5.0
"""How long its end may take to be seen."""


class Answer(msgspec.Struct, frozen=True):
    """How an order ended: `code` is what a lever refused with, or the cause of an absence."""

    kind: Literal["done", "refused", "absent"]
    code: str = ""
    detail: str = ""
    result: Any = None


class Running:
    """Its environment is ours whole, and only added to. Nothing ends it but `kill`, and its input before it stays."""

    def __init__(self, kind: str, added: Mapping[str, str]) -> None:
        """Start it."""
        self._answers, told = os.pipe()
        self._rest = b""
        root = str(Path(warmspare.__file__).parent.parent)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", START, kind, str(told), root],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=(told,),
            env={**os.environ, **added},
        )
        os.close(told)

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def order(self, do: str, *arguments: object) -> None:
        """Tell it what to do; one that has ended says so when it is asked for its answer."""
        line = msgspec.json.encode({"do": do, "arguments": arguments}) + b"\n"
        with contextlib.suppress(BrokenPipeError):
            os.write(cast("IO[bytes]", self._process.stdin).fileno(), line)

    def answer(self, ends: float) -> Answer:
        """Its answer to the last order, until a moment of the monotonic clock.

        Raises:
            Hung: none came.
            Died: it ended instead.
        """
        while b"\n" not in self._rest:
            if not process.ready([self._answers], ends - time.monotonic()):
                raise Hung
            data = os.read(self._answers, READ)
            if not data:
                raise Died(self._status())
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return msgspec.json.decode(line, type=Answer)

    def kill(self) -> None:
        """End it."""
        self._process.kill()
        self._status()
        with contextlib.suppress(BrokenPipeError):
            cast("IO[bytes]", self._process.stdin).close()
        os.close(self._answers)

    def _status(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(ENDING_S)
        return self._process.poll()
