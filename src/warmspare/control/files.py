"""Files that are whole or not there: checked before the work, replaced in one step after it."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self


class Unwritable(Exception):
    """A path that nothing can be written to; the message is one line with the reason."""


class Replacement:
    """A file to be: opened beside its target before the work starts, moved over it when it is whole.

    Only a missing or a regular target is taken: replacing a device or what a link points to, as root,
    would be harm.
    """

    def __init__(self, target: Path, mode: int | None = None) -> None:
        """Open the temporary file next to `target`; without `mode` it gets the old file's, or a new file's own.

        Raises:
            Unwritable: the folder is missing or cannot be written, or the target is no regular file of ours.
        """
        self.target = target
        try:
            old = _mode_of(target)
            self._descriptor, name = tempfile.mkstemp(prefix=f".{target.name[:40]}.", dir=target.parent)
        except OSError as error:
            message = f"cannot write {target}: {error.strerror}"
            raise Unwritable(message) from None
        self._temporary: Path | None = Path(name)
        os.fchmod(self._descriptor, next(m for m in (mode, old, 0o666 & ~_umask()) if m is not None))

    def commit(self, data: bytes) -> None:
        """Write everything and put it in place.

        Raises:
            Unwritable: the disk is full, say; the old file is still as it was.
        """
        if self._temporary is None:
            message = f"{self.target} was written already"
            raise Unwritable(message)
        try:
            with os.fdopen(os.dup(self._descriptor), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(self._descriptor)
            self._temporary.replace(self.target)
        except OSError as error:
            message = f"cannot write {self.target}: {error.strerror}"
            raise Unwritable(message) from None
        self._temporary = None

    def __enter__(self) -> Self:
        """Use it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave nothing behind that was not committed."""
        os.close(self._descriptor)
        if self._temporary is not None:
            self._temporary.unlink(missing_ok=True)
            self._temporary = None


def _mode_of(target: Path) -> int | None:
    """The permissions of a file that may be replaced; None if there is none yet.

    Raises:
        Unwritable: it is a device, a folder, a pipe or a link.
        OSError: it cannot be written.
    """
    try:
        mode = os.lstat(target).st_mode
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(mode):
        message = f"{target} is there and is not a regular file"
        raise Unwritable(message)
    # Only to ask: a read-only or immutable file, or another's in /tmp, is refused now and not after the work.
    os.close(os.open(target, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC))
    return stat.S_IMODE(mode)


def _umask() -> int:
    """The file mode mask, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
