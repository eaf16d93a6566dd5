"""Do children die with their parent, and do orphans come to the subreaper?

warmspare's promise that nothing stays behind rests on both, also when it is killed with SIGKILL.

Source: PR_SET_PDEATHSIG(2const); PR_SET_CHILD_SUBREAPER(2const).
"""

import os
import signal
import socket

from warmspare.host.experiments._children import DEADLINE_S, MESSAGE_BYTES, child, ended, hear, in_child
from warmspare.host.experiments._syscalls import PR_SET_PDEATHSIG, Answer, WrongResultError, answer, prctl

_PR_SET_CHILD_SUBREAPER = 36


def run() -> Answer:
    """Let a grandchild ask to die with its parent, end the parent, reap the grandchild as its subreaper."""
    return in_child(lambda: answer(_reap_an_orphan))


def _reap_an_orphan() -> None:
    prctl(_PR_SET_CHILD_SUBREAPER, 1)
    with child(_have_a_child) as parent:
        orphan = int(hear(parent))
        parent.line.send(b"leave")
        ended(parent.pid)
        try:
            _, status = os.waitpid(orphan, 0)
        except ChildProcessError:
            message = "the orphan did not come to its subreaper"
            raise WrongResultError(message) from None
    if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
        message = "the orphan outlived its parent"
        raise WrongResultError(message)


def _have_a_child(line: socket.socket) -> None:
    if os.fork() == 0:
        try:
            # An orphan that nothing ends, ends itself.
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(int(DEADLINE_S) - 1)
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            line.send(str(os.getpid()).encode())
            signal.pause()
        finally:
            os._exit(1)
    line.recv(MESSAGE_BYTES)
