"""What is left of a unit when an act did not go through: how it ended, and every process that needs a hand, named."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from warmspare.control import together
from warmspare.control.checkpointer import CheckpointFailed, State
from warmspare.control.target import Target, target
from warmspare.runtime import cards as gpus
from warmspare.runtime.guards import Mib
from warmspare.runtime.journal import Entry
from warmspare.runtime.looking import still
from warmspare.runtime.operations import JournalFailed, Operation
from warmspare.runtime.outcomes import End, NotActed, called, reason
from warmspare.runtime.stopping import AskedToStop, Stop
from warmspare.runtime.unit import Gone, Tools, Unit, bring_back, has_room, noted_in, state_of, summed

Failure = together.NotDone | AskedToStop | Gone | JournalFailed | CheckpointFailed
FAILURES = (together.NotDone, AskedToStop, Gone, JournalFailed, CheckpointFailed)
"""All that can break off an act once it is journalled."""


def words(failure: Failure) -> str:
    """Why an act was broken off."""
    if isinstance(failure, together.NotDone):
        return reason(failure.failure)
    if isinstance(failure, CheckpointFailed):
        return reason(failure)
    return f"stopped by {failure}" if isinstance(failure, AskedToStop) else str(failure)


def judged(unit: Unit, wanted: Mapping[int, State]) -> tuple[End | None, str]:
    """The worst that became of them, None if all are in the states wanted; and a sentence about each that is not."""
    left = unit.left(wanted)
    said = [_said(one, left[one.pid]) for one in unit.members if one.pid in left]
    if not left:
        return None, ""
    lost = any(state in ("gone", "failed") for state in left.values())
    return ("lost" if lost else "stranded"), "; ".join(said)


def ended(entry: Entry, unit: Unit, failure: NotActed, stop: Stop) -> NotActed:
    """Write down how it ended; what could not be written is said besides."""
    told = str(failure)
    try:
        entry.end("failed" if failure.end == "refused" else failure.end, told)
    except JournalFailed as problem:
        unit.problem = unit.problem or str(problem)
    if unit.problem:
        failure = NotActed(f"{told}; {unit.problem}", failure.end)
    if stop.number is not None and not failure.is_harm:  # the signal is passed on, and would hide it
        unit.tools.say(str(failure))
    return failure


def done(entry: Entry, tools: Tools, line: str, stop: Stop) -> str:
    """Write down that it was done: it was, also where that cannot be written."""
    try:
        entry.end("done", line)
    except JournalFailed as problem:
        tools.say(str(problem))
    if stop.number is not None:  # asked when there was nothing left to stop
        tools.say(line)
    return line


def ran_again(unit: Unit, pids: tuple[int, ...], broken_off: Operation | None = None) -> None:
    """Bring those back that run no longer; what fails shows in their states.

    After an operation that was `broken_off`, what it had freed may have become another's since: where it is not known
    to be free, they are left as they are, since a restore with too little may strand them for good.
    """
    unit.turn_back()
    able = [pid for pid in pids if (one := target(pid)) and not still(one)]
    needed: Mib | None = None
    if broken_off and (waiting := [pid for pid in able if state_of(unit.tools.levers, pid) == "checkpointed"]):
        needed = summed(noted_in(broken_off, waiting))
        if not has_room(needed, gpus.free(unit.tools.cards())):
            return
    with contextlib.suppress(NotActed, *FAILURES):
        bring_back(unit, able, needed)


def _said(one: Target, state: str) -> str:
    if state == "gone":
        return f"{called(one)} has ended"
    if state == "failed":
        return f"{called(one)} is lost: the driver says FAILED, and nothing brings it back"
    if state == "running":
        return f"{called(one)} runs again, and the others do not; `warmspare suspend {one.pid}` frees its memory again"
    now = target(one.pid)
    if state == "silent":
        why = still(now) if now else None
        return f"{called(one)} {why or 'does not answer the driver'}; then `warmspare resume {one.pid}`"
    return f"{called(one)} is left {state}; `warmspare resume {one.pid}` tries to bring it back"
