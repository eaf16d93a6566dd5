"""Can an anonymous file be made in memory?

CRIU shares memory with the process it dumps, and restores shared memory, through memfds. Missing where
neither CONFIG_TMPFS nor CONFIG_HUGETLBFS is built in.

Source: memfd_create(2); criu/kerndat.c (kerndat_has_memfd_create).
"""

import ctypes
import os

from warmspare.host.experiments._syscalls import MEMFD_CREATE, Answer, WrongResultError, answer, syscall

_MFD_CLOEXEC = 1
_WORDS = b"warmspare"


def run() -> Answer:
    """Create a memfd, write to it, read the same bytes back, close it."""
    return answer(_write_and_read_back)


def _write_and_read_back() -> None:
    name = ctypes.create_string_buffer(b"warmspare")
    memory = syscall(MEMFD_CREATE, ctypes.addressof(name), _MFD_CLOEXEC)
    try:
        os.write(memory, _WORDS)
        if os.pread(memory, len(_WORDS), 0) != _WORDS:
            message = "other bytes came back"
            raise WrongResultError(message)
    finally:
        os.close(memory)
