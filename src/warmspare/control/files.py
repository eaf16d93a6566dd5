"""Files that are whole or not there: checked before the work, replaced in one step after it."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

NO_TMPFILE: Final = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT})
"""How file systems and kernels without O_TMPFILE refuse it; a missing folder is told by what is tried next.

Source: open(2)."""


class Unwritable(Exception):
    """A path that nothing can be written to; the message is one line with the reason."""


class Replacement:
    """A file to be: proven writable before the work starts, made and moved over its target when it is whole.

    Until then it has no name, so that nothing is left of it whatever becomes of us. Only a missing or a
    regular target is taken: replacing a device or what a link points to, as root, would be harm.
    """

    def __init__(self, target: Path, mode: int | None = None, *, new_mode: int | None = None) -> None:
        """Try whether it can be written; without `mode` it gets the old file's, else `new_mode` or the usual one.

        Raises:
            Unwritable: the folder is missing or cannot be written, or the target is no regular file of ours.
        """
        self.target = target
        self._written = False
        try:
            old = _mode_of(target)
            _try_to_write(target)
        except OSError as error:
            message = f"cannot write {target}: {error.strerror}"
            raise Unwritable(message) from None
        self._mode = next(m for m in (mode, old, new_mode, 0o666 & ~_umask()) if m is not None)

    def commit(self, data: bytes) -> None:
        """Write everything and put it in place.

        Raises:
            Unwritable: the disk is full, say; the old file is still as it was.
        """
        if self._written:
            message = f"{self.target} was written already"
            raise Unwritable(message)
        try:
            with _temporary(self.target) as (descriptor, name):
                os.fchmod(descriptor, self._mode)
                with os.fdopen(os.dup(descriptor), "wb") as file:
                    file.write(data)
                os.fsync(descriptor)
                name.replace(self.target)
        except OSError as error:
            message = f"cannot write {self.target}: {error.strerror}"
            raise Unwritable(message) from None
        self._written = True


def _try_to_write(target: Path) -> None:
    """Make a file in the target's folder that never has a name, or loses it at once."""
    try:
        os.close(os.open(target.parent, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except OSError as error:
        if error.errno not in NO_TMPFILE:
            raise
        with _temporary(target):
            pass


@contextlib.contextmanager
def _temporary(target: Path) -> Iterator[tuple[int, Path]]:
    """A file beside the target, removed on leaving if it still has its name."""
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name[:40]}.", dir=target.parent)
    try:
        yield descriptor, Path(name)
    finally:
        Path(name).unlink(missing_ok=True)
        os.close(descriptor)


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
