"""Children of an experiment: each has a line to us, dies with us, and is reaped before the block is left."""

import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple, cast

from warmspare.host.experiments._syscalls import PR_SET_PDEATHSIG, Answer, prctl

DEADLINE_S = 5.0
MESSAGE_BYTES = 65536
_PARENT_OUTSIDE = 0  # what getppid() says of a parent in another pid namespace


class Child(NamedTuple):
    """A living child: its pid, and our end of a line on which each message arrives whole or not at all."""

    pid: int
    line: socket.socket


class LostChildError(Exception):
    """A child ended, or fell silent, before its answer: the experiment failed, and nothing is known."""


@contextmanager
def child(act: Callable[[socket.socket], None]) -> Iterator[Child]:
    """Fork a child that runs `act` with its end of the line and exits; it is killed and reaped on leaving.

    Nothing in the block may reap it (`ended` only looks), so that its pid cannot have become another's when
    it is killed. The child hears nothing (``b""``) on its end once we are gone.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    parent = os.getpid()
    with ours, theirs:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                ours.close()
                _die_with(parent)
                act(theirs)
                code = 0
            finally:
                os._exit(code)
        try:
            theirs.close()
            ours.settimeout(DEADLINE_S)
            yield Child(pid, ours)
        finally:
            os.kill(pid, signal.SIGKILL)
            # Only exits: a traced child's stop would be reported by a plain waitpid(2) and leave a zombie.
            os.waitid(os.P_PID, pid, os.WEXITED)


def in_child(ask: Callable[[], Answer]) -> Answer:
    """Run `ask` in a forked child and return its answer, for experiments that change the process they run in.

    Raises:
        LostChildError: it ended without one.
    """
    with child(lambda line: line.sendall(json.dumps(ask()).encode())) as asked:
        return cast("Answer", json.loads(hear(asked)))


def hear(speaker: Child) -> bytes:
    """Return the child's next message.

    Raises:
        LostChildError: there is none, or not within `DEADLINE_S`.
    """
    try:
        message = speaker.line.recv(MESSAGE_BYTES)
    except TimeoutError:
        reason = f"the child said nothing within {DEADLINE_S:g} s"
        raise LostChildError(reason) from None
    if not message:
        reason = f"the child {ended(speaker.pid)} without an answer"
        raise LostChildError(reason)
    return message


def ended(pid: int) -> str:
    """Wait for a child to end, leave it to be reaped, and say how: "exited 0" or "died of SIGKILL"."""
    status = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    if status is None or status.si_code == os.CLD_EXITED:
        return f"exited {status.si_status if status else 0}"
    return f"died of {signal.Signals(status.si_status).name}"


def _die_with(parent: int) -> None:
    # Where the death signal is refused, the end of the line still ends a child that listens to it.
    with suppress(OSError):
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # The parent may have died before the signal was asked for.
    if os.getppid() not in {parent, _PARENT_OUTSIDE}:
        os._exit(0)
