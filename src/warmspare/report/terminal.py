"""The terminal report: a headline a track, then its layers, then (verbose) every check with its evidence."""

from __future__ import annotations

import io
from typing import Final

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from warmspare.report.view import CheckView, TrackView, View

WIDEST, NARROWEST, PLAIN = 100, 36, 80
STYLES: Final = {
    "GO": "bold green",
    "DEGRADED": "bold yellow",
    "UNKNOWN": "bold magenta",
    "NO-GO": "bold red",
}
MARK_STYLES: Final = {"met": "green", "unmet": "red", "undecided": "magenta", "n/a": "dim"}


def render(view: View, *, width: int = PLAIN, colour: bool = False, verbose: bool = False) -> str:
    """The report as text; without colour it is the same bytes on any machine."""
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
    console.print(_headlines(view))
    for track in view.tracks:
        console.print()
        console.print(Text(f"{track.id}: {track.question}", style="bold"))
        console.print(Padding(_layers(track), (0, 0, 0, 2)))
        if verbose:
            _details(console, track)
    if not verbose:
        console.print()
        console.print(
            Text(
                "-v shows every check with its evidence; warmspare explain ID says what one asks.",
                style="dim",
            )
        )
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def _headlines(view: View) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column()
    for track in view.tracks:
        text = Text(track.headline)
        if track.remedy:
            text.append(f"\n→ {track.remedy}", style="cyan")
        grid.add_row(_verdict(track.verdict, short=True), track.id, text)
    return grid


def _layers(track: TrackView) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column()
    grid.add_column()
    for layer in track.layers:
        grid.add_row(layer.layer, _verdict(layer.verdict), layer.text)
    return grid


def _details(console: Console, track: TrackView) -> None:
    for layer in track.layers:
        for check in layer.checks:
            console.print(Padding(_check(check), (0, 0, 0, 2)))


def _check(check: CheckView) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(width=9, no_wrap=True)
    grid.add_column()
    known = f", {check.known_by}" if check.known_by else ""
    head = Text(check.id, style="bold").append(f" ({check.weight}{known}): ", style="dim").append(check.text)
    for paper in check.papers:
        head.append(f"\n{paper}", style="yellow")
    if check.remedy and check.mark in ("unmet", "undecided"):
        head.append(f"\n→ {check.remedy}", style="cyan")
    for line in check.evidence:
        head.append(f"\n  {line}", style="dim")
    grid.add_row(Text(check.mark, style=MARK_STYLES[check.mark]), head)
    return grid


def _verdict(verdict: str, *, short: bool = False) -> Text:
    shown = verdict.replace(" expected", "\nexpected") if short else verdict
    return Text(shown, style=STYLES.get(verdict.split(" ", 1)[0], "dim"))
