"""Processes that CRIU left stopped: let go on as they were, or ended."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from warmspare.control import network_lock, process
from warmspare.control.target import Target, is_same, target

DELETED: Final = " (deleted)"
SETTLES_S: Final = 5.0
"""How long a process may be seen running after CRIU has stopped it."""
LOOK_AGAIN_S: Final = 0.002


def go_on(targets: Sequence[Target], log: str = "") -> str:
    """Let them run on after a dump, with their connections; what could not be given back, or nothing.

    `log` is CRIU's own of that dump: it names the packet filters that it left.
    """
    there = [one for one in targets if is_same(one)]
    problems: list[str] = []
    if filters := network_lock.tables(log):
        try:
            for table in filters:
                network_lock.take_back(table)
            network_lock.end_repair(one.pid for one in there)
        except OSError as error:
            problems.append(f"its TCP connections are blocked: {error.strerror or error}")
    for one in there:
        _remove_link_remaps(one.pid)
        if _is_stopped(one):
            send(one, signal.SIGCONT)
    return "; ".join(problems)


def end(targets: Sequence[Target]) -> tuple[Target, ...]:
    """Kill them; those that have not ended after ten seconds."""
    deadline = time.monotonic() + process.KILL_GRACE_S
    with contextlib.ExitStack() as stack:
        held = {one: stack.enter_context(process.holding(one.pid)) for one in targets}
        for one in targets:
            send(one, signal.SIGKILL)
        for one, descriptor in held.items():
            if descriptor is not None and is_same(one):
                process.ready([descriptor], deadline - time.monotonic())
    return tuple(one for one in targets if is_same(one))


def send(one: Target, number: signal.Signals) -> None:
    """Signal this very process, if it is there."""
    with process.holding(one.pid) as descriptor, contextlib.suppress(ProcessLookupError):
        if not is_same(one):  # asked now that it is held: the number may have become another's
            return
        if descriptor is None:
            os.kill(one.pid, number)
        else:
            signal.pidfd_send_signal(descriptor, number)


def in_memory(targets: Iterable[Target]) -> int:
    """Bytes that a dump of them will write, about: anonymous and shared memory, and what of it is swapped out.

    Source: proc_pid_status(5).
    """
    return sum(_in_memory(one.pid) for one in targets)


def is_still(one: Target) -> bool:
    """Whether it was stopped, or had ended, when it was looked at."""
    return one.state in "TtZX"


def settled(look: Callable[[], Sequence[Target]], within_s: float = SETTLES_S) -> Sequence[Target]:
    """Those that are seen once all of them are still, or when the time is up.

    CRIU sends SIGSTOP and lets go: a process, and sooner one with threads, may be seen running a moment longer. The
    kernel tells the stop to its parent only.
    """
    deadline = time.monotonic() + within_s
    while not all(map(is_still, seen := look())) and time.monotonic() < deadline:
        time.sleep(LOOK_AGAIN_S)
    return seen


def _is_stopped(one: Target) -> bool:
    seen = target(one.pid)
    return seen is not None and seen.state == "T"


def _in_memory(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:  # it has ended
        return 0
    found = re.findall(r"^(?:RssAnon|RssShmem|VmSwap):\s*(\d+) kB$", status, re.MULTILINE)
    return 1024 * sum(int(kib) for kib in found)


def _remove_link_remaps(pid: int) -> None:
    """Remove the names that CRIU gave to deleted files which the process has open. Source: criu/files-reg.c."""
    with contextlib.suppress(OSError):  # it has ended
        for link in Path(f"/proc/{pid}/fd").iterdir():
            shown = str(link.readlink())
            if shown.endswith(DELETED):
                for name in Path(shown.removesuffix(DELETED)).parent.glob("link_remap.*"):
                    if name.samefile(link):
                        name.unlink()
