"""Can a child be created with a pid of our choosing?

CRIU restores each task under its old pid this way; without it, it races ns_last_pid against every other
fork. Wants CAP_CHECKPOINT_RESTORE (Linux 5.9) or CAP_SYS_ADMIN in the pid namespace's owner; ENOSYS before
Linux 5.3 and under container filters that hide clone3, EINVAL before 5.5.

Source: clone(2), set_tid; criu/cr-check.c (check_clone3_set_tid).
"""

import ctypes
import os
import signal
import struct

from warmspare.host.experiments._children import child
from warmspare.host.experiments._syscalls import Answer, Call, WrongResultError, answer, syscall

# Nothing of libc's is told of the new process; it may only leave.
_CLONE3 = Call("clone3", x86_64=435, aarch64=435)
_TRIES = 5


def run() -> Answer:
    """Choose a pid that has just become free, create a child with it, and compare."""
    return answer(_choose_a_pid)


def _choose_a_pid() -> None:
    for left in reversed(range(_TRIES)):
        try:
            wanted = _free_pid()
            pid = _clone_as(wanted)
        except FileExistsError:  # somebody else was given it meanwhile
            if not left:
                raise
            continue
        if pid != wanted:
            message = "the child got another pid"
            raise WrongResultError(message)
        return


def _free_pid() -> int:
    with child(lambda _line: None) as (pid, _line):
        return pid


def _clone_as(wanted: int) -> int:
    chosen = ctypes.create_string_buffer(struct.pack("=i", wanted))
    # struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid and
    # how many.
    request = struct.pack("=10Q", 0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, ctypes.addressof(chosen), 1)
    buffer = ctypes.create_string_buffer(request, len(request))
    pid = syscall(_CLONE3, ctypes.addressof(buffer), len(request))
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return pid
