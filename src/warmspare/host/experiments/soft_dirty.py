"""Does the kernel track which pages were written?

CRIU's incremental dumps and pre-dumps need it (CONFIG_MEM_SOFT_DIRTY); a plain dump does not. A kernel
without it takes the request to start tracking and marks nothing, so only a page can tell.

Source: linux Documentation/admin-guide/mm/soft-dirty.rst; criu/cr-check.c (check_mem_dirty_track).
"""

import mmap
import os
from pathlib import Path

from warmspare.host.experiments._syscalls import Answer, WrongResultError, address_of, answer

_CLEAR_SOFT_DIRTY = "4"
_SOFT_DIRTY_BIT = 55
_ENTRY_BYTES = 8


def run() -> Answer:
    """Clear the marks of this process, write to one page, and see that page become marked."""
    return answer(_mark_a_page)


def _mark_a_page() -> None:
    with mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as page:
        page[0] = 1
        Path("/proc/self/clear_refs").write_text(_CLEAR_SOFT_DIRTY, encoding="utf-8")
        if _is_marked(page):
            message = "the mark was not cleared"
            raise WrongResultError(message)
        page[0] = 2
        if not _is_marked(page):
            message = "a written page was not marked"
            raise WrongResultError(message)


def _is_marked(page: mmap.mmap) -> bool:
    pagemap = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        entry = os.pread(pagemap, _ENTRY_BYTES, address_of(page) // mmap.PAGESIZE * _ENTRY_BYTES)
    finally:
        os.close(pagemap)
    return bool(int.from_bytes(entry, "little") >> _SOFT_DIRTY_BIT & 1)
