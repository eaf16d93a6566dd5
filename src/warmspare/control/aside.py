"""Work in a process of its own that may take too long: a disk or a server that does not answer holds nobody else up."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from typing import Any, Final, NoReturn

import msgspec

from warmspare.control import process

Tell = Callable[[Any], None]
"""Given to the work: hands one thing, that JSON can hold, to whoever waits."""
READ: Final = 65_536


def follow(work: Callable[[Tell], None], take: Callable[[bytes], object], patience_s: float) -> str | None:
    """Do `work` aside, and take each thing that it tells, as JSON; None, or why it did not come to its end.

    Whatever it told before it was stopped counts. One that takes longer than `patience_s` is stopped with all that it
    started and not killed: it may hold a lock that says that its folder is in use. It ends with us.
    """
    told, tell = os.pipe()
    us = os.getpid()
    child = os.fork()
    if child == 0:
        os.close(told)
        _work(us, work, tell)
    os.close(tell)
    _lead(child)
    try:
        if not _followed(told, take, patience_s):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGSTOP)
            return f"it took longer than {patience_s:g} s"
    finally:
        os.close(told)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return None if code == 0 else f"what asked it died ({f'signal {-code}' if code < 0 else f'exit {code}'})"


def _lead(child: int) -> None:
    """Make it the leader of a group, on both sides of the fork: whichever comes first."""
    with contextlib.suppress(OSError):
        os.setpgid(child, child)


def _work(parent: int, work: Callable[[Tell], None], tell: int) -> NoReturn:
    try:
        _lead(os.getpid())
        process.die_with_parent(parent)
        with os.fdopen(tell, "wb", buffering=0) as pipe:
            work(lambda thing: _write(pipe.fileno(), msgspec.json.encode(thing) + b"\n"))
        os._exit(0)
    finally:
        os._exit(1)


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _followed(told: int, take: Callable[[bytes], object], patience_s: float) -> bool:
    """Whether it came to an end in time: then nobody holds the other end of its pipe."""
    deadline, rest = time.monotonic() + patience_s, b""
    while process.ready([told], deadline - time.monotonic()):
        data = os.read(told, READ)
        if not data:
            return True
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            take(line)
    return False
