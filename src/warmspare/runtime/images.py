"""Images on disk, opened so that no name in them leads elsewhere.

A folder is used through its descriptor, so that whoever swaps a name on the way gets nothing; it is its owner's only,
since it holds the memory of processes. The manifest is written last: a folder without one is no image.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final, Self

from warmspare.runtime.manifest import NAME, SIZE_LIMIT, NoImage, decode

OTHERS: Final = 0o077
OPEN_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
OPEN_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Image:
    """A published image, open. A context manager."""

    def __init__(self, path: Path) -> None:
        """Open it and read its manifest; every file's name, kind, owner and size is checked, and no content.

        Raises:
            NoImage: it is none, or not whole, or not ours alone.
        """
        self.path = path.absolute()
        try:
            self.folder = os.open(path, OPEN_FOLDER | os.O_NOFOLLOW)
        except OSError as error:
            said = "it is a link, or no folder" if error.errno in (errno.ELOOP, errno.ENOTDIR) else error.strerror
            message = f"{path} is no image: {said}"
            raise NoImage(message) from None
        try:
            _check_ours(os.fstat(self.folder))
            self.manifest = decode(_read(self.folder, NAME, SIZE_LIMIT))
            self._check_files()
        except NoImage as reason:
            os.close(self.folder)
            message = f"{path} is no image that can be trusted: {reason}"
            raise NoImage(message) from None
        except FileNotFoundError:
            os.close(self.folder)
            message = f"{path} is no image: it has no {NAME}"
            raise NoImage(message) from None
        except OSError as error:
            os.close(self.folder)
            message = f"{path} cannot be read: {error.strerror}"
            raise NoImage(message) from None

    def __enter__(self) -> Self:
        """Use `folder` and `manifest`."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        os.close(self.folder)

    def threads(self) -> tuple[int, ...]:
        """Every pid and thread id that a restore wants, by the names of CRIU's own files."""
        parts = (name.removesuffix(".img").split("-") for name in self.manifest.files)
        named = {int(part[1]) for part in parts if part[0] == "core" and part[1:] and part[1].isdigit()}
        return tuple(sorted(named | {one.pid for one in self.manifest.processes}))

    def _check_files(self) -> None:
        there = set(os.listdir(self.folder)) - {NAME}  # noqa: PTH208 # an open folder has no path
        named = self.manifest.files
        if missing := sorted(set(named) - there):
            message = f"{missing[0]} is missing"
            raise NoImage(message)
        if strange := sorted(there - set(named)):
            message = f"{strange[0]!a} is not in its manifest"
            raise NoImage(message)
        for name, file in named.items():
            descriptor = _opened(self.folder, name)
            try:
                size = os.fstat(descriptor).st_size
            finally:
                os.close(descriptor)
            if size != file.size:
                message = f"{name} has {size} bytes, and its manifest says {file.size}"
                raise NoImage(message)


def path_of(folder: int) -> Path:
    """A path to an open folder of ours, which other programs of ours can use while we live. Source: proc_pid_fd(5)."""
    return Path(f"/proc/{os.getpid()}/fd/{folder}")


def _check_ours(seen: os.stat_result) -> None:
    if seen.st_uid != os.geteuid():
        message = f"it belongs to user {seen.st_uid}, and we are {os.geteuid()}"
        raise NoImage(message)
    if seen.st_mode & OTHERS:
        message = f"others may read or write it (mode {stat.S_IMODE(seen.st_mode):04o}); an image is 0700"
        raise NoImage(message)


def _opened(folder: int, name: str) -> int:
    """A file of the folder itself: no link to elsewhere, no second name elsewhere, no device, ours.

    Raises:
        NoImage: it is something else.
    """
    try:
        descriptor = os.open(name, OPEN_FILE, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ELOOP:
            message = f"{name} is a link"
            raise NoImage(message) from None
        raise
    seen = os.fstat(descriptor)
    if not stat.S_ISREG(seen.st_mode) or seen.st_nlink != 1 or seen.st_uid != os.geteuid():
        os.close(descriptor)
        message = f"{name} is no plain file of ours with that one name"
        raise NoImage(message)
    return descriptor


def _read(folder: int, name: str, limit: int) -> bytes:
    with os.fdopen(_opened(folder, name), "rb") as file:
        return file.read(limit + 1)
