"""Run a trial from the tool's side: start its keeper, follow its steps, turn what happened into a reading."""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

import warmspare
from warmspare.control import process
from warmspare.model.facts import Absent, Cause, Known, Outcome, Proof, Reading, Standing, fact_name
from warmspare.trials import awaken, child, gentle, leftover
from warmspare.trials.api import AbsentEvent, EndEvent, Event, PartEvent, ProofEvent, StepEvent, Trial

_START: Final = (
    "import sys; order, held, told, root = sys.argv[1:]; sys.path.append(root); import msgspec;"
    " from warmspare.trials import child;"
    " child.keep(msgspec.json.decode(order, type=child.Order), int(held), int(told))"
)
GRACE_S: Final = 5.0
"""What a keeper may take beyond the trial's deadline and the time that ending its processes takes."""


class Run(msgspec.Struct, frozen=True):
    """A trial's readings by the names of its proofs, and what could not be cleared away after it."""

    readings: dict[str, Reading[Proof]]
    left: tuple[str, ...] = ()

    @property
    def reading(self) -> Reading[Proof]:
        """The one reading of a trial without parts; else that of its first part."""
        return next(iter(self.readings.values()))


def run(trial: Trial, progress: Callable[[StepEvent], None], given: object = None) -> Run:
    """Run one trial, on what it is given, to its end.

    An exception here (Ctrl-C) cancels it and waits until all is cleared away. What could not be cleared away then is
    a note on that exception.
    """
    token = secrets.token_hex(8)
    order = child.Order(place=trial.place, deadline_s=trial.deadline_s, token=token, given=given)
    story = _Story(trial)
    try:
        with _keeper(order, story, progress) as reports:
            for event in reports.events(trial.deadline_s + _ending_s(trial)):
                story.add(event)
                if isinstance(event, StepEvent):
                    progress(event)
    except BaseException as stop:
        for thing in _left(story, token, progress):
            stop.add_note(thing)
        raise
    return Run(story.readings(), _left(story, token, progress))


def _left(story: _Story, token: str, progress: Callable[[StepEvent], None]) -> tuple[str, ...]:
    """What is left by the keeper's word; if it gave none, it was killed and could clear nothing away."""
    return story.end.left if story.end else tuple(leftover.clear(token, lambda: progress(awaken.WAKING)))


def _ending_s(trial: Trial) -> float:
    """What a keeper may take from the trial's end to its own."""
    return GRACE_S + process.KILL_GRACE_S + (process.KILL_GRACE_S + gentle.LIMIT_S if trial.restores else 0.0)


@contextlib.contextmanager
def _keeper(order: child.Order, story: _Story, progress: Callable[[StepEvent], None]) -> Iterator[_Reports]:
    held, lifeline = os.pipe()
    told, tell = os.pipe()
    root = str(Path(warmspare.__file__).parent.parent)
    arguments = (msgspec.json.encode(order).decode(), str(held), str(tell), root)
    keeper = subprocess.Popen(
        [sys.executable, "-P", "-c", _START, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=(held, tell),
        start_new_session=True,
        env={**os.environ, process.TAG: order.token},
    )
    os.close(held)
    os.close(tell)
    reports = _Reports(told)
    try:
        yield reports
    finally:
        os.close(lifeline)
        # A keeper that is cancelled still says how it ended; one that nobody reads could not end at all.
        with contextlib.suppress(msgspec.MsgspecError):
            for event in reports.events(_ending_s(story.trial)):
                story.add(event)
                if event == awaken.WAKING:
                    progress(awaken.WAKING)
        try:
            keeper.wait(1 + GRACE_S)
        except subprocess.TimeoutExpired:
            keeper.kill()
            story.end = None
            with contextlib.suppress(subprocess.TimeoutExpired):
                keeper.wait(1)
        os.close(told)


class _Reports:
    """What the keeper tells; reading may be broken off at any event, and gone on with."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._rest = b""
        self._no_sooner = -math.inf

    def events(self, seconds: float) -> Iterator[Event]:
        """Until the end; after so many seconds, or what the keeper says that it takes, it is not waited for."""
        decoder, deadline = msgspec.json.Decoder(Event), time.monotonic() + seconds
        while True:
            line, whole, rest = self._rest.partition(b"\n")
            if whole:
                self._rest = rest
                event = decoder.decode(line)
                if event == awaken.WAKING:
                    self._no_sooner = time.monotonic() + awaken.WAKE_S + GRACE_S
                yield event
            elif process.ready([self._descriptor], max(deadline, self._no_sooner) - time.monotonic()) and (
                data := os.read(self._descriptor, 65_536)
            ):
                self._rest += data
            else:
                return


class _Story:
    """What a trial told, in order."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.step: StepEvent | None = None
        self.end: EndEvent | None = None
        self._told: dict[str, tuple[Proof | Absent, datetime]] = {}
        self._proofs = {fact_name(proof): proof for proof in trial.proofs}
        self._part = next(iter(self._proofs)) if len(self._proofs) == 1 else None
        self._all: Absent | None = None

    def add(self, event: Event) -> None:
        match event:
            case StepEvent(lever=lever):
                # Once a lever was pulled, what happens between two steps is still its consequence.
                if lever or not (self.step and self.step.lever):
                    self.step = event
            case PartEvent(fact=fact) if fact in self._proofs:
                self._part, self.step = fact, None
            case ProofEvent(proof=proof) if self._part:
                told: Proof | Absent
                try:
                    told = msgspec.convert(proof, self._proofs[self._part])
                except msgspec.ValidationError as error:
                    told = Absent(cause=Cause.INVALID, detail=f"not a proof: {error}")
                self._tells(self._part, told)
            case AbsentEvent(cause=cause, detail=detail, fact=fact):
                absent = Absent(cause=cause, detail=detail)
                name = fact or (self._part if len(self._proofs) == 1 else None)
                if name is None:
                    self._all = absent
                elif name in self._proofs:
                    self._tells(name, absent)
            case EndEvent():
                self.end = event

    def _tells(self, name: str, told: Proof | Absent) -> None:
        """What a part came to; what follows is about no part, until the next one begins."""
        self._told[name] = told, datetime.now(UTC)
        if len(self._proofs) > 1:
            self._part, self.step = None, None

    def readings(self) -> dict[str, Reading[Proof]]:
        """Every proof's reading, by its name."""
        return {name: self._reading(name, proof) for name, proof in self._proofs.items()}

    def _reading(self, name: str, proof: type[Proof]) -> Reading[Proof]:
        told, at = self._told.get(name, (None, datetime.now(UTC)))
        if told is not None:
            return Known(value=told, standing=Standing.TRIED, at=at) if isinstance(told, Proof) else told
        if name != self._part and self._all is not None:
            return self._all
        how = self._how()
        if isinstance(how, Absent):
            return how if name == self._part else _not_reached(how)
        outcome, cause = how
        if name == self._part and self.step and self.step.lever:
            return Known(value=proof(outcome=outcome), standing=Standing.TRIED, at=at)
        absent = Absent(cause=cause, detail=f"{outcome.kind} at {outcome.step}, before any lever was pulled")
        return absent if name == self._part else _not_reached(Absent(cause=cause, detail=f"{outcome.kind} before"))

    def _how(self) -> Absent | tuple[Outcome, Cause]:
        """How it ended where nothing was told: a hang or a death, or an end from outside."""
        step = self.step.name if self.step else "the start"
        match self.end:
            case None:
                return Absent(cause=Cause.CRASHED, detail=f"the keeper of the trial died at {step}")
            case EndEvent(how="cancelled"):
                return Absent(cause=Cause.SKIPPED, detail=f"cancelled at {step}")
            case EndEvent(how="deadline"):
                detail = f"no end within {self.trial.deadline_s:g} s"
                return Outcome(kind="hung", step=step, detail=detail), Cause.TIMEOUT
            case EndEvent(how=how, code=code):
                return Outcome(kind="died", step=step, code=f"{how} {code}"), Cause.CRASHED


def _not_reached(why: Absent) -> Absent:
    return msgspec.structs.replace(why, detail=f"not reached: {why.detail}")
