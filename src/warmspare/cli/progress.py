"""What goes on while the tool works, on standard error: one line that changes, or plain lines in a log."""

from __future__ import annotations

import contextlib
import os
import sys
import textwrap
from typing import TextIO

from warmspare.model.facts import HOST
from warmspare.survey import Watcher
from warmspare.trials.api import StepEvent, Trial

WIDEST, NARROWEST, PLAIN = 100, 20, 80


class Progress(Watcher):
    """Shows each stage; what a trial touches is always said before it is touched."""

    def __init__(self, stream: TextIO | None = None, *, verbose: bool = False) -> None:
        """Write to `stream` (standard error); `verbose` also names every step where there is no terminal."""
        self._stream, self._verbose, self._subject = stream or sys.stderr, verbose, ""
        terminal = self._stream.isatty()
        self._live = terminal and os.environ.get("TERM") != "dumb"
        self._width = min(_columns(self._stream), WIDEST) if terminal else None

    def reading(self) -> None:
        """The probes are being asked."""
        self._show("reading the host…")

    def trying(self, trial: Trial) -> None:
        """Say what the trial touches."""
        self._clear()
        self._subject = ""
        self._line(f"trying {trial.name}: touches {trial.touches}")

    def about(self, subject: str) -> None:
        """Say which GPU or pair comes next."""
        self._subject = subject
        self._show(f"  {subject}…")

    def step(self, event: StepEvent) -> None:
        """A step begins."""
        if event.took_s is None:
            said = f"{self._subject}: {event.name}" if self._subject not in ("", HOST) else event.name
            if self._live:
                self._show(f"  {said}…")
            elif self._verbose:
                self._line(f"  {said}")

    def done(self) -> None:
        """Clear the changing line away."""
        self._clear()

    def _show(self, text: str) -> None:
        if self._live:
            self._write(f"\r\x1b[2K{text[: (self._width or WIDEST) - 1]}")

    def _clear(self) -> None:
        if self._live:
            self._write("\r\x1b[2K")

    def _line(self, text: str) -> None:
        self._write(f"{textwrap.fill(text, self._width, subsequent_indent='  ') if self._width else text}\n")

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # nobody reads: the work goes on
            self._stream.write(text)
            self._stream.flush()


def _columns(stream: TextIO) -> int:
    """Columns of a terminal; some say 0, others too few to write in."""
    try:
        columns = os.get_terminal_size(stream.fileno()).columns
    except OSError:
        columns = 0
    return max(columns, NARROWEST) if columns else PLAIN
