"""Can a child be held by a descriptor instead of a number?

warmspare signals and waits for restored processes through pidfds, which cannot come to mean another process;
CRIU uses them for its pidfd store. Linux 5.3.

Source: pidfd_open(2); pidfd_send_signal(2); criu/cr-check.c (check_pidfd_store).
"""

import os
import select
import signal
import socket

from warmspare.host.experiments._children import DEADLINE_S, child, ended
from warmspare.host.experiments._syscalls import Answer, Call, WrongResultError, answer, syscall

_PIDFD_OPEN = Call("pidfd_open", x86_64=434, aarch64=434)
_PIDFD_SEND_SIGNAL = Call("pidfd_send_signal", x86_64=424, aarch64=424)


def run() -> Answer:
    """Open a child's pidfd, end the child through it, and see that at the pidfd and as its parent."""
    return answer(_end_through_a_pidfd)


def _end_through_a_pidfd() -> None:
    with child(_wait) as (pid, _line):
        pidfd = syscall(_PIDFD_OPEN, pid, 0)
        try:
            syscall(_PIDFD_SEND_SIGNAL, pidfd, signal.SIGKILL, 0, 0)
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            if not poll.poll(DEADLINE_S * 1000):
                message = "the pidfd did not tell of the child's end"
                raise WrongResultError(message)
        finally:
            os.close(pidfd)
        if ended(pid) != "died of SIGKILL":
            message = "the signal did not end the child"
            raise WrongResultError(message)


def _wait(line: socket.socket) -> None:
    line.recv(1)
