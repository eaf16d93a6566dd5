"""Can the file behind a memory mapping be opened through /proc/PID/map_files?

CRIU dumps shared mappings, and files that were deleted while mapped, through these links. Reading a link
needs no privilege; following it needs CAP_CHECKPOINT_RESTORE (Linux 5.9) or CAP_SYS_ADMIN, so EPERM is the
answer of an ordinary user. ENOENT: before Linux 4.3, CONFIG_CHECKPOINT_RESTORE is off.

Source: proc_pid_map_files(5); criu/cr-check.c (check_map_files).
"""

import mmap
import os
from pathlib import Path

from warmspare.host.experiments._syscalls import Answer, WrongResultError, address_of, answer, step

_WORDS = b"warmspare"


def run() -> Answer:
    """Map shared memory of our own, read its map_files link, open it and find the same bytes in it."""
    return answer(_open_a_mapping)


def _open_a_mapping() -> None:
    with mmap.mmap(-1, mmap.PAGESIZE) as shared:
        shared[: len(_WORDS)] = _WORDS
        start = address_of(shared)
        # Never merged with a neighbour: each shared mapping has a file of its own.
        link = Path(f"/proc/self/map_files/{start:x}-{start + len(shared):x}")
        with step("reading the map_files link"):
            link.readlink()
        with step("opening the map_files link"):
            file = os.open(link, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if os.read(file, len(_WORDS)) != _WORDS:
                message = "the link leads to other bytes"
                raise WrongResultError(message)
        finally:
            os.close(file)
