"""Processes that are ours: found, bound to us, and ended with all they started."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

SET_PDEATHSIG: Final = 1
SET_CHILD_SUBREAPER: Final = 36
KILL_GRACE_S: Final = 10.0
"""How long a process may take to end after SIGKILL before it is named and left."""
LOOK_AGAIN_S: Final = 0.05
"""How long to wait for the end of those that are known before looking for more."""

DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TAG: Final = "WARMSPARE_TRIAL"
"""Environment variable that marks every process of a trial, also one that CRIU restored."""


def become_subreaper() -> None:
    """Make orphaned descendants of this process its children. Source: PR_SET_CHILD_SUBREAPER(2const)."""
    _prctl(SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when `parent` ends, also when it already has.

    Source: PR_SET_PDEATHSIG(2const).
    """
    _prctl(SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), "prctl")


def find_program(name: str, environment: Mapping[str, str]) -> str | None:
    """The absolute path of a program: `WARMSPARE_<NAME>` first, then PATH, then the usual folders.

    Relative entries of PATH are passed over: this tool runs as root in folders it does not trust.
    """
    if override := environment.get(f"WARMSPARE_{name.upper()}"):
        return str(Path(override).absolute()) if _is_program(Path(override)) else None
    folders = f"{environment.get('PATH', '')}:{DEFAULT_PATH}".split(":")
    for folder in dict.fromkeys(folders):
        if folder.startswith("/") and _is_program(Path(folder, name)):
            return str(Path(folder, name))
    return None


def _is_program(path: Path) -> bool:
    try:
        return path.is_file() and os.access(path, os.X_OK)
    except OSError:  # an unreadable folder in PATH holds no program for us
        return False


def sees_itself() -> bool:
    """Whether /proc is that of our own pid namespace; in another's, its numbers are not ours to signal."""
    try:
        return str(Path("/proc/self").readlink()) == str(os.getpid())
    except OSError:
        return False


def started(pid: int) -> tuple[int, int, str] | None:
    """(parent, start time in ticks, state letter) of a process, or None if there is none we can see.

    Source: proc_pid_stat(5); the name may hold spaces and parentheses, so it is cut at the last one.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="latin-1").rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[1]), int(fields[19]), fields[0]


def children(parent: int) -> list[int]:
    """The direct children of `parent`, by scanning /proc (the kernel's own list is optional)."""
    return [pid for pid in _pids() if (seen := started(pid)) and seen[0] == parent]


def tagged(token: str) -> list[int]:
    """Processes of ours that carry a trial's token in their environment, zombies left out."""
    mark = f"{TAG}={token}".encode()
    found = []
    for pid in _pids():
        with contextlib.suppress(OSError):
            if pid != os.getpid() and mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.append(pid)
    return found


def _pids() -> Iterator[int]:
    if sees_itself():
        yield from (int(name) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208 # names, not paths


def end_descendants(spare: frozenset[int] = frozenset()) -> list[int]:
    """Kill and reap every child of this subreaper until none is left; returns those that would not die."""
    return _end(lambda: [pid for pid in children(os.getpid()) if pid not in spare])


def end_tagged(token: str) -> list[int]:
    """Kill every process that carries a trial's token; returns those that would not die."""
    return _end(lambda: tagged(token))


def _end(find: Callable[[], list[int]]) -> list[int]:
    deadline = time.monotonic() + KILL_GRACE_S
    while (left := find()) and time.monotonic() < deadline:
        with _pidfds(left) as descriptors:
            for descriptor in descriptors:
                with contextlib.suppress(ProcessLookupError, PermissionError):  # set-uid: it is named
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            # Not until all have ended: one that is traced ends only after its tracer, who may become ours by then.
            select.select(descriptors, [], [], min(LOOK_AGAIN_S, max(0.0, deadline - time.monotonic())))
        for pid in left:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
    return left


@contextlib.contextmanager
def _pidfds(pids: list[int]) -> Iterator[list[int]]:
    with contextlib.ExitStack() as stack:
        descriptors = []
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                descriptor = os.pidfd_open(pid)
                stack.callback(os.close, descriptor)
                descriptors.append(descriptor)
        yield descriptors


def exited(descriptor: int, deadline_s: float) -> bool:
    """Whether the process behind a pidfd has ended, waiting up to `deadline_s`."""
    return bool(select.select([descriptor], [], [], deadline_s)[0])
