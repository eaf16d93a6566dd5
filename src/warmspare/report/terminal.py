"""The terminal report: a headline a track, then its layers, then (verbose) every check with its evidence."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from warmspare.report.view import CheckView, TrackView, View

WIDEST, NARROWEST, PLAIN = 100, 36, 80
INDENT, GAP, MARK_WIDTH = 2, 2, 9
STYLES: Final = {
    "GO": "bold green",
    "DEGRADED": "bold yellow",
    "UNKNOWN": "bold magenta",
    "NO-GO": "bold red",
}
MARK_STYLES: Final = {"met": "green", "unmet": "red", "undecided": "magenta", "n/a": "dim"}


def render(view: View, *, width: int = PLAIN, colour: bool = False, verbose: bool = False, brief: bool = False) -> str:
    """The report as text; without colour it is the same bytes on any machine. `brief`: headlines only."""
    out = io.StringIO()
    console = Console(
        file=out,
        width=max(NARROWEST, min(width, WIDEST)),
        force_terminal=colour,
        color_system="standard" if colour else None,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )
    console.print(Text(view.title, style="bold"))
    console.print(Text(view.made, style="dim"))
    console.print()
    console.print(_headlines(view, console.width))
    for track in () if brief else view.tracks:
        console.print()
        console.print(Text(f"{track.id}: {track.question}", style="bold"))
        console.print(Padding(_layers(track, console.width - INDENT), (0, 0, 0, INDENT)))
        if verbose:
            checks = [_check(check) for layer in track.layers for check in layer.checks]
            console.print(Padding(_grid(checks, console.width - INDENT), (0, 0, 0, INDENT)))
    if not verbose and not brief:
        console.print()
        console.print(
            Text(
                "-v shows every check with its evidence; warmspare explain ID says what one asks.",
                style="dim",
            )
        )
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def _headlines(view: View, width: int) -> Table:
    rows = []
    for track in view.tracks:
        text = Text(track.headline)
        if track.remedy:
            text.append(f"\n→ {track.remedy}", style="cyan")
        rows.append((_verdict(track.verdict, short=True), Text(track.id), text))
    return _grid(rows, width)


def _layers(track: TrackView, width: int) -> Table:
    rows = [(Text(layer.layer), _verdict(layer.verdict), Text(layer.text)) for layer in track.layers]
    return _grid(rows, width)


def _grid(rows: Sequence[Sequence[Text]], width: int) -> Table:
    """A table whose last column takes what is left; widths are given, since measuring is what is slow."""
    grid = Table.grid(padding=(0, GAP, 0, 0))
    widths = [max(len(line) for row in rows for line in row[n].plain.split("\n")) for n in range(len(rows[0]) - 1)]
    for taken in widths:
        grid.add_column(width=taken, no_wrap=True)
    grid.add_column(width=max(NARROWEST // 3, width - sum(widths) - GAP * len(widths)))
    for row in rows:
        grid.add_row(*row)
    return grid


def _check(check: CheckView) -> tuple[Text, Text]:
    known = f", {check.known_by}" if check.known_by else ""
    head = Text(check.id, style="bold").append(f" ({check.weight}{known}): ", style="dim").append(check.text)
    for paper in check.papers:
        head.append(f"\n{paper}", style="yellow")
    if check.remedy and check.mark in ("unmet", "undecided"):
        head.append(f"\n→ {check.remedy}", style="cyan")
    for line in check.parts:
        head.append(f"\n  {line}")
    for line in check.evidence:
        head.append(f"\n  {line}", style="dim")
    return Text(check.mark.ljust(MARK_WIDTH), style=MARK_STYLES[check.mark]), head


def _verdict(verdict: str, *, short: bool = False) -> Text:
    shown = verdict.replace(" expected", "\nexpected") if short else verdict
    return Text(shown, style=STYLES.get(verdict.split(" ", 1)[0], "dim"))
