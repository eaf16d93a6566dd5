"""A vLLM server of our own: started on a socket only we can reach, followed by its log, and ended whole."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self, cast

import warmspare
from warmspare.control import minder, process
from warmspare.control.vllm import Engine
from warmspare.control.vllm_address import Unix
from warmspare.control.vllm_command import Asked, BadFlags, command, environment, place, refuse
from warmspare.control.vllm_log import Log
from warmspare.control.vllm_wire import EngineFailed

__all__ = ["Asked", "BadFlags", "Server"]

CALL: Final = "starting vLLM"
START_S: Final = 30.0
LOOK_AGAIN_S: Final = 0.1
HEALTH_S: Final = 5.0
HEALTHY: Final = 200
ENDED: Final = "it ended"
STILL_THERE: Final = "some of it would not end"


class Server:
    """One that was started, and is stopped when it is left; made by the main thread, with which it ends."""

    def __init__(self, asked: Asked) -> None:
        """Start it; it is not ready yet.

        Raises:
            BadFlags: a flag is not to be given here.
            EngineFailed: its Python cannot be run.
        """
        refuse(asked.flags)
        self._address = place(asked)
        self.engine = Engine(self._address, os.environ.get("VLLM_API_KEY") or None)
        self.log = Log(asked.folder / "log")
        self.pid = 0
        """Of the API server."""
        self._rest, self._said, self._closed = b"", list[str](), False
        root = str(Path(warmspare.__file__).parent.parent)
        with self.log.path.open("ab") as log:
            self._minder = subprocess.Popen(
                [
                    sys.executable,
                    "-I",
                    "-S",
                    "-c",
                    minder.START,
                    root,
                    str(os.getpid()),
                    *command(asked, self._address),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # the terminal's Ctrl-C is ours to handle
                env=environment(asked, os.environ),
            )
        try:
            self.pid = self._begun()
        except BaseException:
            self.stop(0)
            raise

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it."""
        self.stop()

    def ready(self, within_s: float, tell: Callable[[str], None]) -> float:
        """Wait until it serves: seconds since this was called. `tell` is given a word on what it does.

        Raises:
            EngineFailed: it ended (`died`, with the telling line of its log), or was not ready in time (`hung`).
        """
        began = time.monotonic()
        deadline = began + within_s
        while True:
            over, ready = self.wait_ended(LOOK_AGAIN_S), False
            with contextlib.suppress(EngineFailed):  # not there yet
                left_s = max(LOOK_AGAIN_S, min(HEALTH_S, deadline - time.monotonic()))
                ready = not over and self.engine.health(left_s) == HEALTHY
            for word in self.log.news():
                tell(word)
            if ready:
                return time.monotonic() - began
            if over:
                raise EngineFailed(ENDED, f"{CALL}: {self.log.telling() or 'its log says nothing'}", how="died")
            if time.monotonic() >= deadline:
                late = f"not ready within {within_s:g} s"
                raise EngineFailed(late, f"{CALL}: {self.log.last()}", how="hung")

    def tail(self, lines: int = 20) -> str:
        """The end of its log."""
        return self.log.tail(lines)

    def has_ended(self) -> bool:
        """Whether its API server has ended."""
        return self.wait_ended(0)

    def wait_ended(self, within_s: float) -> bool:
        """The same, waiting for it."""
        deadline = time.monotonic() + within_s
        while not self._is_over() and self._hear(deadline - time.monotonic()):
            pass
        return self._is_over()

    def stop(self, within_s: float = 20.0) -> None:
        """Ask it to end; after `within_s` kill it with all that it started. Returns when all are gone.

        Raises:
            EngineFailed: some would not die.
        """
        stdin = cast("IO[bytes]", self._minder.stdin)
        if not stdin.closed:
            with contextlib.suppress(BrokenPipeError), stdin:  # it has ended
                stdin.write(f"{within_s:g}\n".encode())
        deadline = time.monotonic() + within_s + 3 * process.KILL_GRACE_S
        while not self._closed and self._hear(deadline - time.monotonic()):
            pass
        if not self._closed:
            self._minder.kill()
        self._minder.wait()
        cast("IO[bytes]", self._minder.stdout).close()
        if isinstance(self._address, Unix):
            Path(self._address.path).unlink(missing_ok=True)
        left = next((line.removeprefix("left ") for line in self._said if line.startswith("left ")), None)
        if left or not self._closed:
            raise EngineFailed(STILL_THERE, f"stopping vLLM: process {left or self.pid}", how="hung")

    def _begun(self) -> int:
        deadline = time.monotonic() + START_S
        while not self._said and self._hear(deadline - time.monotonic()):
            pass
        word, _, rest = self._said[0].partition(" ") if self._said else ("", "", "")
        if word == "pid":
            return int(rest)
        raise EngineFailed(rest or ENDED, CALL, how="refused" if rest else "died")

    def _is_over(self) -> bool:
        return self._closed or any(line.startswith("ended ") for line in self._said)

    def _hear(self, within_s: float) -> bool:
        """Take what the minder says next; False: nothing in time, or no more."""
        if self._closed:
            return False
        source = cast("IO[bytes]", self._minder.stdout).fileno()
        if not process.ready([source], within_s):
            return False
        data = os.read(source, minder.LINE)
        self._closed = not data
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._said += [line.decode() for line in lines]
        return bool(data)
