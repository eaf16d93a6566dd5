"""Where a tree is restored: a process that holds all of it, stopped, until it is let go, and else ends all of it.

A program of its own, with the standard library alone. Its arguments are an open folder (CRIU's images), `here` or
`new`: the pid namespace to restore in, and the folder that CRIU works in, which it removes in the end, since whoever
started it may have been killed. On its standard input it is given one line of JSON: `command`, in which
`{images}` stands for the path of the folder, `out`, the file for what it prints, and `terminal`, whether it is to have
ours. It tells lines of JSON: `{"init": pid}`, as seen from outside, then `{"status": CRIU's}`. After that it waits for
the line `go`. When its input ends before that, whatever the reason, it ends what was restored, in part or whole:
nothing of it has run, and the image is as good as before.

In a namespace of its own it is that one's first process: it stays as long as anything lives there. Otherwise it goes,
and the tree becomes a child of whoever takes orphans.

Source: pid_namespaces(7), PR_SET_CHILD_SUBREAPER(2const).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
from typing import Any, Final

GO: Final = b"go\n"
LINE_LIMIT: Final = 65_536
NEW_PID, NEW_MOUNTS = 0x20000000, 0x20000
RECURSIVE_PRIVATE: Final = 0x4000 | 0x40000
NO_SUID_DEV_EXEC: Final = 2 | 4 | 8
SUBREAPER: Final = 36
LOOK_MS: Final = 20
"""How often to look whether CRIU has ended; nothing is read of it while it works."""


def main(images: int, where: str, work: str) -> None:
    """Restore, wait, and let go or end all."""
    try:
        is_let_go = _held(images, where)
    finally:
        _remove(work)
    if is_let_go and where == "new":
        _stay()


def _held(images: int, where: str) -> bool:
    """Restore, and hold what was restored; whether it was let go, or else ended."""
    if where == "new":
        _become_first()
    else:
        _call("prctl", SUBREAPER, 1, 0, 0, 0)
    criu = _begun(json.loads(_line()), images)
    if not _told_when_ended(criu) or _line() != GO:
        if criu.poll() is None:
            criu.kill()
        _end_all()
        return False
    return True


def _begun(plan: dict[str, Any], images: int) -> subprocess.Popen[bytes]:
    """CRIU at work. What it prints goes to a file, and what it restores holds nothing of ours."""
    path = f"/proc/{os.getpid()}/fd/{images}"
    command = [part.replace("{images}", path) for part in plan["command"]]
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(open(plan["out"], "wb"))  # noqa: PTH123 # few imports
        source: Any = subprocess.DEVNULL
        if plan["terminal"]:
            with contextlib.suppress(OSError):
                source = stack.enter_context(open("/dev/tty", "r+b", buffering=0))  # noqa: PTH123
        return subprocess.Popen(command, stdin=source, stdout=out, stderr=out, pass_fds=(images,))


def _told_when_ended(criu: subprocess.Popen[bytes]) -> bool:
    """Tell how CRIU ended; False when our input ended before."""
    poll = select.poll()
    poll.register(0, select.POLLIN)
    while criu.poll() is None:
        if poll.poll(LOOK_MS):  # nothing is said before the end, so it is the end of our input
            return False
    _tell({"status": criu.returncode})
    return True


def _become_first() -> None:
    """Go on as the first process of a new pid namespace, with a /proc of its own."""
    _call("unshare", NEW_PID | NEW_MOUNTS)
    child = os.fork()
    if child:
        _tell({"init": child})
        os._exit(0)
    _call("mount", b"none", b"/", None, RECURSIVE_PRIVATE, None)
    _call("mount", b"proc", b"/proc", b"proc", NO_SUID_DEV_EXEC, None)


def _stay() -> None:
    """Reap until nobody is left; hold nothing of those who started us."""
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.closerange(3, 1024)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()


def _end_all() -> None:
    """Kill and reap all that descends from us; those of the dead become ours."""
    with contextlib.suppress(ChildProcessError):
        while True:
            for pid in _children():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            os.wait()


def _children() -> list[int]:
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:  # noqa: PTH123 # few imports
        return [int(pid) for pid in file.read().split()]


def _remove(folder: str) -> None:
    """Remove a folder and the files in it; our starter may be at the same."""
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):  # noqa: PTH208 # few imports
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{folder}/{name}")  # noqa: PTH108
        os.rmdir(folder)  # noqa: PTH106


def _line() -> bytes:
    """One line of our input, unbuffered; empty at its end."""
    line = b""
    while not line.endswith(b"\n") and len(line) < LINE_LIMIT and (byte := os.read(0, 1)):
        line += byte
    return line


def _tell(what: dict[str, int]) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(1, json.dumps(what).encode() + b"\n")


def _call(name: str, *args: Any) -> None:  # noqa: ANN401 # as libc takes them
    libc = ctypes.CDLL(None, use_errno=True)
    plain = [ctypes.c_ulong(value) if isinstance(value, int) else value for value in args]
    if getattr(libc, name)(*plain):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), name)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
