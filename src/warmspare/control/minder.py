"""A small process between us and a server that starts processes of its own: whatever ends, nothing of it is left.

It is told to stop by a line, by the end of its input, by the end of its parent or by a signal; then it asks the
server, waits, and kills every descendant: it is their subreaper. The server ends with it, also when it is killed.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

from warmspare.control import process

START: Final = (
    "import sys; sys.path.insert(0, sys.argv[1]); from warmspare.control import minder; "
    "minder.mind(int(sys.argv[2]), sys.argv[3:])"
)
"""Run with the folder of this package, the parent's pid, and the command."""
UNASKED_S: Final = 5.0
"""How long the server may take to end where nobody is left to say."""
LINE: Final = 64


def mind(parent: int, command: Sequence[str]) -> None:
    """Run `command` to its end. Says `pid N`, or `failed ENOENT`; then `ended STATUS`, then `left N…` of any alive."""
    woken, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(waker)
    for number in process.STOPPING:
        signal.signal(number, lambda *_: None)
    process.become_subreaper()
    process.disturbable()
    with process.holding(parent) as above:
        if os.getppid() != parent:
            return
        server = _start(command)
        if server is None:
            return
        said, ended = process.first([0, woken, *([] if above is None else [above])], server.pid, None)
        if not ended:
            _stop(server, _grace() if said == {0} else UNASKED_S)
        # Told at once: whoever waits need not wait for what else has to be ended.
        _say(f"ended {server.poll()}")
        if left := process.end_descendants():
            _say(f"left {' '.join(map(str, left))}")


def _start(command: Sequence[str]) -> subprocess.Popen[bytes] | None:
    bind = functools.partial(process.die_with_parent, os.getpid())
    try:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno(),
            preexec_fn=bind,  # noqa: PLW1509 # one thread here
        )
    except OSError as error:
        _say(f"failed {errno.errorcode.get(error.errno or 0, 'OSError')}")
        return None
    _say(f"pid {server.pid}")
    return server


def _grace() -> float:
    """How long we were told to wait."""
    try:
        return float(os.read(0, LINE))
    except ValueError:  # the end of the input
        return UNASKED_S


def _stop(server: subprocess.Popen[bytes], grace_s: float) -> None:
    server.terminate()
    _, ended = process.first([], server.pid, grace_s)
    if not ended:
        server.kill()
        process.first([], server.pid, process.KILL_GRACE_S)


def _say(line: str) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody is left to be told
        os.write(1, f"{line}\n".encode())
