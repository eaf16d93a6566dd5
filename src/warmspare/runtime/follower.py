"""Checksums behind a writer: a process that reads what CRIU writes while CRIU writes it, so that nobody reads it twice.

A program of its own, with the standard library alone. Its first argument is an open folder, the second what to do:

- `write`: follow the page files, which only grow, as they grow; after the line `ended` on its standard input read
  the rest and the small files, and tell; `sync` does the same, and brings all of it to disk before it tells.
- `read`: read the files that the lines on its standard input name, and tell.

It tells one line of JSON, `{"files": {name: {"size", "chunks"}}, "synced_s"}` or `{"error"}`. It ends when its standard
input ends before that: then nobody waits for it any more. A digest is the SHA-256 of 64 MiB, of the last ones of what
is left; several threads work them out, which OpenSSL does without Python's lock.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import select
import stat
import sys
import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

CHUNK: Final = 64 * 2**20
BLOCK: Final = 2**20
"""What is read at a time: small enough to be hashed out of the processor's cache."""
THREADS: Final = 8
LOOK_S: Final = 0.02
"""How often to look whether a page file has grown by a chunk: CRIU writes one in about as long."""
PAGES: Final = re.compile(r"pages-\d+\.img")
ENDED: Final = b"ended\n"


class Unsteady(Exception):
    """A file is not what it was, or cannot be read: what was worked out is worth nothing. One line says which."""


class Files:
    """The files of one folder, and the digests of their chunks as far as they are under way."""

    def __init__(self, folder: int, pool: ThreadPoolExecutor) -> None:
        """Read in the open folder `folder`."""
        self._folder, self._pool = folder, pool
        self._open: dict[str, int] = {}
        self._chunks: dict[str, list[Future[str]]] = {}
        self._covered: dict[str, int] = {}

    def advance(self, name: str) -> None:
        """Begin with the chunks that are whole by now.

        Raises:
            Unsteady: the file has become smaller.
        """
        size = self._size(name)
        while size - self._covered.get(name, 0) >= CHUNK:
            self._begin(name, CHUNK)

    def finish(self, name: str) -> dict[str, object]:
        """The size and all digests of a file that nobody writes to any more.

        Raises:
            Unsteady: it is written to still, or cannot be read.
        """
        self.advance(name)
        size = self._size(name)
        if rest := size - self._covered.get(name, 0):
            self._begin(name, rest)
        digests = [chunk.result() for chunk in self._chunks.get(name, [])]
        if self._size(name) != size:
            message = f"{name} was written to after its end"
            raise Unsteady(message)
        return {"size": size, "chunks": digests}

    def sync(self, names: Iterable[str]) -> None:
        """Bring them to disk, and the folder's own list of them."""
        for future in [self._pool.submit(os.fsync, self._descriptor(name)) for name in names]:
            future.result()
        os.fsync(self._folder)

    def check(self) -> None:
        """Raise what went wrong with a chunk so far."""
        for chunk in (chunk for chunks in self._chunks.values() for chunk in chunks if chunk.done()):
            chunk.result()

    def _begin(self, name: str, size: int) -> None:
        start = self._covered.get(name, 0)
        chunk = self._pool.submit(_digest, self._descriptor(name), name, start, size)
        self._chunks.setdefault(name, []).append(chunk)
        self._covered[name] = start + size

    def _size(self, name: str) -> int:
        size = os.fstat(self._descriptor(name)).st_size
        if size < self._covered.get(name, 0):
            message = f"{name} became smaller while it was read"
            raise Unsteady(message)
        return size

    def _descriptor(self, name: str) -> int:
        if name not in self._open:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(name, flags, dir_fd=self._folder)
            self._open[name] = descriptor
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                message = f"{name} is no regular file"
                raise Unsteady(message)
        return self._open[name]


def _digest(descriptor: int, name: str, start: int, size: int) -> str:
    """The SHA-256 of a part of a file, in hexadecimal."""
    digest, block, done = hashlib.sha256(), memoryview(bytearray(min(BLOCK, size))), 0
    while done < size:
        read = os.preadv(descriptor, [block[: min(BLOCK, size - done)]], start + done)
        if read == 0:
            message = f"{name} became smaller while it was read"
            raise Unsteady(message)
        digest.update(block[:read])
        done += read
    return digest.hexdigest()


def behind(folder: int, pool: ThreadPoolExecutor, told: int, *, synced: bool) -> dict[str, object]:
    """Follow the writer until `told` says that it has ended, then take the rest, and to disk if `synced`.

    Raises:
        Unsteady, OSError: what was written cannot be relied on.
        EOFError: nobody waits any more.
    """
    files = Files(folder, pool)
    poll = select.poll()
    poll.register(told, select.POLLIN)
    while not poll.poll(LOOK_S * 1000):
        for name in _names(folder):
            if PAGES.fullmatch(name):
                files.advance(name)
        files.check()
    if os.read(told, len(ENDED)) != ENDED:
        raise EOFError
    names = sorted(_names(folder))
    found = {name: files.finish(name) for name in names}
    begun = time.monotonic()
    if synced:
        files.sync(names)
    return {"files": found, "synced_s": time.monotonic() - begun}


def along(folder: int, pool: ThreadPoolExecutor, names: Iterable[str]) -> dict[str, object]:
    """Read these files, in this order.

    Raises:
        Unsteady, OSError: one cannot be read as it was found.
    """
    files, names = Files(folder, pool), list(names)
    for name in names:
        files.advance(name)
    return {"files": {name: files.finish(name) for name in names}, "synced_s": 0.0}


def _names(folder: int) -> list[str]:
    return os.listdir(folder)  # an open folder has no path


def main(folder: int, what: str) -> None:
    """Do it, and tell it on standard output."""
    pool = ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1))
    told: dict[str, Any]
    try:
        told = (
            along(folder, pool, sys.stdin.read().split())
            if what == "read"
            else behind(folder, pool, 0, synced=what == "sync")
        )
    except (Unsteady, OSError) as error:
        told = {"error": str(error)}
    except EOFError:
        pool.shutdown(wait=False, cancel_futures=True)
        return
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps(told), flush=True)  # noqa: T201 # it is what it is for


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
