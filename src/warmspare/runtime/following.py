"""The follower as its caller sees it: begun before CRIU, asked for the checksums after it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterable
from typing import Literal, Self

import msgspec

from warmspare.control import process
from warmspare.runtime import follower
from warmspare.runtime.manifest import File, NoImage


class Unfollowed(Exception):
    """There are no checksums: the follower died, or what it read cannot be relied on. One line says why."""


class Sums(msgspec.Struct, frozen=True, kw_only=True):
    """The files with their checksums, and the seconds it took to bring them to disk."""

    files: dict[str, File]
    synced_s: float


class _Told(msgspec.Struct, frozen=True, kw_only=True):
    files: dict[str, File] | None = None
    synced_s: float = 0.0
    error: str | None = None


class Follower:
    """One follower, at work on an open folder. A context manager: leaving it ends the follower."""

    def __init__(self, folder: int, what: Literal["write", "sync", "read"]) -> None:
        """Start it; it ends with us, since its standard input does."""
        with process.undisturbed():
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", follower.__file__, str(folder), what],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=(folder,),
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        """It is at work."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def read(self, names: Iterable[str]) -> None:
        """Have a reader begin with these files."""
        stdin = self._process.stdin
        if stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # what it died of is told by `sums`
                stdin.write("\n".join(names).encode())
                stdin.close()
            self._process.stdin = None

    def sums(self) -> Sums:
        """All checksums: nobody writes to the files any more.

        Raises:
            Unfollowed: there are none.
        """
        said, _ = self._process.communicate(follower.ENDED if self._process.stdin else None)
        try:
            told = msgspec.json.decode(said, type=_Told)
        except msgspec.DecodeError:
            message = f"the process that works out the checksums died (status {self._process.returncode})"
            raise Unfollowed(message) from None
        if told.error is not None or told.files is None:
            message = f"the checksums cannot be relied on: {told.error}"
            raise Unfollowed(message)
        return Sums(files=told.files, synced_s=told.synced_s)


def compare(said: dict[str, File], found: dict[str, File]) -> None:
    """Whether what was read is what the manifest says.

    Raises:
        NoImage: the first file that is not, and where.
    """
    for name, file in found.items():
        wanted = said[name]
        if file.size != wanted.size:
            message = f"{name} has {file.size} bytes, and its manifest says {wanted.size}"
            raise NoImage(message)
        for number, (here, there) in enumerate(zip(file.chunks, wanted.chunks, strict=True)):
            if here != there:
                message = f"{name} is damaged: its 64 MiB from byte {number * follower.CHUNK} on are not what was saved"
                raise NoImage(message)
