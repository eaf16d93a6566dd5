"""Judge: facts in, findings and verdicts out. Arithmetic only; the same bytes on any machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from warmspare.model.facts import HOST, Absent, Both, Cause, Fact, Kind, Known, Proof, Reading, Readings, Standing, fact_name
from warmspare.model.findings import Finding, Status, not_applicable, undecided
from warmspare.model.requirements import Dependency, Mode, Rule
from warmspare.model.tracks import Layer, Track, Weighed
from warmspare.model.verdicts import (
    Check,
    Judgement,
    LayerJudgement,
    Paper,
    Part,
    Role,
    State,
    TrackJudgement,
    Verdict,
    fold,
)

MISSING = "not known: {facts} ({detail})"
NOT_TRIED = "not tried: {detail}"
RAISED = "the requirement itself failed: {error}"
NO_FINDING = "the requirement gave no finding but {kind}"
HELD_ON_ABSENT = "said {status} although {facts} is absent: not believed"
NO_SUBJECTS = "there is no {kind} here"
NO_SUBJECT_HAS_IT = "there is no {kind} here, and one is needed"
REPORTED_ONLY = "reported to work, not tried here: {text}"
GATED = "does not arise: {gate} is unmet"


def judge(readings: Readings, tracks: Mapping[str, tuple[str, Track]]) -> Judgement:
    """Judge `readings` by `tracks`, each given as id → (question, track)."""
    return Judgement(tracks=tuple(_track(name, *tracks[name], readings) for name in tracks))


def _track(name: str, question: str, track: Track, readings: Readings) -> TrackJudgement:
    gated = dict(_gated(track, readings))
    checks = [_check(weighed, readings, gated.get(weighed.layer)) for weighed in track.weighed]
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
        if layers and find(weighed.rule, readings).finding.status is Status.UNMET:
            yield from ((layer, weighed.rule.id) for layer in layers)


def _check(weighed: Weighed, readings: Readings, gate: str | None) -> Check:
    found = find(weighed.rule, readings)
    finding, silenced = found.finding, False
    papers: tuple[Paper, ...] = ()
    if gate is not None:
        finding = not_applicable(GATED, gate=gate)
    elif weighed.rule.is_proof and finding.status is Status.MET and found.standing is Standing.REPORTED:
        finding, silenced = undecided(REPORTED_ONLY, text=finding.text, cause=Cause.UNASKED), True
    if gate is None:
        papers = tuple(_paper(paper, readings, finding, silenced=silenced) for paper in weighed.papers)
    return Check(
        id=weighed.rule.id,
        layer=weighed.layer,
        weight=weighed.weight,
        proof=weighed.rule.is_proof,
        finding=finding,
        standing=found.standing,
        state=_state(weighed.weight, finding.status, expected=any(p.role == "speaks" for p in papers)),
        parts=found.parts,
        refs=found.refs,
        papers=papers,
    )


def _paper(rule: Rule, readings: Readings, proof: Finding, *, silenced: bool) -> Paper:
    finding = find(rule, readings).finding
    role: Role = "silent"
    if finding.status is Status.UNMET and proof.status is Status.UNDECIDED and not silenced:
        role = "speaks"
    elif finding.status is Status.UNMET and proof.status is Status.MET:
        role = "refuted"
    return Paper(id=rule.id, finding=finding, role=role)


def _state(weight: str, status: Status, *, expected: bool) -> State | None:
    if weight == "notes" or status is Status.NOT_APPLICABLE:
        return None
    if status is Status.MET:
        return State(Verdict.GO)
    if weight == "wants":
        return State(Verdict.DEGRADED, expected)
    return State(Verdict.NO_GO if status is Status.UNMET or expected else Verdict.UNKNOWN, expected)


class Found:
    """A rule's finding on some readings, with the standing and the transcript entries behind it."""

    __slots__ = ("finding", "parts", "refs", "standing")

    def __init__(
        self,
        finding: Finding,
        standing: Standing | None = None,
        refs: tuple[int, ...] = (),
        parts: tuple[Part, ...] = (),
    ) -> None:
        """Hold one rule's answer."""
        self.finding, self.standing, self.refs, self.parts = finding, standing, refs, parts


def find(rule: Rule, readings: Readings) -> Found:
    """Ask one rule of the readings; never raises for what the rule or the readings do."""
    if rule.fold is None:
        return _ask(rule, readings, HOST)
    mode, kind = rule.fold
    subjects = list(_subjects(kind, readings))
    if absent := [s for s in subjects if isinstance(s, Found)]:
        inventory = absent[0]
        if len(subjects) == len(absent):
            return inventory
    if not subjects:
        empty = not_applicable(NO_SUBJECTS, kind=kind.name)
        if mode is Mode.SOME:
            empty = Finding(status=Status.UNMET, sentence=NO_SUBJECT_HAS_IT, values={"kind": kind.name})
        return Found(empty)
    parts = [
        (kind.name, subject) if isinstance(subject, Found) else (subject, _ask(rule, readings, subject))
        for subject in subjects
    ]
    return _fold_parts(mode, parts)


def _fold_parts(mode: Mode, parts: list[tuple[str, Found]]) -> Found:
    shown = tuple(Part(subject=subject, finding=f.finding, standing=f.standing, refs=f.refs) for subject, f in parts)
    each = (Status.UNMET, Status.UNDECIDED, Status.MET, Status.NOT_APPLICABLE)
    some = (Status.MET, Status.UNDECIDED, Status.UNMET, Status.NOT_APPLICABLE)
    status = next(s for s in (each if mode is Mode.EACH else some) if any(f.finding.status is s for _, f in parts))
    deciding = [(subject, f) for subject, f in parts if f.finding.status is status]
    best = mode is Mode.SOME and status is Status.MET
    pick = max if best else min
    strength = pick(deciding, key=lambda part: part[1].standing.strength if part[1].standing else -1)[1].standing
    first = deciding[0][1].finding
    if len(parts) > 1:
        who = ", ".join(subject for subject, _ in deciding)
        first = Finding(
            status=first.status,
            sentence="{subjects}: " + first.sentence,
            values={**first.values, "subjects": who},
            remedy=first.remedy,
            cause=first.cause,
        )
    refs = tuple(sorted({ref for _, f in deciding for ref in f.refs}))
    return Found(first, strength, refs, shown)


def _subjects(kind: Kind, readings: Readings) -> Iterator[str | Found]:
    """The subjects of a kind as its inventory lists them; a Found where an inventory is absent."""
    if kind.inventory is None or kind.listed is None:
        yield HOST
        return
    for parent in _subjects(kind.parent, readings) if kind.parent else (HOST,):
        if isinstance(parent, Found):
            yield parent
            continue
        match readings.get(kind.inventory, parent):
            case Absent() as absent:
                yield Found(_missing([(kind.inventory, absent)]), refs=absent.refs)
            case Known(value=inventory):
                yield from kind.listed(inventory, parent)


def _ask(rule: Rule, readings: Readings, subject: str) -> Found:
    asked = [(dependency, list(_readings(dependency, readings, subject))) for dependency in rule.dependencies]
    every = [(dependency, reading) for dependency, found in asked for reading in found]
    refs = tuple(sorted({ref for _, reading in every for ref in reading.refs}))
    absent = [(dependency, reading) for dependency, reading in every if isinstance(reading, Absent)]
    if missing := [(d.fact, reading) for d, reading in absent if d.mode is not Mode.READING]:
        return Found(_missing(missing), refs=refs)
    finding = _call(rule, {d.parameter: _argument(d, found) for d, found in asked})
    if absent and finding.status in (Status.MET, Status.NOT_APPLICABLE):
        facts = tuple(fact_name(d.fact) for d, _ in absent)
        finding = undecided(HELD_ON_ABSENT, status=finding.status.value, facts=facts, cause=absent[0][1].cause)
    known = (reading.standing for _, reading in every if isinstance(reading, Known))
    return Found(finding, min(known, key=lambda s: s.strength, default=None), refs)


def _argument(dependency: Dependency, found: list[Reading[Any]]) -> object:
    if dependency.mode is Mode.READING:
        return found[0]
    values = [reading.value for reading in found if isinstance(reading, Known)]
    return Both(*values) if dependency.both else values[0]


def _readings(dependency: Dependency, readings: Readings, subject: str) -> Iterator[Reading[Any]]:
    if dependency.mode in (Mode.ONE, Mode.READING):
        yield readings.get(dependency.fact)
        return
    yield readings.get(dependency.fact, subject)
    if dependency.both:
        there, back = subject.split("→")
        yield readings.get(dependency.fact, f"{back}→{there}")


def _call(rule: Rule, arguments: dict[str, object]) -> Finding:
    try:
        finding = rule.function(**arguments)
        if isinstance(finding, Finding):
            finding.text  # noqa: B018 # a sentence that does not fit its values must fail here, under its name
            return finding
    except Exception as error:  # noqa: BLE001 # a requirement's bug is shown under its name, never a traceback
        return undecided(RAISED, error=f"{type(error).__name__}: {error}", cause=Cause.CRASHED)
    return undecided(NO_FINDING, kind=type(finding).__name__, cause=Cause.CRASHED)


def _missing(absent: list[tuple[type[Fact], Absent]]) -> Finding:
    first = absent[0][1]
    names = tuple(fact_name(fact) for fact, _ in absent)
    detail = f"{first.cause.value}: {first.detail}" if first.detail else first.cause.value
    if issubclass(absent[0][0], Proof) and first.cause in (Cause.UNASKED, Cause.SKIPPED):
        return undecided(NOT_TRIED, detail=first.detail or first.cause.value, cause=first.cause)
    return undecided(MISSING, facts=names, detail=detail, cause=first.cause)


__all__ = ["Found", "find", "judge"]
