"""The texts behind `warmspare explain`, from docstrings, remedies.toml and claims.toml."""

from __future__ import annotations

import difflib
import inspect
import textwrap
from collections.abc import Iterator

from warmspare import catalogue
from warmspare.cli.errors import Refused
from warmspare.model.requirements import Rule
from warmspare.model.tracks import Weighed
from warmspare.tracks.api import Claim, Remedy

WIDTH = 78


class Explainer:
    """Knows every id of this version."""

    def __init__(self) -> None:
        """Load the catalogue."""
        self.tracks = catalogue.tracks()
        self.rules = catalogue.rules(self.tracks)
        self.remedies = catalogue.remedies()
        self.claims = catalogue.claims()
        self.trials = {trial.name: trial for trial in catalogue.trials()}

    def explain(self, name: str) -> str:
        """The text about one id.

        Raises:
            Refused: there is no such id; the nearest ones are named.
        """
        found = [
            lines
            for known, tell in (
                (self.rules, self._rule),
                (self.tracks, self._track),
                (self.trials, self._trial),
                (self.remedies, self._remedy),
                (self.claims, self._claim),
            )
            if name in known
            for lines in [tell(name)]
        ]
        if not found:
            every = [*self.rules, *self.tracks, *self.trials, *self.remedies, *self.claims]
            near = difflib.get_close_matches(name, every, n=3) or ["run warmspare explain for the list"]
            message = f"nothing is called {ascii(name)[:60]}; near it: {', '.join(near)}"
            raise Refused(message)
        return "\n\n".join("\n".join(lines) for lines in found) + "\n"

    def everything(self) -> str:
        """All ids with what they are."""
        listed = {
            "tracks": list(self.tracks),
            "requirements": sorted(self.rules),
            "trials": sorted(self.trials),
            "remedies": sorted(self.remedies),
            "claims of the report it all began with": sorted(self.claims),
        }
        return "\n".join(f"{title}:\n" + _fill(", ".join(names), "  ") for title, names in listed.items()) + "\n"

    def _rule(self, name: str) -> Iterator[str]:
        rule = self.rules[name]
        yield f"{name} (requirement{', decided by a trial' if rule.is_proof else ''})"
        yield _fill(rule.why, "  ")
        places = list(self._places(rule))
        for track, weighed in places:
            yield f"  {_place(track, weighed, rule)}"
        if any(rule.id != weighed.rule.id for _, weighed in places):
            yield "  paper only predicts: once that proof was tried here, its result counts"
        yield "  depends on: " + ", ".join(str(d.fact.__struct_config__.tag) for d in rule.asked)
        for remedy in rule.remedies:
            yield from self._do(self.remedies[remedy])
        for source in rule.sources:
            yield _fill(f"source: {source}", "  ")
        for claim in self.claims.values():
            if claim.settled_by == name:
                yield _fill(f"settles the claim {claim.id}: {claim.says}", "  ")

    def _places(self, rule: Rule) -> Iterator[tuple[str, Weighed]]:
        for track, (_, table) in self.tracks.items():
            for weighed in table.weighed:
                if rule.id == weighed.rule.id or rule.id in [paper.rule.id for paper in weighed.papers]:
                    yield track, weighed

    def _track(self, name: str) -> Iterator[str]:
        question, track = self.tracks[name]
        yield f"{name} (track)"
        yield _fill(question, "  ")
        for weighed in track.weighed:
            yield f"  {weighed.layer.value:<11} {weighed.weight:<6} {weighed.rule.id}"
            for paper in weighed.papers:
                yield f"  {paper.layer.value:<11} {'paper':<6} {paper.rule.id}"

    def _trial(self, name: str) -> Iterator[str]:
        trial = self.trials[name]
        yield f"{name} (trial, {'quick, ' if trial.quick else ''}at most {trial.deadline_s:g} s)"
        yield _fill(inspect.getdoc(trial.function) or "", "  ")
        yield _fill(f"touches: {trial.touches}", "  ")

    def _remedy(self, name: str) -> Iterator[str]:
        yield f"{name} (remedy)"
        yield from self._do(self.remedies[name])

    def _do(self, remedy: Remedy) -> Iterator[str]:
        yield _fill(f"do: {remedy.do}", "  ")
        yield _fill(f"changes: {remedy.changes} (effort: {remedy.effort})", "    ")

    def _claim(self, name: str) -> Iterator[str]:
        claim: Claim = self.claims[name]
        yield f"{name} (claim about {claim.track}: {claim.status})"
        for title, text in (
            ("it says", claim.says),
            ("in the report", claim.report),
            ("its ground", claim.cites),
            ("traced", claim.traced),
            ("sources", "; ".join(claim.sources)),
            ("settled by", claim.settled_by),
        ):
            yield _fill(f"{title}: {text}", "  ")


def _place(track: str, weighed: Weighed, rule: Rule) -> str:
    if rule.id == weighed.rule.id:
        return f"{track}: {weighed.weight}, layer {weighed.layer.value}"
    layer = next(paper.layer for paper in weighed.papers if paper.rule.id == rule.id)
    return f"{track}: paper on {weighed.rule.id}, layer {layer.value}"


def _fill(text: str, indent: str) -> str:
    paragraphs = text.split("\n\n")
    return "\n".join(
        textwrap.fill(
            " ".join(p.split()), WIDTH, initial_indent=indent, subsequent_indent=indent + "  ", break_on_hyphens=False
        )
        for p in paragraphs
    )
