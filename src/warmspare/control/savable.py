"""A command that can be saved: it becomes this process, with io_uring denied to it and to all that it starts.

The kernel hands the rings of an io_uring to nobody, so CRIU cannot dump a process that has one; libuv, and with it
uvloop and vLLM's API server, opens one unless the kernel says that it has none. A filter says so for one tree of
processes where the sysctl says so for the whole machine. CRIU dumps such a filter and restores it.

Source: seccomp(2), PR_SET_SECCOMP(2const); linux/audit.h; arch/x86/entry/syscalls/syscall_{32,64}.tbl and
include/uapi/asm-generic/unistd.h (the three calls have the same numbers in all of them).
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import struct
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, NoReturn

DENIED: Final = range(425, 428)
"""io_uring_setup, io_uring_enter and io_uring_register."""
ARCHITECTURES: Final[Mapping[str, tuple[int, int]]] = MappingProxyType(
    {
        "x86_64": (0xC000003E, 0x40000003),
        "aarch64": (0xC00000B7, 0x40000028),
    }
)
"""By machine: the audit architecture of its own calls, and of those of 32-bit programs on it."""
X32: Final = 0x40000000
"""Set in the number of a call of the x32 kind, which is of the same architecture. Source: asm/unistd.h."""

SET_SECCOMP: Final = 22
SET_NO_NEW_PRIVS: Final = 38
FILTER: Final = 2
INSTRUCTION: Final = struct.Struct("=HBBI")
LOAD, AND, EQUAL, GREATER, AT_LEAST, RETURN = 0x20, 0x54, 0x15, 0x25, 0x35, 0x06
"""Instructions of classic BPF. Source: linux/bpf_common.h."""
NUMBER, ARCHITECTURE = 0, 4
"""Where they stand in seccomp_data."""
ALLOW: Final = 0x7FFF0000
REFUSE: Final = 0x00050000
IGNORED_BY_PYTHON: Final = (signal.SIGPIPE, signal.SIGXFSZ)
"""An ignored signal stays ignored over an exec, and most programs count on being ended by these."""


class NotDenied(Exception):
    """The kernel did not take the filter, so the command was not started; the text says why."""


def become(command: Sequence[str]) -> NoReturn:
    """Run the command in place of this process, found by PATH, with everything inherited and io_uring denied.

    Raises:
        NotDenied: the filter could not be installed; nothing was started.
        OSError: there is no such command, or it cannot be run.
    """
    deny()
    for number in IGNORED_BY_PYTHON:
        signal.signal(number, signal.SIG_DFL)
    os.execvp(command[0], list(command))  # noqa: S606 # no shell is wanted


def deny() -> None:
    """Have the kernel answer ENOSYS to the three calls, for this thread and all that it starts, for good.

    Set-uid programs give no privileges from here on: without that an ordinary user may install no filter.

    Raises:
        NotDenied: this machine's calls are not known, the kernel refused, or the calls still pass.
    """
    machine = os.uname().machine
    if machine not in ARCHITECTURES:
        message = f"the numbers of system calls on {machine} are not known here"
        raise NotDenied(message)
    code = ctypes.create_string_buffer(program(machine))
    count = (len(code) - 1) // INSTRUCTION.size
    head = ctypes.create_string_buffer(struct.pack("@HP", count, ctypes.addressof(code)))
    _prctl("PR_SET_NO_NEW_PRIVS", SET_NO_NEW_PRIVS, 1)
    _prctl("PR_SET_SECCOMP", SET_SECCOMP, FILTER, ctypes.addressof(head))
    if passing := [number for number in DENIED if not is_denied(number)]:
        message = f"the kernel took the filter, and system calls {', '.join(map(str, passing))} still pass"
        raise NotDenied(message)


def program(machine: str) -> bytes:
    """The filter for a machine, in classic BPF: ENOSYS for the three calls, everything else passes."""
    own, narrow = ARCHITECTURES[machine]
    lines = (
        (LOAD, 0, 0, ARCHITECTURE),
        (EQUAL, 1, 0, own),
        (EQUAL, 0, 5, narrow),
        (LOAD, 0, 0, NUMBER),
        (AND, 0, 0, ~X32 & 0xFFFFFFFF),
        (AT_LEAST, 0, 2, DENIED.start),
        (GREATER, 1, 0, DENIED[-1]),
        (RETURN, 0, 0, REFUSE | errno.ENOSYS),
        (RETURN, 0, 0, ALLOW),
    )
    return b"".join(INSTRUCTION.pack(*line) for line in lines)


def is_denied(number: int) -> bool:
    """Whether the kernel says that it has no such call; asked with arguments that no call takes."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    nothing = (ctypes.c_long(-1), ctypes.c_long(0), ctypes.c_long(0), ctypes.c_long(0), ctypes.c_long(0))
    return libc.syscall(ctypes.c_long(number), *nothing) == -1 and ctypes.get_errno() == errno.ENOSYS


def _prctl(name: str, option: int, *values: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    padded = (*values, 0, 0, 0, 0)[:4]
    if libc.prctl(option, *(ctypes.c_ulong(value) for value in padded)):
        code = ctypes.get_errno()
        message = f"the kernel refuses a filter: {name}: {errno.errorcode.get(code, code)} {os.strerror(code)}"
        raise NotDenied(message)
