"""How fast a file system writes, reads and creates: files of our own in a folder of our own."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import random
import re
import statistics
import time
from pathlib import Path
from typing import Final

CHUNK: Final = 4 * 2**20
PAGE: Final = 4096
SHIFT: Final = 61
"""By how many bytes each chunk's data begin later than the last one's: no two blocks of a file are then the same."""
LEAST: Final = 2 * CHUNK
"""The smallest file that says anything of a sequential speed, in bytes."""
SAMPLES: Final = 16
PATIENCE: Final = 8
"""How many slots something may take before it is not repeated."""
IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})
MAYBE_MEMORY: Final = IN_MEMORY | {"overlay", "rootfs", "unknown"}
"""Types that lie in memory, or may: what an overlay's upper layer lies on is not shown in a container."""
OWN_CACHE: Final = frozenset({"zfs"})
"""Types whose own cache keeps what the kernel drops. Source: OpenZFS, "Performance and Tuning" (ARC)."""
MOUNT: Final = re.compile(r"^\d+ \d+ \S+ \S+ (?P<point>\S+) .*? - (?P<type>\S+) ", re.MULTILINE)


def kind_of(folder: Path, mounts: str) -> tuple[str, str]:
    """Mount point and type of the file system that holds `folder`, by the text of /proc/self/mountinfo.

    The longest mount point wins, and of two alike the later one, which lies over it. Source: proc_pid_mountinfo(5).
    """
    real, found = Path(os.path.realpath(folder)), ("", "unknown")
    for match in MOUNT.finditer(mounts):
        point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), match["point"])
        if real.is_relative_to(point) and len(point) >= len(found[0]):
            found = (point, match["type"])
    return found


def free_bytes(folder: Path) -> int:
    """What we may still write there."""
    seen = os.statvfs(folder)
    return seen.f_bavail * seen.f_frsize


class Files:
    """Measures in one folder, with files of at most `budget_bytes` together, each figure in about `slot_s`."""

    def __init__(self, folder: Path, budget_bytes: int, slot_s: float) -> None:
        """Nothing is written yet; random data, which no file system can leave out, make small, or keep once."""
        self._data, self._folder, self._slot_s = folder / "data", folder, slot_s
        self._most = budget_bytes // CHUNK * CHUNK
        self._random = memoryview(os.urandom(2 * CHUNK))
        self._size = self._written = 0

    @property
    def size_bytes(self) -> int:
        """What this file system writes in about one slot, within the budget; known once it has written."""
        return self._size

    def writing(self, repeats: int) -> float:
        """Sequential write of a new file with its fsync, GB/s, the best of `repeats`; on a slow disk of one."""
        took = self._write(LEAST)
        if took > PATIENCE * self._slot_s:
            self._size = LEAST
            return LEAST / took / 1e9
        self._size = min(self._most, max(LEAST, int(LEAST * self._slot_s / took) // CHUNK * CHUNK))
        return max(self._size / self._write(self._size) for _ in range(repeats)) / 1e9

    def _write(self, size: int) -> float:
        self._data.unlink(missing_ok=True)
        descriptor = os.open(self._data, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            began = time.perf_counter()
            for _ in range(size // CHUNK):
                begin = self._written * SHIFT % CHUNK
                self._written += 1
                if os.write(descriptor, self._random[begin : begin + CHUNK]) != CHUNK:
                    message = "a write came to its end early"
                    raise OSError(message)
            os.fsync(descriptor)
            return time.perf_counter() - began
        finally:
            os.close(descriptor)

    def reading(self, repeats: int) -> float | None:
        """Sequential read of that file, GB/s, the best of `repeats`; None where its pages cannot be dropped before."""
        buffer, best, first = bytearray(CHUNK), 0.0, time.monotonic()
        descriptor = os.open(self._data, os.O_RDONLY | os.O_CLOEXEC)
        try:
            for _ in range(repeats):
                if not self._is_dropped(descriptor):
                    return None
                if time.monotonic() - first > PATIENCE * self._slot_s:
                    break
                began = time.perf_counter()
                for place in range(0, self._size, CHUNK):
                    os.preadv(descriptor, [buffer], place)
                best = max(best, self._size / (time.perf_counter() - began))
        finally:
            os.close(descriptor)
        return best / 1e9

    def reading_at_random(self) -> float | None:
        """Reads of 4 KiB a second, one at a time, no page twice; None as for `reading`."""
        places = random.Random(0).sample(range(0, self._size, PAGE), self._size // PAGE)  # noqa: S311 # no secret
        descriptor = os.open(self._data, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if not self._is_dropped(descriptor):
                return None
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
            began = time.perf_counter()
            done, took = 0, 0.0
            while done < len(places) and took < self._slot_s:
                os.pread(descriptor, PAGE, places[done])
                done, took = done + 1, time.perf_counter() - began
            return done / took
        finally:
            os.close(descriptor)

    def creating(self) -> float:
        """Milliseconds to create a file of 4 KiB and have it on the disk (fsync), the median."""
        took: list[float] = []
        deadline = time.monotonic() + self._slot_s
        while not took or time.monotonic() < deadline:
            path = self._folder / f"small-{len(took)}"
            began = time.perf_counter()
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.write(descriptor, self._random[:PAGE])
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            took.append(time.perf_counter() - began)
            path.unlink()
        return statistics.median(took) * 1e3

    def _is_dropped(self, descriptor: int) -> bool:
        """Drop the file's pages, and look whether they are gone: some kernels and sandboxes ignore the advice."""
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        step = max(PAGE, self._size // SAMPLES // PAGE * PAGE)
        places = range(0, self._size, step)
        return 2 * sum(_is_cached(descriptor, place) for place in places) < len(places)


def _is_cached(descriptor: int, place: int) -> bool:
    """Whether a read there need not wait. Source: preadv2(2), RWF_NOWAIT, which not every file system knows."""
    try:
        return os.preadv(descriptor, [bytearray(1)], place, os.RWF_NOWAIT) > 0
    except OSError as error:
        return error.errno != errno.EAGAIN and _is_in_core(descriptor, place)


def _is_in_core(descriptor: int, place: int) -> bool:
    """Whether the page there is in memory, by mincore(2) of a mapping; yes where that does not say.

    A file that cannot be mapped has no pages in memory. Source: mmap(2), ENODEV.
    """
    begin, said = place // mmap.PAGESIZE * mmap.PAGESIZE, ctypes.c_ubyte(1)
    try:
        mapped = mmap.mmap(descriptor, mmap.PAGESIZE, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE, offset=begin)
    except OSError as error:
        return error.errno != errno.ENODEV
    with mapped:
        page = ctypes.c_char.from_buffer(mapped)
        at = ctypes.c_void_p(ctypes.addressof(page))
        failed = ctypes.CDLL(None).mincore(at, ctypes.c_size_t(mmap.PAGESIZE), ctypes.byref(said))
        del page  # a mapping that is pointed into cannot be closed
    return bool(failed) or bool(said.value & 1)
