"""Verdicts: GO, DEGRADED, UNKNOWN, NO-GO, how they fold, and the judgement that holds them."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final, Literal

import msgspec

from warmspare.model.facts import Standing
from warmspare.model.findings import Finding, Status
from warmspare.model.tracks import Layer

Role = Literal["speaks", "refuted", "silent"]


class Verdict(StrEnum):
    """What a layer or a track comes to."""

    GO = "GO"
    DEGRADED = "DEGRADED"
    UNKNOWN = "UNKNOWN"
    NO_GO = "NO-GO"

    @property
    def severity(self) -> int:
        """The fold's order: NO-GO 3, UNKNOWN 2, DEGRADED 1, GO 0."""
        return list(Verdict).index(self)

    @property
    def rank(self) -> int:
        """The law's order: GO 2, DEGRADED 1, UNKNOWN and NO-GO 0. Less knowledge never raises it."""
        return (2, 1, 0, 0)[self.severity]


EXIT_CODES: Final = (0, 4, 3, 1)
"""Of check and judge, by severity: GO, DEGRADED, UNKNOWN, NO-GO."""


class State(msgspec.Struct, frozen=True):
    """A verdict, and whether only paper says so (*expected*)."""

    verdict: Verdict
    expected: bool = False


def fold(states: Iterable[State]) -> State | None:
    """The worst state; expected only if nothing but paper makes it that bad; None over nothing."""
    found = list(states)
    if not found:
        return None
    worst = max((s.verdict for s in found), key=lambda v: v.severity)
    return State(worst, all(s.expected for s in found if s.verdict is worst))


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One subject's finding inside a folded check."""

    subject: str
    finding: Finding
    standing: Standing | None = None
    refs: tuple[int, ...] = ()


class Paper(msgspec.Struct, frozen=True, kw_only=True):
    """What a documented claim says of a proof, and what became of it here.

    `speaks`: it weighs, since the proof is undecided. `refuted`: the proof passed although the paper
    said it would not. `silent`: it has no objection, or a trial has decided.
    """

    id: str
    layer: Layer
    finding: Finding
    role: Role


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One requirement on this machine: its finding, its weight and the evidence behind it.

    A paper that stands in another layer than the proof it `predicts` is a check of its own there.
    """

    id: str
    layer: Layer
    weight: Literal["needs", "wants", "notes", "expects"]
    proof: bool
    finding: Finding
    standing: Standing | None = None
    state: State | None = None
    parts: tuple[Part, ...] = ()
    refs: tuple[int, ...] = ()
    papers: tuple[Paper, ...] = ()
    predicts: str | None = None
    role: Role | None = None

    @property
    def is_tried(self) -> bool:
        """Whether it holds because a trial showed it."""
        return self.finding.status is Status.MET and self.standing is Standing.TRIED


class LayerJudgement(msgspec.Struct, frozen=True, kw_only=True):
    """One layer of a track; `state` is None where nothing weighs (all not applicable, or only notes)."""

    layer: Layer
    state: State | None
    checks: tuple[Check, ...]


class TrackJudgement(msgspec.Struct, frozen=True, kw_only=True):
    """One track: its verdict, the first layer that makes it so, and every layer's own state.

    `unproven` names the proofs among its needs that no trial on this machine has passed.
    """

    id: str
    question: str
    state: State
    breaks_at: Layer | None
    unproven: tuple[str, ...]
    layers: tuple[LayerJudgement, ...]

    @property
    def decisive(self) -> Check | None:
        """The check to put in the headline: the first that gives the track its verdict.

        Of the undecided, paper comes first only if it says what to do: else the proof that it predicts does.
        """
        if self.state.verdict is Verdict.GO:
            return None
        found = [check for layer in self.layers for check in layer.checks if check.state == self.state]
        telling = [check for check in found if check.weight != "expects" or check.finding.remedy]
        undecided = self.state.verdict is Verdict.UNKNOWN
        return next(iter((telling if undecided else found) or found), None)


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """All tracks asked for."""

    tracks: tuple[TrackJudgement, ...]

    @property
    def exit_code(self) -> int:
        """0 GO, 1 NO-GO, 3 UNKNOWN, 4 DEGRADED: the worst of the tracks asked for."""
        return EXIT_CODES[max((t.state.verdict.severity for t in self.tracks), default=0)]
