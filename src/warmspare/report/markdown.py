"""The Markdown report: for an issue or a wiki."""

from __future__ import annotations

import re
from collections.abc import Iterator

from warmspare.report.view import CheckView, TrackView, View


def render(view: View) -> str:
    """The report as Markdown; nothing read from a machine can become markup."""
    lines = [
        f"# warmspare: {_plain(view.title)}",
        "",
        _plain(view.made),
        "",
        "| track | verdict | why | what to do |",
    ]
    lines += ["|---|---|---|---|"]
    for track in view.tracks:
        cells = (track.id, f"**{track.verdict}**", _plain(track.headline), _plain(track.remedy or ""))
        lines.append(f"| {' | '.join(cells)} |")
    for track in view.tracks:
        lines += ["", *_track(track)]
    return "\n".join(lines) + "\n"


def _track(track: TrackView) -> Iterator[str]:
    yield from (f"## {track.id}: {track.verdict}", "", _plain(track.question), "", "| layer | verdict | |")
    yield "|---|---|---|"
    for layer in track.layers:
        yield f"| {layer.layer} | {layer.verdict} | {_plain(layer.text)} |"
    yield ""
    for layer in track.layers:
        for check in layer.checks:
            yield from _check(check)


def _check(check: CheckView) -> Iterator[str]:
    known = f", {check.known_by}" if check.known_by else ""
    yield f"- **{check.mark}** `{check.id}` ({check.weight}{known}): {_plain(check.text)}"
    for paper in check.papers:
        yield f"  - paper: {_plain(paper)}"
    if check.remedy and check.mark in ("unmet", "undecided"):
        yield f"  - do: {_plain(check.remedy)}"
    for line in check.parts:
        yield f"  - {_plain(line)}"
    for line in check.evidence:
        yield f"  - seen: {_plain(line)}"


def _plain(text: str) -> str:
    """Text with every character that Markdown, HTML or GitHub (links, mentions, formulas) could act on escaped."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&!@$]|:(?=//)|(?<=www)\.)", r"\\\1", text, flags=re.IGNORECASE)
