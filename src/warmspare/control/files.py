"""Files that are whole or not there: checked before the work, replaced in one step after it."""

from __future__ import annotations

import contextlib
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

    def __init__(self, target: Path, mode: int = 0o644) -> None:
        """Open the temporary file next to `target`.

        Raises:
            Unwritable: the folder is missing or cannot be written, or the target is no regular file.
        """
        self.target = target
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if not stat.S_ISREG(os.lstat(target).st_mode):
                message = f"{target} is there and is not a regular file"
                raise Unwritable(message)
        try:
            self._descriptor, name = tempfile.mkstemp(prefix=f".{target.name[:40]}.", dir=target.parent)
        except OSError as error:
            message = f"cannot write {target}: {error.strerror}"
            raise Unwritable(message) from None
        self._temporary: Path | None = Path(name)
        os.fchmod(self._descriptor, mode)

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
