"""Judge: facts in, findings and verdicts out. Arithmetic only; the same bytes on any machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from warmspare.model.asking import Found, find
from warmspare.model.facts import Cause, Readings, Standing
from warmspare.model.findings import Finding, Status, not_applicable, undecided
from warmspare.model.tracks import Layer, PlacedPaper, Track, Weighed
from warmspare.model.verdicts import (
    Check,
    Judgement,
    LayerJudgement,
    Paper,
    Role,
    State,
    TrackJudgement,
    Verdict,
    fold,
)

REPORTED_ONLY = "reported to work, not tried here: {text}"
GATED = "does not arise: {gate}"


def judge(readings: Readings, tracks: Mapping[str, tuple[str, Track]]) -> Judgement:
    """Judge `readings` by `tracks`, each given as id → (question, track)."""
    return Judgement(tracks=tuple(_track(name, *tracks[name], readings) for name in tracks))


def _track(name: str, question: str, track: Track, readings: Readings) -> TrackJudgement:
    gated = dict(reversed(list(_gated(track, readings))))  # of two gates over a layer the first one speaks
    checks = [
        check
        for weighed in track.weighed
        for check in _checks(weighed, readings, {} if weighed.rule.function in track.gates else gated)
    ]
    layers = []
    for layer in Layer:
        mine = tuple(check for check in checks if check.layer is layer)
        if mine:
            state = fold(check.state for check in mine if check.state)
            layers.append(LayerJudgement(layer=layer, state=state, checks=mine))
    unproven = tuple(c.id for c in checks if c.weight == "needs" and c.proof and not c.is_tried)
    members = [layer.state for layer in layers if layer.state]
    # A member of the fold and not a correction after it: so an unproven track is neither GO nor DEGRADED.
    state = fold([*members, *([State(Verdict.UNKNOWN)] if unproven else [])]) or State(Verdict.GO)
    breaks_at = next((x.layer for x in layers if x.state and x.state.verdict is state.verdict is not Verdict.GO), None)
    return TrackJudgement(
        id=name, question=question, state=state, breaks_at=breaks_at, unproven=unproven, layers=tuple(layers)
    )


def _gated(track: Track, readings: Readings) -> Iterator[tuple[Layer, str]]:
    for weighed in track.weighed:
        layers = track.gates.get(weighed.rule.function)
        if layers and (found := find(weighed.rule, readings).finding).status is Status.UNMET:
            yield from ((layer, found.text) for layer in layers)


def _checks(weighed: Weighed, readings: Readings, gates: Mapping[Layer, str]) -> Iterator[Check]:
    """The rule's own check, and one for each of its papers that stands in another layer."""
    gate = gates.get(weighed.layer)
    found = find(weighed.rule, readings)
    finding, silenced = found.finding, gate is not None
    if gate is not None:
        finding = not_applicable(GATED, gate=gate)
    elif weighed.rule.is_proof and finding.status is Status.MET and found.standing is Standing.REPORTED:
        finding, silenced = undecided(REPORTED_ONLY, text=finding.text, cause=Cause.UNASKED), True
    open_proof = finding.status is Status.UNDECIDED and not silenced
    asked = [(placed, find(placed.rule, readings)) for placed in weighed.papers]
    papers = [] if gate is not None else [_paper(p, said.finding, finding, open_proof=open_proof) for p, said in asked]
    yield Check(
        id=weighed.rule.id,
        layer=weighed.layer,
        weight=weighed.weight,
        proof=weighed.rule.is_proof,
        finding=finding,
        standing=found.standing,
        state=_state(weighed.weight, finding.status, expected=any(p.role == "speaks" for p in papers)),
        parts=found.parts,
        refs=found.refs,
        papers=tuple(papers),
    )
    roles = {paper.id: paper.role for paper in papers}
    for placed, said in asked:
        if placed.layer is not weighed.layer:
            check = _paper_check(placed, weighed, said, gate or gates.get(placed.layer))
            # Against a proof that passed it weighs nothing; beside one that failed it says where the stack breaks.
            counts = open_proof or Status.UNMET is finding.status or check.finding.status is Status.MET
            role = roles.get(placed.rule.id, "silent")
            yield msgspec.structs.replace(check, role=role, state=check.state if counts else None)


def _paper(placed: PlacedPaper, finding: Finding, proof: Finding, *, open_proof: bool) -> Paper:
    role: Role = "silent"
    if finding.status is Status.UNMET and open_proof:
        role = "speaks"
    elif finding.status is Status.UNMET and proof.status is Status.MET:
        role = "refuted"
    return Paper(id=placed.rule.id, layer=placed.layer, finding=finding, role=role)


def _paper_check(placed: PlacedPaper, proof: Weighed, found: Found, gate: str | None) -> Check:
    finding = found.finding if gate is None else not_applicable(GATED, gate=gate)
    return Check(
        id=placed.rule.id,
        layer=placed.layer,
        weight="expects",
        proof=False,
        finding=finding,
        standing=found.standing,
        state=_state(proof.weight, finding.status, expected=finding.status is Status.UNMET),
        parts=found.parts,
        refs=found.refs,
        predicts=proof.rule.id,
    )


def _state(weight: str, status: Status, *, expected: bool) -> State | None:
    if weight == "notes" or status is Status.NOT_APPLICABLE:
        return None
    if status is Status.MET:
        return State(Verdict.GO)
    if weight == "wants":
        return State(Verdict.DEGRADED, expected)
    return State(Verdict.NO_GO if status is Status.UNMET or expected else Verdict.UNKNOWN, expected)
