"""Processes that are ours: found, bound to us, and ended with all they started."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import select
import signal
import stat
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

SET_PDEATHSIG: Final = 1
SET_CHILD_SUBREAPER: Final = 36
KILL_GRACE_S: Final = 10.0
"""How long a process may take to end after SIGKILL before it is named and left."""
STOPPING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""The signals that ask us to stop."""
LOOK_AGAIN_S: Final = 0.05
"""How long to wait for the end of those that are known before looking for more."""

OOM_SCORE: Final = Path("/proc/self/oom_score_adj")
FIRST: Final = "1000"
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


def die_first() -> None:
    """Have the kernel take this process, and what it starts, before others where memory ends. Source: proc(5).

    Anybody may raise its own score; where /proc is not to be written the score stays as it is.
    """
    with contextlib.suppress(OSError):
        OOM_SCORE.write_text(FIRST, encoding="ascii")


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Handle what asks us to stop only afterwards: a process that is being started is known by then.

    It inherits this, and must call `disturbable` itself.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def disturbable() -> None:
    """Let the signals that ask us to stop through again."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), "prctl")


def find_program(name: str, environment: Mapping[str, str]) -> str | None:
    """The absolute path of a program: `WARMSPARE_<NAME>` first, then PATH, then the usual folders.

    Relative entries of PATH are passed over, and for root those that everybody may write to: this tool runs
    as root in folders it does not trust. A path that is named outright is taken as it is.
    """
    if name.startswith("/"):
        return name if _is_program(Path(name)) else None
    if override := environment.get(f"WARMSPARE_{name.upper()}"):
        return str(Path(override).absolute()) if _is_program(Path(override)) else None
    folders = f"{environment.get('PATH', '')}:{DEFAULT_PATH}".split(":")
    for folder in dict.fromkeys(folders):
        if folder.startswith("/") and _is_program(Path(folder, name)) and not _is_anybodys(folder):
            return str(Path(folder, name))
    return None


def _is_program(path: Path) -> bool:
    try:
        return path.is_file() and os.access(path, os.X_OK)
    except OSError:  # an unreadable folder in PATH holds no program for us
        return False


def _is_anybodys(folder: str) -> bool:
    """Whether root would run there what any user may have put there."""
    return os.geteuid() == 0 and bool(Path(folder).stat().st_mode & stat.S_IWOTH)


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
    """The direct children of `parent`, of all its threads.

    The kernel's own list, which is whole as long as nobody but the parent reaps them; without it
    (CONFIG_PROC_CHILDREN) all of /proc is read. Source: proc_tid_children(5).
    """
    if not sees_itself():
        return []
    try:
        listed = [path.read_text(encoding="ascii") for path in Path(f"/proc/{parent}/task").glob("*/children")]
    except OSError:
        listed = []
    if listed:
        return sorted({int(pid) for text in listed for pid in text.split()})
    return [pid for pid in _pids() if (seen := started(pid)) and seen[0] == parent]


def tagged(token: str) -> list[int]:
    """Processes of ours that carry a trial's token in their environment, zombies left out."""
    return [pid for pid in _pids() if pid != os.getpid() and is_tagged(pid, token)]


def is_tagged(pid: int, token: str) -> bool:
    """Whether a process carries a trial's token in its environment: a zombie has none."""
    try:
        return f"{TAG}={token}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _pids() -> Iterator[int]:
    if sees_itself():
        with contextlib.suppress(OSError):  # no descriptor is left to look with
            yield from (int(name) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208 # names, not paths


def end_descendants(spare: frozenset[int] = frozenset()) -> list[int]:
    """Kill and reap every child of this subreaper until none is left; returns those that would not die."""
    us = os.getpid()
    try:  # the usual case, told without reading all of /proc
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return []
    # Nobody but us reaps a child of ours, so its number cannot have become another's.
    return _end(lambda: [pid for pid in children(us) if pid not in spare], lambda pid: (started(pid) or (0,))[0] == us)


def end_tagged(token: str, spare: frozenset[int] = frozenset()) -> list[int]:
    """Kill every process that carries a trial's token; returns those that would not die."""
    return _end(lambda: [pid for pid in tagged(token) if pid not in spare], lambda pid: is_tagged(pid, token))


def _end(find: Callable[[], list[int]], is_ours: Callable[[int], bool]) -> list[int]:
    deadline = time.monotonic() + KILL_GRACE_S
    while (left := find()) and time.monotonic() < deadline:
        with contextlib.ExitStack() as stack:
            held = [stack.enter_context(holding(pid)) for pid in left]
            for pid, descriptor in zip(left, held, strict=True):
                if is_ours(pid):  # asked again now that it is held: the number may have become another's
                    _kill(pid, descriptor)
            # Not until all have ended: one that is traced ends only after its tracer, who may become ours by then.
            known = [descriptor for descriptor in held if descriptor is not None]
            ready(known, min(LOOK_AGAIN_S, max(0.0, deadline - time.monotonic())))
        for pid in left:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
    return left


def _kill(pid: int, descriptor: int | None) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # set-uid: it is named
        if descriptor is not None:
            try:
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            except ProcessLookupError:
                return
            except OSError:  # no such call for us: by its number, then
                os.kill(pid, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def holding(pid: int) -> Iterator[int | None]:
    """A descriptor that means this process and never another; None if it is gone, or where we get none.

    Linux before 5.3 and many container filters have no pidfd_open(2).
    """
    try:
        descriptor = os.pidfd_open(pid)
    except (OSError, AttributeError):  # a Python built on an older system lacks it as well
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def ready(descriptors: Collection[int], timeout_s: float | None) -> set[int]:
    """Those that can be read without waiting, or have ended; waits for the first. None: for ever.

    poll(2), since select(2) knows no descriptor above 1023.
    """
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return {found for found, _ in poll.poll(None if timeout_s is None else math.ceil(max(0.0, timeout_s) * 1000))}


def first(descriptors: Collection[int], child: int, timeout_s: float | None) -> tuple[set[int], bool]:
    """Wait for the first that can be read, or for the end of our child: those, and whether it has ended.

    The child is left to be reaped.
    """
    deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
    with holding(child) as descriptor:
        watched = descriptors if descriptor is None else [*descriptors, descriptor]
        while True:
            left = max(0.0, deadline - time.monotonic())
            step = min(left, LOOK_AGAIN_S) if descriptor is None else left
            found = ready(watched, None if step == math.inf else step) & set(descriptors)
            if ended := has_ended(child):  # it may have written once more before its end
                found |= ready(descriptors, 0)
            if found or ended or time.monotonic() >= deadline:
                return found, ended


def has_ended(child: int) -> bool:
    """Whether a child of ours has ended; it is left to be reaped."""
    try:
        return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True
