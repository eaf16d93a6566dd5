"""Trees to be saved and restored, with the test as the parent of whatever becomes an orphan."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import saved_programs

from leftovers import until
from warmspare.control import process
from warmspare.control.criu import Criu
from warmspare.control.target import tree

ALIVE = 3
"""How many more lines show that it goes on."""


class Saved:
    """One program of `saved_programs`, and what it wrote."""

    def __init__(
        self, program: str, folder: Path, env: dict[str, str] | None = None, under: tuple[str, ...] = ()
    ) -> None:
        """Start it, by a launcher or not, and wait until it beats."""
        self.beats = folder / f"{program}.beats"
        self.process = subprocess.Popen(
            [*under, sys.executable, saved_programs.__file__, program, str(self.beats)],
            stdin=-3,
            stdout=-3,
            stderr=-3,
            cwd=folder,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
        self.pid = self.process.pid
        assert self.goes_on(), "it did not start"
        self.pids, self.name = [one.pid for one in tree(self.pid)], tree(self.pid)[0].name

    @property
    def lines(self) -> list[tuple[str, int]]:
        """The whole lines so far."""
        text = self.beats.read_text().rpartition("\n")[0] if self.beats.exists() else ""
        return [(token, int(n)) for token, n in (line.split() for line in text.splitlines())]

    def goes_on(self) -> bool:
        """Whether it writes more lines, each by the same memory, and none left out."""
        before = len(self.lines)
        if not until(lambda: len(self.lines) >= before + ALIVE):
            return False
        lines = self.lines
        return {token for token, _ in lines} == {lines[0][0]} and [n for _, n in lines] == list(
            range(1, len(lines) + 1)
        )

    def is_gone(self) -> bool:
        """Whether every process of it ends; they are reaped."""
        self.reap()
        return until(lambda: not any(process.started(pid) for pid in self.pids))

    def reap(self) -> None:
        """Wait for those that have been killed; the test is their parent."""
        for pid in self.pids:
            with contextlib.suppress(ChildProcessError):
                until(functools.partial(_reaped, pid))

    def kill(self) -> None:
        """End it, wherever it stands."""
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.reap()
        self.process.returncode = 0

    def __enter__(self) -> Self:
        """Use it."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.kill()


def _reaped(pid: int) -> bool:
    return os.waitpid(pid, os.WNOHANG)[0] != 0


@contextlib.contextmanager
def as_parent() -> Iterator[None]:
    """Orphans become our children meanwhile, and can be reaped. Source: PR_SET_CHILD_SUBREAPER(2const)."""
    process.become_subreaper()
    try:
        yield
    finally:
        ctypes.CDLL(None).prctl(process.SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def reads_sockets() -> bool:
    """Whether the CRIU that is here can dump a TCP socket: before 4.2 none can on Linux 6.16 or later."""
    criu = Criu.found()
    version = tuple(map(int, (criu.version() or "0").split("."))) if criu else (0,)
    release = re.match(r"(\d+)\.(\d+)", os.uname().release)
    assert release
    return version >= (4, 2) or (int(release[1]), int(release[2])) < (6, 16)
