"""Can a process's pages be scanned in one call?

CRIU reads a process's page map with PAGEMAP_SCAN (Linux 6.7); without it, it reads 8 bytes a page. Its
absence (ENOTTY, or EINVAL) costs speed, never the dump.

Source: linux Documentation/admin-guide/mm/pagemap.rst; criu/cr-check.c (check_pagemap_scan).
"""

import ctypes
import fcntl
import mmap
import struct
from pathlib import Path

from warmspare.host.experiments._syscalls import Answer, WrongResultError, address_of, answer, step

_PAGEMAP_SCAN = 0xC0606610
_PRESENT_OR_SWAPPED = 1 << 3 | 1 << 4
_PAGES = 4
_TOUCHED = 2
_REGION = struct.Struct("=QQQ")  # start, end, categories


def run() -> Answer:
    """Touch two pages of four and find exactly these in a scan."""
    return answer(_find_touched_pages)


def _find_touched_pages() -> None:
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    with mmap.mmap(-1, _PAGES * mmap.PAGESIZE, flags=private) as memory:
        # A huge page would make the untouched pages present too.
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        for page in range(_TOUCHED):
            memory[page * mmap.PAGESIZE] = 1
        start = address_of(memory)
        if _scan(start, start + len(memory)) != [(start, start + _TOUCHED * mmap.PAGESIZE)]:
            message = "the scan found other pages than those touched"
            raise WrongResultError(message)


def _scan(start: int, end: int) -> list[tuple[int, int]]:
    regions = ctypes.create_string_buffer(_PAGES * _REGION.size)
    # struct pm_scan_arg: size, flags, start, end, walk_end, vec, vec_len, max_pages, then the category masks:
    # inverted, mask, any of, and those to return.
    request = struct.pack(
        "=12Q", 96, 0, start, end, 0, ctypes.addressof(regions), _PAGES, 0,
        0, 0, _PRESENT_OR_SWAPPED, _PRESENT_OR_SWAPPED,
    )  # fmt: skip
    with Path("/proc/self/pagemap").open("rb", buffering=0) as pagemap, step("PAGEMAP_SCAN"):
        found = fcntl.ioctl(pagemap, _PAGEMAP_SCAN, bytearray(request))
    return [_REGION.unpack_from(regions, index * _REGION.size)[:2] for index in range(found)]
