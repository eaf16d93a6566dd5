"""Seccomp filters: run a command where the kernel refuses one system call, as containers and old kernels do.

python tests/filters.py NUMBER ERRNO COMMAND…
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from typing import Final

PIDFD_OPEN: Final = 434
PTRACE: Final = {"x86_64": 101, "aarch64": 117}[os.uname().machine]
SET_NO_NEW_PRIVS: Final = 38
SET_SECCOMP: Final = 22
FILTER: Final = 2


def refusing(call: int, code: int) -> tuple[str, ...]:
    """A command in front of another, for which the system call `call` fails with the errno `code`."""
    return sys.executable, __file__, str(call), str(code)


def main() -> None:
    """Install the filter and become the command."""
    call, code = map(int, sys.argv[1:3])
    program = ctypes.create_string_buffer(
        struct.pack("=HBBI", 0x20, 0, 0, 0)
        + struct.pack("=HBBI", 0x15, 0, 1, call)
        + struct.pack("=HBBI", 0x06, 0, 0, 0x50000 | code)
        + struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)
    )
    length = ctypes.create_string_buffer(struct.pack("@HP", 4, ctypes.addressof(program)))
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid():
        libc.prctl(SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if libc.prctl(SET_SECCOMP, FILTER, ctypes.c_void_p(ctypes.addressof(length)), 0, 0):
        raise OSError(ctypes.get_errno(), "no filter could be installed")
    os.execvp(sys.argv[3], sys.argv[3:])  # noqa: S606 # no shell is wanted


if __name__ == "__main__":
    main()
