"""Can a tracer suspend the seccomp filters of the process it traces?

CRIU must, or the calls it runs inside a filtered process are refused. The kernel wants CAP_SYS_ADMIN and a
*tracer* that is itself behind no filter: where PID 1 runs behind one that everybody inherits, as on WSL2 with
mirrored networking, that is EPERM for all, root included. EINVAL: CONFIG_CHECKPOINT_RESTORE or CONFIG_SECCOMP
is off. `criu check` without ``--feature seccomp_suspend`` does not look.

Source: ptrace(2), PTRACE_O_SUSPEND_SECCOMP; linux/kernel/ptrace.c (check_ptrace_options); criu/cr-check.c.
"""

import ctypes
import errno
import os
import socket
import struct
from contextlib import suppress

from warmspare.host.experiments._children import Child, child, hear
from warmspare.host.experiments._syscalls import (
    Answer,
    Call,
    WrongResultError,
    answer,
    number,
    prctl,
    ptrace,
    syscall,
)

_PR_GET_SECCOMP = 21
_PR_SET_SECCOMP = 22
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_MODE_FILTER = 2
_PTRACE_SEIZE = 0x4206
_PTRACE_O_SUSPEND_SECCOMP = 0x200000

_LOAD_NUMBER, _SKIP_UNLESS, _RETURN = 0x20, 0x15, 0x06  # BPF: ld [0]; jeq #k,0,1; ret #k
_ERRNO, _ALLOW = 0x00050000, 0x7FFF0000
_BPF = struct.Struct("=HBBI")
_YES, _NO = b"y", b"n"

# The filter refuses this one harmless call with an errno that it never has by itself.
_REFUSED = Call("getpriority", x86_64=140, aarch64=141)
_REFUSAL = errno.EXDEV


def run() -> Answer:
    """Put a child behind a filter, seize it with its filters suspended, and see the filtered call pass.

    Returns:
        An ability, with `filter_installed` (the child could be put behind a filter), `own_filter` (this
        process is behind one itself: the EPERM that root cannot lift) and `plain_seize` (without the
        suspension, the child can be traced; if not, ptrace itself is refused).
    """
    with child(_behind_a_filter) as tracee:
        filtered = hear(tracee) == _YES
        suspended = answer(lambda: _seize(tracee.pid, _PTRACE_O_SUSPEND_SECCOMP))
        plain_seize = bool(suspended["works"] or answer(lambda: _seize(tracee.pid, 0))["works"])
        if suspended["works"] and filtered:
            suspended = answer(lambda: _see_the_call_pass(tracee))
    return {
        **suspended,
        "filter_installed": filtered,
        "own_filter": _own_filter(),
        "plain_seize": plain_seize,
    }


def _behind_a_filter(line: socket.socket) -> None:
    _install_filter()
    line.send(_YES if _is_refused() else _NO)
    # Waits to be traced; hears nothing, and ends, if the tracer is gone.
    if line.recv(1):
        line.send(_YES if _is_refused() else _NO)


def _install_filter() -> None:
    program = ctypes.create_string_buffer(
        _BPF.pack(_LOAD_NUMBER, 0, 0, 0)
        + _BPF.pack(_SKIP_UNLESS, 0, 1, number(_REFUSED))
        + _BPF.pack(_RETURN, 0, 0, _ERRNO | _REFUSAL)
        + _BPF.pack(_RETURN, 0, 0, _ALLOW)
    )
    length = ctypes.create_string_buffer(struct.pack("@HP", 4, ctypes.addressof(program)))
    # What cannot be installed is seen by the call that passes.
    with suppress(OSError):
        prctl(_PR_SET_NO_NEW_PRIVS, 1)
        prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(length))


def _is_refused() -> bool:
    try:
        syscall(_REFUSED, os.PRIO_PROCESS, 0)
    except OSError as refusal:
        return refusal.errno == _REFUSAL
    return False


def _seize(pid: int, options: int) -> None:
    ptrace(_PTRACE_SEIZE, pid, 0, options)


def _see_the_call_pass(tracee: Child) -> None:
    tracee.line.send(_YES)
    if hear(tracee) == _YES:
        message = "the filter still refuses"
        raise WrongResultError(message)


def _own_filter() -> bool:
    try:
        return prctl(_PR_GET_SECCOMP) != 0
    except OSError as refusal:
        # EINVAL is a kernel without seccomp; it takes a filter to refuse the question in any other way.
        return refusal.errno != errno.EINVAL
