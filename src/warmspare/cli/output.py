"""Where reports go: the terminal, and files that are refused before the work or replaced after it."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
from pathlib import Path

import click

from warmspare.cli.errors import Refused
from warmspare.control.files import Replacement, Unwritable
from warmspare.report.view import clean

STANDARD = "-"
READER_LEFT = frozenset({errno.EPIPE, errno.EIO, errno.EBADF})


class Sinks:
    """The files asked for, tried beforehand; `-` is standard output, which then carries only that."""

    def __init__(self, paths: dict[str, str | None], new_mode: int | None = None) -> None:
        """Try `paths`, by format; `new_mode` is for files that are not there yet.

        Raises:
            Refused: a path cannot be written, or two reports want the same one.
        """
        wanted = {name: path for name, path in paths.items() if path is not None}
        if "" in wanted.values():
            message = "an empty path names no file; name one, or - for standard output"
            raise Refused(message)
        self.standard = [name for name, path in wanted.items() if path == STANDARD]
        if len(self.standard) > 1:
            message = "only one report can go to standard output; name a file for the other"
            raise Refused(message)
        if len({os.path.realpath(path) for path in wanted.values()}) < len(wanted):
            message = "two reports cannot go to one file; name another for one of them"
            raise Refused(message)
        try:
            self._files = {
                name: Replacement(Path(path), new_mode=new_mode) for name, path in wanted.items() if path != STANDARD
            }
        except Unwritable as error:
            raise Refused(str(error)) from None

    def write(self, name: str, text: str) -> None:
        """Write one format to where it was asked for.

        Raises:
            Refused: the disk is full, say; an older file is still whole.
        """
        if name in self.standard:
            say(text)
        if name in self._files:
            try:
                self._files[name].commit(text.encode())
            except Unwritable as error:
                raise Refused(str(error)) from None

    def __contains__(self, name: str) -> bool:
        """Whether a format was asked for."""
        return name in self.standard or name in self._files


def say(text: str) -> None:
    """Print to standard output; a reader that has left (`| head`, a closed terminal) stops nothing.

    Raises:
        Refused: nothing can be written there for another reason (a full disk).
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno not in READER_LEFT:
            message = f"cannot write standard output: {error.strerror}"
            raise Refused(message) from None


def remark(text: str) -> None:
    """Print one line to standard error, if anybody can read it."""
    with contextlib.suppress(OSError):
        click.echo(f"warmspare: {clean(text)}", err=True)


def width() -> int:
    """Columns of the terminal; 80 where there is none, so that files are the same everywhere."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 80


def colour() -> bool:
    """Colour only on a terminal that has not asked for none."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
