"""Worlds for the tool to run in: users, namespaces and terminals, all real."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import shlex
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any, Final, NamedTuple

import warmspare

NOBODY: Final = 65534
TOOL: Final = (sys.executable, "-m", "warmspare")
DESIGNED: Final = frozenset({0, 1, 3, 4})
CLEAR: Final = "\r\x1b[2K"


class Seen(NamedTuple):
    """What a terminal received, and the exit code."""

    stdout: str
    stderr: str
    code: int


def fake(path: Path, script: str) -> str:
    """A program in sh; returns its path."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def marking_criu(folder: Path) -> tuple[str, Path]:
    """A CRIU that leaves a mark when it is run, and the mark."""
    mark = folder / "criu-was-run"
    return fake(folder / "marking-criu", f"touch {shlex.quote(str(mark))}"), mark


def in_world(
    script: str,
    *command: str,
    flags: tuple[str, ...] = (),
    **more: Any,  # noqa: ANN401 # subprocess.run's
) -> subprocess.CompletedProcess[str]:
    """Run `command` in a mount namespace of its own that the sh `script` has arranged; `$@` is the command."""
    whole = ["unshare", "--mount", *flags, "sh", "-ec", f'{script}\nexec "$@"', "sh", *command]
    options: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 60, "cwd": "/", **more}
    return subprocess.run(whole, check=False, **options)


def reachable() -> str:
    """A script that lets every user reach the interpreter and this checkout, whatever lies above them.

    It covers each closed folder (a mode 0700 /root) by an open one that holds only the ways down.
    """
    ways: dict[Path, dict[str, None]] = {}
    for goal in map(Path, (sys.executable, os.path.realpath(sys.executable), warmspare.__file__)):
        for above in goal.parents:
            if not above.stat().st_mode & 0o001:
                ways.setdefault(above, {})[goal.relative_to(above).parts[0]] = None
    lines = ["mount --make-rprivate /"]
    for above in sorted(ways):
        cover = shlex.quote(str(above))
        lines.append(f"mount --rbind {cover} /mnt; mount -t tmpfs -o mode=755 none {cover}")
        lines += [f"mkdir {cover}/{name}; mount --rbind /mnt/{name} {cover}/{name}" for name in ways[above]]
        lines.append("umount -R /mnt")
    return "\n".join(lines)


def as_nobody(*command: str) -> tuple[str, ...]:
    """The command as a user without any privilege."""
    who = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--bounding-set=-all")
    return (*who, *command)


def on_terminal(*command: str, columns: int, env: dict[str, str], piped: bool = False) -> Seen:
    """Run `command` with terminals as its streams (`piped`: standard output is a pipe), and read what they get."""
    (out, out_theirs), (err, err_theirs) = os.pipe() if piped else pty.openpty(), pty.openpty()
    for descriptor in (err_theirs, *([] if piped else [out_theirs])):
        fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out_theirs, stderr=err_theirs, env=env)
    os.close(out_theirs)
    os.close(err_theirs)
    got = {out: b"", err: b""}
    left, deadline = {out, err}, time.monotonic() + 60
    while left and time.monotonic() < deadline:
        for descriptor in select.select(list(left), [], [], 1)[0]:
            data = b""
            with contextlib.suppress(OSError):  # a terminal whose other end is gone says EIO
                data = os.read(descriptor, 65_536)
            got[descriptor] += data
            if not data:
                left.discard(descriptor)
                os.close(descriptor)
    texts = [got[one].decode().replace("\r\n", "\n") for one in (out, err)]
    return Seen(texts[0], texts[1], process.wait(30))


def wait_for(path: Path, process: subprocess.Popen[Any] | None, seconds: float = 30) -> None:
    """Wait until `path` is there, while the process (if one is named) runs."""
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert process is None or process.poll() is None, f"ended before {path} was there: {process}"
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.01)


def gone(pid: int, seconds: float = 15) -> bool:
    """Whether a process (that is no child of ours) ends in time; a zombie has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def end(pid: int) -> None:
    """Kill a process that a failed test may have left."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def is_one_line(text: str) -> bool:
    """Whether it is exactly one line of printable ASCII."""
    return text.endswith("\n") and text.count("\n") == 1 and text[:-1].isascii() and text[:-1].isprintable()


def is_calm(data: bytes) -> bool:
    """Whether text holds nothing that steers a terminal or hides itself: only printable characters and newlines."""
    return all(line.isprintable() for line in data.decode().split("\n"))
