"""Where reports go: the terminal, and files that are refused before the work or replaced after it."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from warmspare.control.files import Replacement, Unwritable

STANDARD = "-"


class Sinks:
    """The files asked for, opened beforehand; `-` is standard output, which then carries only that."""

    def __init__(self, paths: dict[str, str | None], stack: contextlib.ExitStack) -> None:
        """Open `paths`, by format.

        Raises:
            click.UsageError: a path cannot be written, or two want standard output.
        """
        wanted = {name: path for name, path in paths.items() if path is not None}
        self.standard = [name for name, path in wanted.items() if path == STANDARD]
        if len(self.standard) > 1:
            message = "only one report can go to standard output"
            raise click.UsageError(message)
        try:
            self._files = {
                name: stack.enter_context(Replacement(Path(path))) for name, path in wanted.items() if path != STANDARD
            }
        except Unwritable as error:
            raise click.UsageError(str(error)) from None

    def write(self, name: str, text: str) -> None:
        """Write one format to where it was asked for.

        Raises:
            click.UsageError: the disk is full, say; an older file is still whole.
        """
        if name in self.standard:
            say(text)
        if name in self._files:
            try:
                self._files[name].commit(text.encode())
            except Unwritable as error:
                raise click.UsageError(str(error)) from None

    def __contains__(self, name: str) -> bool:
        """Whether a format was asked for."""
        return name in self.standard or name in self._files


@contextlib.contextmanager
def sinks(**paths: str | None) -> Iterator[Sinks]:
    """Open the files asked for; what is not written by the end leaves no trace."""
    with contextlib.ExitStack() as stack:
        yield Sinks(paths, stack)


def say(text: str) -> None:
    """Print to standard output; a reader that has left (`| head`) stops nothing."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def remark(text: str) -> None:
    """Print one line to standard error, if anybody can read it."""
    with contextlib.suppress(OSError):
        click.echo(f"warmspare: {text}", err=True)


def width() -> int:
    """Columns of the terminal; 80 where there is none, so that files are the same everywhere."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 80


def colour() -> bool:
    """Colour only on a terminal that has not asked for none."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
