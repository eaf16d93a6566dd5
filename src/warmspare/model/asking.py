"""Ask one requirement of the readings: gather its facts, call it, fold its subjects. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from warmspare.model.facts import (
    HOST,
    Absent,
    Both,
    Cause,
    Fact,
    Kind,
    Known,
    Proof,
    Reading,
    Readings,
    Standing,
    fact_name,
)
from warmspare.model.findings import Finding, Status, not_applicable, undecided, unmet
from warmspare.model.requirements import Dependency, Mode, Rule
from warmspare.model.verdicts import Part

MISSING = "not known: {facts} ({detail})"
NOT_TRIED = "not tried: {detail}"
RAISED = "the requirement itself failed: {error}"
NO_FINDING = "the requirement gave no finding but {kind}"
HELD_ON_ABSENT = "said {status} although {facts} is absent: not believed"
OF_SUBJECTS = "{subjects}: "
LIKEWISE = " (likewise, with values of their own: {alike})"
SEVERAL: Final = {"gpu": "GPUs", "pair": "pairs", "link": "links"}
NAMED: Final = 4
"""The most subjects that a sentence names one by one."""
FAILED: Final = frozenset({Cause.TIMEOUT, Cause.CRASHED, Cause.INVALID})
"""Causes that something is wrong with the thing asked about, rather than with us."""
NO_SUBJECTS = "there is no {kind} here"
NO_SUBJECT_HAS_IT = "there is no {kind} here, and one is needed"


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
    if (not_asked := _not_asked(rule, readings)) is not None:
        return not_asked
    if rule.fold is None:
        return _ask(rule, readings, HOST)
    mode, kind = rule.fold
    inventories: list[Known[Any]] = []
    subjects = list(_subjects(kind, readings, inventories))
    absent = [subject for subject in subjects if isinstance(subject, Found)]
    if absent and len(absent) == len(subjects):
        return absent[0]
    refs = tuple(sorted({ref for inventory in inventories for ref in inventory.refs}))
    standing = min((inventory.standing for inventory in inventories), key=lambda s: s.strength, default=None)
    if not subjects:
        empty = not_applicable(NO_SUBJECTS, kind=kind.name)
        if mode is Mode.SOME:
            empty = unmet(NO_SUBJECT_HAS_IT, kind=kind.name)
        return Found(empty, standing, refs)
    parts = [
        (kind.name, subject) if isinstance(subject, Found) else (subject, _ask(rule, readings, subject))
        for subject in subjects
    ]
    found = _fold_parts(mode, kind.name, parts)
    if standing is Standing.REPORTED:  # an inventory names the subjects and is no evidence, unless it is hearsay
        return Found(found.finding, standing, found.refs, found.parts)
    return found


def _not_asked(rule: Rule, readings: Readings) -> Found | None:
    """What is found instead where the question does not arise, or falls away."""
    if rule.arises is not None and (found := find(rule.arises, readings)).finding.status is not Status.MET:
        return found
    if rule.unless is None or (found := find(rule.unless, readings)).finding.status is not Status.MET:
        return None
    return Found(not_applicable(found.finding.sentence, **found.finding.values), found.standing, found.refs)


def _fold_parts(mode: Mode, kind: str, parts: list[tuple[str, Found]]) -> Found:
    shown = tuple(Part(subject=subject, finding=f.finding, standing=f.standing, refs=f.refs) for subject, f in parts)
    each = (Status.UNMET, Status.UNDECIDED, Status.MET, Status.NOT_APPLICABLE)
    some = (Status.MET, Status.UNDECIDED, Status.UNMET, Status.NOT_APPLICABLE)
    status = next(s for s in (each if mode is Mode.EACH else some) if any(f.finding.status is s for _, f in parts))
    deciding = [(subject, f) for subject, f in parts if f.finding.status is status]
    best = mode is Mode.SOME and status is Status.MET
    pick = max if best else min
    strength = pick(deciding, key=lambda part: part[1].standing.strength if part[1].standing else -1)[1].standing
    first = _named_after([(subject, f.finding) for subject, f in deciding], kind, len(parts))
    refs = tuple(sorted({ref for _, f in deciding for ref in f.refs}))
    return Found(first, strength, refs, shown)


def _named_after(deciding: list[tuple[str, Finding]], kind: str, total: int) -> Finding:
    """The first finding, with the subjects that say just the same, and those that say the like with other values."""
    first = deciding[0][1]
    if total == 1:
        return first
    same = [subject for subject, finding in deciding if finding == first]
    alike = [subject for subject, finding in deciding if finding != first]
    values = {**first.values, "subjects": _listed(same, kind, total)}
    if not alike:
        return msgspec.structs.replace(first, sentence=OF_SUBJECTS + first.sentence, values=values)
    sentence = OF_SUBJECTS + first.sentence + LIKEWISE
    return msgspec.structs.replace(first, sentence=sentence, values={**values, "alike": _listed(alike, kind, total)})


def _listed(subjects: list[str], kind: str, total: int) -> str:
    """The subjects by name, or how many where that would be a long list."""
    if len(subjects) == total > NAMED:
        return f"all {total} {SEVERAL.get(kind, kind)}"
    if len(subjects) <= NAMED:
        return ", ".join(subjects)
    return f"{', '.join(subjects[: NAMED - 1])} and {len(subjects) - NAMED + 1} more of {total}"


def _subjects(kind: Kind, readings: Readings, inventories: list[Known[Any]]) -> Iterator[str | Found]:
    """The subjects of a kind as its inventories list them; a Found where one is absent. Collects the inventories."""
    if kind.inventory is None or kind.listed is None:
        yield HOST
        return
    for parent in _subjects(kind.parent, readings, inventories) if kind.parent else (HOST,):
        if isinstance(parent, Found):
            yield parent
            continue
        match readings.get(kind.inventory, parent):
            case Absent() as absent:
                yield Found(_missing([(kind.inventory, absent)]), refs=absent.refs)
            case Known(value=inventory) as known:
                inventories.append(known)
                yield from kind.listed(inventory, parent)


def _ask(rule: Rule, readings: Readings, subject: str) -> Found:
    asked = [(dependency, list(_readings(dependency, readings, subject))) for dependency in rule.dependencies]
    every = [(dependency, reading) for dependency, found in asked for reading in found]
    refs = tuple(sorted({ref for _, reading in every for ref in reading.refs}))
    absent = [(dependency, reading) for dependency, reading in every if isinstance(reading, Absent)]
    if missing := [(d.fact, reading) for d, reading in absent if d.mode is not Mode.READING]:
        remedy = rule.remedy_when_unknown if missing[0][1].cause in FAILED else None
        return Found(msgspec.structs.replace(_missing(missing), remedy=remedy), refs=refs)
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
            finding.check()
            return finding
    except (Exception, SystemExit) as error:  # noqa: BLE001 # a requirement's bug is told under its name
        return undecided(RAISED, error=_named(error), cause=Cause.CRASHED)
    return undecided(NO_FINDING, kind=type(finding).__name__, cause=Cause.CRASHED)


def _named(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 # an exception that cannot even say what it is
        return type(error).__name__


def _missing(absent: list[tuple[type[Fact], Absent]]) -> Finding:
    first = absent[0][1]
    names = tuple(fact_name(fact) for fact, _ in absent)
    detail = f"{first.cause.value}: {first.detail}" if first.detail else first.cause.value
    if issubclass(absent[0][0], Proof) and first.cause in (Cause.UNASKED, Cause.SKIPPED):
        return undecided(NOT_TRIED, detail=first.detail or first.cause.value, cause=first.cause)
    return undecided(MISSING, facts=names, detail=detail, cause=first.cause)
