"""A survey: ask every probe, run the trials asked for, and put it all into one snapshot."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec

from warmspare import __version__, catalogue, runs, state
from warmspare.host.identity import identities
from warmspare.host.live import LiveHost
from warmspare.host.port import SLOW
from warmspare.model.facts import (
    HOST,
    Absent,
    Cause,
    Fact,
    Key,
    Known,
    Proof,
    Reading,
    Readings,
    Standing,
    fact_name,
)
from warmspare.model.redact import redact
from warmspare.model.snapshot import Snapshot
from warmspare.probes.api import collect
from warmspare.trials import leftover
from warmspare.trials.api import NotTried, StepEvent, Trial
from warmspare.trials.engine_given import planned
from warmspare.trials.engine_plan import EnginePlan
from warmspare.trials.given import May, in_the_way, too_risky
from warmspare.trials.run import run
from warmspare.trials.speed import NativeRun

AFTER_A_HANG_S = 15.0
"""A trial's deadline once it has hung on another GPU or pair: a host whose peers hang must not cost minutes each."""
NO_TRIAL = "this version has no trial for it yet"


class Survey(msgspec.Struct, frozen=True):
    """A snapshot, the redacted one to keep, and what trials (earlier, killed ones too) could not clear away."""

    snapshot: Snapshot
    redacted: Snapshot
    left: tuple[str, ...]


class Watcher:
    """Told what goes on; the command line shows it. This one shows nothing."""

    def reading(self) -> None:
        """The probes are being asked."""

    def trying(self, trial: Trial) -> None:
        """A trial is about to touch something."""

    def about(self, subject: str) -> None:
        """The trial is about to be run on this GPU, this pair, or the host."""

    def step(self, event: StepEvent) -> None:
        """A step of the trial begins or has ended."""


def take(
    trials: Iterable[Trial], skipped: str, watcher: Watcher, may: May | None = None, *, redacted: bool = True
) -> Survey:
    """Survey this machine. Trials not in `trials` are absent, with `skipped` as the reason.

    A GPU that somebody is at work on is left alone, and no process is restored where that may hang the machine, unless
    it `may`.
    """
    watcher.reading()
    with LiveHost(ahead=SLOW) as host:
        catalogue.tracks()  # what judging needs is imported now, while cuInit runs
        readings = collect(host, catalogue.probes())
        transcript = tuple(host.transcript)
    # Before redaction: the key of a machine is made of what redaction takes out.
    readings[fact_name(NativeRun), HOST] = runs.native_run(Readings(readings), state.folder())
    may = may or May()
    readings[fact_name(EnginePlan), HOST] = Known(
        value=planned(may.engine), standing=Standing.OBSERVED, at=datetime.now(UTC)
    )
    chosen = {trial.name for trial in trials}
    left = list(leftover.sweep_stale()) if chosen else []
    for trial in catalogue.trials():
        subjects = trial.kind.subjects(Readings(readings))
        if trial.name not in chosen:
            for subject in subjects:
                readings |= _of(trial, subject, Absent(cause=Cause.SKIPPED, detail=skipped))
            continue
        about = {subject: _given(trial, subject, Readings(readings), may) for subject in subjects}
        if not all(isinstance(given, Absent) for given in about.values()):
            watcher.trying(trial)
        for subject, given in about.items():
            watcher.about(subject)
            if isinstance(given, Absent):
                readings |= _of(trial, subject, given)
                continue
            tried = run(_timed(trial, given), watcher.step, given)
            readings |= {(name, subject): reading for name, reading in tried.readings.items()}
            if any(map(_hung, tried.readings.values())):  # the others get a time in which one that works has long ended
                trial = msgspec.structs.replace(trial, deadline_s=min(trial.deadline_s, AFTER_A_HANG_S))  # noqa: PLW2901
            left += tried.left
    snapshot = Snapshot(
        made_by=f"warmspare {__version__}",
        made_at=datetime.now(UTC),
        redacted=False,
        readings=Readings({**_awaited(Readings(readings)), **readings}),
        transcript=transcript,
    )
    clean = redact(snapshot, identities(state.secret(state.folder())))
    return Survey(clean if redacted else snapshot, clean, tuple(left))


def glance(facts: Collection[type[Fact]], watcher: Watcher) -> Readings:
    """Only these facts, with nothing tried and nothing redacted."""
    watcher.reading()
    with LiveHost() as host:
        return Readings(collect(host, [probe for probe in catalogue.probes() if probe.fact in facts]))


def _given(trial: Trial, subject: str, readings: Readings, may: May) -> object:
    """What a trial is given about one subject; an Absent where that cannot be had, is in use, or is a risk."""
    given, reason = None, None
    if trial.given is not None:
        try:
            given = trial.given.of(readings, subject, may)
        except NotTried as absent:
            return Absent(cause=absent.cause, detail=absent.detail)
        # An engine that serves is itself at work on its GPUs.
        reason = in_the_way(readings, given, may) if getattr(given, "leaves_busy_ones_alone", True) else None
    if trial.restores:
        reason = reason or too_risky(readings, may)
    return Absent(cause=Cause.SKIPPED, detail=reason) if reason else given


def _of(trial: Trial, subject: str, reading: Reading[Any]) -> dict[Key, Reading[Any]]:
    """The same reading for every proof of a trial about one subject."""
    return {(fact_name(proof), subject): reading for proof in trial.proofs}


def _timed(trial: Trial, given: object) -> Trial:
    """The trial with the deadline of what it is given, if that has one."""
    return msgspec.structs.replace(trial, deadline_s=getattr(given, "deadline_s", trial.deadline_s))


def _hung(reading: Reading[Any]) -> bool:
    return isinstance(reading, Known) and isinstance(reading.value, Proof) and reading.value.outcome.kind == "hung"


def _awaited(readings: Readings) -> dict[Key, Reading[Any]]:
    """Proofs that no trial of this version yields, said so; of every pair of GPUs, both ways."""
    tried = {fact_name(proof) for trial in catalogue.trials() for proof in trial.proofs}
    yielded = {fact_name(p.fact) for p in catalogue.probes()} | tried
    absent = Absent(cause=Cause.UNASKED, detail=NO_TRIAL)
    return {
        (fact_name(fact), subject): absent
        for fact in catalogue.facts()
        if fact_name(fact) not in yielded
        for subject in fact.KIND.subjects(readings)
    }
