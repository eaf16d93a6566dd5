"""Run a trial from the tool's side: start its keeper, follow its steps, turn what happened into a reading."""

from __future__ import annotations

import contextlib
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
from warmspare.model.facts import Absent, Cause, Known, Outcome, Proof, Reading, Standing
from warmspare.trials import child, gentle, leftover
from warmspare.trials.api import AbsentEvent, EndEvent, Event, ProofEvent, StepEvent, Trial

_START: Final = (
    "import sys; order, held, told, root = sys.argv[1:]; sys.path.append(root); import msgspec;"
    " from warmspare.trials import child;"
    " child.keep(msgspec.json.decode(order, type=child.Order), int(held), int(told))"
)
GRACE_S: Final = 5.0
"""What a keeper may take beyond the trial's deadline and the time that ending its processes takes."""


class Run(msgspec.Struct, frozen=True):
    """A trial's reading, and what could not be cleared away after it."""

    reading: Reading[Proof]
    left: tuple[str, ...] = ()


def run(trial: Trial, progress: Callable[[StepEvent], None], given: object = None) -> Run:
    """Run one trial, on what it is given, to its end.

    An exception here (Ctrl-C) cancels it and waits until all is cleared away. What could not be cleared away then is
    a note on that exception.
    """
    token = secrets.token_hex(8)
    order = child.Order(place=trial.place, deadline_s=trial.deadline_s, token=token, given=given)
    story = _Story(trial)
    try:
        with _keeper(order, story) as reports:
            for event in reports.events(trial.deadline_s + _ending_s(trial)):
                story.add(event)
                if isinstance(event, StepEvent):
                    progress(event)
    except BaseException as stop:
        for thing in _left(story, token):
            stop.add_note(thing)
        raise
    return Run(story.reading(), _left(story, token))


def _left(story: _Story, token: str) -> tuple[str, ...]:
    """What is left by the keeper's word; if it gave none, it was killed and could clear nothing away."""
    return story.end.left if story.end else tuple(leftover.clear(token))


def _ending_s(trial: Trial) -> float:
    """What a keeper may take from the trial's end to its own."""
    return GRACE_S + process.KILL_GRACE_S + (process.KILL_GRACE_S + gentle.LIMIT_S if trial.restores else 0.0)


@contextlib.contextmanager
def _keeper(order: child.Order, story: _Story) -> Iterator[_Reports]:
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

    def events(self, seconds: float) -> Iterator[Event]:
        decoder, deadline = msgspec.json.Decoder(Event), time.monotonic() + seconds
        while True:
            line, whole, rest = self._rest.partition(b"\n")
            if whole:
                self._rest = rest
                yield decoder.decode(line)
            elif process.ready([self._descriptor], deadline - time.monotonic()) and (
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
        self.result: Proof | Absent | None = None
        self.end: EndEvent | None = None

    def add(self, event: Event) -> None:
        match event:
            case StepEvent(lever=lever):
                # Once a lever was pulled, what happens between two steps is still its consequence.
                if lever or not (self.step and self.step.lever):
                    self.step = event
            case ProofEvent(proof=proof):
                try:
                    self.result = msgspec.convert(proof, self.trial.proof)
                except msgspec.ValidationError as error:
                    self.result = Absent(cause=Cause.INVALID, detail=f"not a proof: {error}")
            case AbsentEvent(cause=cause, detail=detail):
                self.result = Absent(cause=cause, detail=detail)
            case EndEvent():
                self.end = event

    def reading(self) -> Reading[Proof]:
        """The reading: a lever that hung or killed the child is an outcome; before any lever, an absence."""
        if isinstance(self.result, Proof):
            return self._known(self.result)
        step = self.step.name if self.step else "the start"
        lever = bool(self.step and self.step.lever)
        if isinstance(self.result, Absent):
            return self.result
        match self.end:
            case None:
                return Absent(cause=Cause.CRASHED, detail=f"the keeper of the trial died at {step}")
            case EndEvent(how="cancelled"):
                return Absent(cause=Cause.SKIPPED, detail=f"cancelled at {step}")
            case EndEvent(how="deadline"):
                outcome = Outcome(kind="hung", step=step, detail=f"no end within {self.trial.deadline_s:g} s")
                cause = Cause.TIMEOUT
            case EndEvent(how=how, code=code):
                outcome = Outcome(kind="died", step=step, code=f"{how} {code}")
                cause = Cause.CRASHED
        if lever:
            return self._known(self.trial.proof(outcome=outcome))
        return Absent(cause=cause, detail=f"{outcome.kind} at {step}, before any lever was pulled")

    def _known(self, proof: Proof) -> Known[Proof]:
        return Known(value=proof, standing=Standing.TRIED, at=datetime.now(UTC))
