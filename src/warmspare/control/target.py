"""What /proc says of a process that is to be acted on.

Source: proc_pid_stat(5), proc_pid_status(5), proc_pid_maps(5).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import msgspec

from warmspare.control.process import children, started

LIBRARY: Final = re.compile(rb"/libcuda\.so\.")
MOST: Final = 4096
"""More processes than this in one tree are not looked at."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One process as it was when it was looked at.

    `started` is in clock ticks since boot: with the pid it means this process and no later one. It is not to be
    compared across a CRIU restore, whose new time namespace shifts it. `state` is the kernel's letter (T: stopped,
    t: traced, Z: ended), `tracer` the pid that traces it or 0; `uid` is the effective one.
    """

    pid: int
    started: int
    parent: int
    name: str
    uid: int
    state: str
    tracer: int
    threads: int


def target(pid: int) -> Target | None:
    """The process with this number; None if there is none that we can see, or a thread has it.

    /proc answers for a thread's number too, and what is done under it would not be told from what is done to others.
    """
    seen = started(pid)
    status = _status(pid)
    if seen is None or not status or status.get("Tgid", str(pid)) != str(pid):
        return None
    parent, ticks, state = seen
    return Target(
        pid=pid,
        started=ticks,
        parent=parent,
        name=status.get("Name", ""),
        uid=int(status.get("Uid", "-1 -1").split()[1]),
        state=state,
        tracer=int(status.get("TracerPid", "0")),
        threads=int(status.get("Threads", "1")),
    )


def tree(pid: int) -> tuple[Target, ...]:
    """The process and all that it started and they started, the root first; empty if it is not there."""
    found: dict[int, Target] = {}
    waiting = [pid]
    while waiting and len(found) < MOST:
        number = waiting.pop(0)
        if number not in found and (seen := target(number)):
            found[number] = seen
            waiting += children(number)
    return tuple(found.values())


def is_same(one: Target) -> bool:
    """Whether the process that was looked at is still there: its number may have become another's."""
    seen = started(one.pid)
    return seen is not None and seen[1] == one.started and seen[2] not in "ZX"


def has_libcuda(pid: int) -> bool | None:
    """Whether it has the CUDA driver's library loaded; None if that may not be seen."""
    try:
        return bool(LIBRARY.search(Path(f"/proc/{pid}/maps").read_bytes()))
    except OSError:
        return None


def _status(pid: int) -> dict[str, str]:
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}
