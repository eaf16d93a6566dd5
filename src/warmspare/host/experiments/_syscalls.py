"""The door to the kernel that the experiments share: raw system calls, and refusals turned into answers.

System calls go by number, because Python builds made for an old glibc lack `os.memfd_create` and its like on
kernels that have them.
"""

import ctypes
import errno
import mmap
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeAlias

Answer: TypeAlias = dict[str, object]

PR_SET_PDEATHSIG = 1


class Call(NamedTuple):
    """A system call: its name, and its number on each machine known here."""

    name: str
    x86_64: int
    aarch64: int


MEMFD_CREATE = Call("memfd_create", x86_64=319, aarch64=279)
PRCTL = Call("prctl", x86_64=157, aarch64=167)
PTRACE = Call("ptrace", x86_64=101, aarch64=117)


class UnknownMachine(Exception):
    """System calls are not numbered here for this machine: nothing was tried, so nothing is known."""


class WrongResultError(Exception):
    """The kernel took the calls, but what came of them is not what they promise."""


def syscall(call: Call, *arguments: int) -> int:
    """Make a system call and return its result; pass buffers as addresses.

    Raises:
        OSError: refused; carries the errno, and the call's name as its file name.
        UnknownMachine: the call's number here is not known.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    result = int(libc.syscall(*(ctypes.c_long(word) for word in (number(call), *arguments))))
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), call.name)
    return result


def prctl(option: int, *arguments: int) -> int:
    """Make a prctl call, its unused arguments zero; errors as `syscall`."""
    padding = (0,) * (4 - len(arguments))
    return syscall(PRCTL, option, *arguments, *padding)


def ptrace(request: int, pid: int, address: int = 0, data: int = 0) -> int:
    """Make a ptrace call, with the kernel's own results, not libc's; errors as `syscall`."""
    return syscall(PTRACE, request, pid, address, data)


@contextmanager
def step(name: str) -> Iterator[None]:
    """Name a refusal by this step, where a path would differ from run to run or be missing."""
    try:
        yield
    except OSError as refusal:
        raise OSError(refusal.errno, refusal.strerror, name) from refusal


def answer(attempt: Callable[[], str | None]) -> Answer:
    """Run an attempt and say whether it worked; the text it returns, if any, becomes the detail.

    Returns:
        ``{"works", "errno", "detail"}``; `errno` is a name such as "EPERM", or None if nothing was refused.
    """
    try:
        detail = attempt() or ""
    except WrongResultError as wrong:
        return {"works": False, "errno": None, "detail": str(wrong)}
    except OSError as refusal:
        where = f"{refusal.filename}: " if refusal.filename else ""
        detail = f"{where}{refusal.strerror or refusal}"
        return {"works": False, "errno": errno_name(refusal), "detail": detail}
    return {"works": True, "errno": None, "detail": detail}


def errno_name(refusal: OSError) -> str:
    """Return the errno's name; its number where it has none (the kernel leaks some, such as 524)."""
    # A socket's own timeout carries no errno.
    code = refusal.errno or (errno.ETIMEDOUT if isinstance(refusal, TimeoutError) else 0)
    return errno.errorcode.get(code, str(code))


def address_of(memory: ctypes.Array[ctypes.c_char] | bytearray | mmap.mmap) -> int:
    """Return where a writable buffer lies; the caller keeps it alive while the address is used."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def number(call: Call) -> int:
    """Return the call's number here; raise UnknownMachine where it is not known."""
    machine = os.uname().machine
    if sys.maxsize < 2**32:
        message = f"a 32-bit process on {machine}"
        raise UnknownMachine(message)
    if machine == "x86_64":
        return call.x86_64
    if machine == "aarch64":
        return call.aarch64
    raise UnknownMachine(machine)
