"""An image in the making: in a folder with a hidden name, which gets its own in one step when it is whole."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
import shutil
import stat
from pathlib import Path
from typing import Final, Self

import msgspec

from warmspare.runtime.images import OPEN_FOLDER, path_of
from warmspare.runtime.manifest import NAME, Manifest, encode

PREFIX: Final = ".warmspare-"
NO_REPLACE: Final = 1
"""RENAME_NOREPLACE. Source: renameat2(2)."""
SPARE: Final = 64 * 2**20
"""What CRIU writes besides pages, with room."""


class CannotKeep(Exception):
    """No image can be made there; nothing is left of one. The message is one line with the reason."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a folder is that is being made, and which one it is: a later one of that name is not it."""

    parent: str
    hidden: str
    name: str
    device: int
    inode: int

    @property
    def path(self) -> Path:
        """Where it will be published."""
        return Path(self.parent, self.name)


class Hidden:
    """A folder to be published. A context manager: leaving it removes what was not published."""

    def __init__(self, target: Path) -> None:
        """Make it beside `target`, which must not be there.

        Raises:
            CannotKeep: it cannot be made, or others could swap it there.
        """
        name = target.name
        if not name or name in (".", ".."):
            message = f"{target} names no new folder"
            raise CannotKeep(message)
        parent = target.absolute().parent
        with contextlib.ExitStack() as stack:
            try:
                self._parent = os.open(parent, OPEN_FOLDER)
                stack.callback(os.close, self._parent)
                _check_parent(parent, os.fstat(self._parent))
                _check_absent(target, self._parent)
                hidden = f"{PREFIX}{secrets.token_hex(8)}"
                os.mkdir(hidden, 0o700, dir_fd=self._parent)
                stack.callback(os.rmdir, hidden, dir_fd=self._parent)
                self.folder = os.open(hidden, OPEN_FOLDER | os.O_NOFOLLOW, dir_fd=self._parent)
                stack.callback(os.close, self.folder)
                seen = os.fstat(self.folder)
                os.fchmod(self.folder, 0o700)  # whatever the umask and the parent's set-gid bit made of it
            except OSError as error:
                message = f"cannot make {target}: {error.strerror}"
                raise CannotKeep(message) from None
            stack.pop_all()
        self.place = Place(parent=str(parent), hidden=hidden, name=name, device=seen.st_dev, inode=seen.st_ino)
        self.is_published = self._stays = False

    def __enter__(self) -> Self:
        """Write into `folder`."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove it, unless it was published."""
        if not self.is_published and not self._stays:
            self.remove()
        os.close(self.folder)
        os.close(self._parent)

    @property
    def path(self) -> Path:
        """A path to the open folder itself, for programs that want one; it holds while we live."""
        return path_of(self.folder)

    def need(self, size: int, what: str) -> None:
        """Make sure of free space.

        Raises:
            CannotKeep: there is too little; the numbers are said.
        """
        seen = os.fstatvfs(self.folder)
        free = seen.f_bavail * seen.f_frsize
        if free < size + SPARE:
            message = (
                f"{self.place.parent} has {free >> 20} MiB free, and the image may take {(size + SPARE) >> 20} MiB"
                f" ({what}); name a folder on a larger disk"
            )
            raise CannotKeep(message)

    def publish(self, manifest: Manifest, *, synced: bool = False) -> None:
        """Write the manifest and give the folder its name; bring both to disk if they are to be `synced`.

        Raises:
            CannotKeep: that failed, or the name was taken meanwhile.
        """
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(NAME, flags, 0o600, dir_fd=self.folder), "wb") as file:
                file.write(encode(manifest))
                file.flush()
                if synced:
                    os.fsync(file.fileno())
            if synced:
                os.fsync(self.folder)
            _rename(self._parent, self.place.hidden, self.place.name)
            self.is_published = True
            if synced:
                os.fsync(self._parent)
        except OSError as error:
            message = f"cannot publish {self.place.path}: {error.strerror}"
            raise CannotKeep(message) from None
        if not is_at(self.place, self.place.name):
            message = f"{self.place.path} is not what was written: somebody else renames folders there"
            raise CannotKeep(message)

    def leave(self) -> None:
        """Do not remove it: somebody is at work in it."""
        self._stays = True

    def remove(self) -> None:
        """Remove what was made so far, if it is still that."""
        remove(self.place)


def is_at(place: Place, name: str) -> bool:
    """Whether the folder that was made stands under this name."""
    try:
        seen = Path(place.parent, name).lstat()
    except OSError:
        return False
    return (seen.st_dev, seen.st_ino) == (place.device, place.inode)


def remove(place: Place) -> bool:
    """Remove a folder that was not published, if it is still that; whether it is gone."""
    if is_at(place, place.hidden):
        parent = os.open(place.parent, OPEN_FOLDER)
        try:
            shutil.rmtree(place.hidden, ignore_errors=True, dir_fd=parent)
        finally:
            os.close(parent)
    return not is_at(place, place.hidden)


def _check_parent(path: Path, seen: os.stat_result) -> None:
    may_all = bool(seen.st_mode & (stat.S_IWGRP | stat.S_IWOTH)) and not seen.st_mode & stat.S_ISVTX
    if seen.st_uid not in (0, os.geteuid()) or may_all:
        message = f"others may rename what is in {path}: name a folder in one that only you can write"
        raise CannotKeep(message)


def _check_absent(target: Path, parent: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.stat(target.name, dir_fd=parent, follow_symlinks=False)
        message = f"{target} is there already; name a folder that is not"
        raise CannotKeep(message)


def _rename(parent: int, old: str, new: str) -> None:
    """Rename within a folder, and never over something.

    Raises:
        OSError: it failed, or the name is taken.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(parent, os.fsencode(old), parent, os.fsencode(new), NO_REPLACE):
        error = ctypes.get_errno()
        if error not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(error, os.strerror(error))
        # A file system that has no such call (NFS): an empty folder could be replaced, which harms nobody.
        os.rename(old, new, src_dir_fd=parent, dst_dir_fd=parent)
