"""Suspend: a tree's CUDA processes are locked and checkpointed as one, and their GPU memory is free."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from warmspare.control import together
from warmspare.control.checkpointer import LOCK_S, State
from warmspare.control.target import Target, is_same
from warmspare.control.together import Limits, Took
from warmspare.runtime import cards as gpus
from warmspare.runtime import guards
from warmspare.runtime.aftermath import FAILURES, Failure, done, ended, judged, ran_again, words
from warmspare.runtime.cards import Card
from warmspare.runtime.guards import Mib, Seen
from warmspare.runtime.journal import Entry
from warmspare.runtime.looking import look
from warmspare.runtime.operations import Act, Busy, Operation, Outcome
from warmspare.runtime.outcomes import NotActed, Recovered, called
from warmspare.runtime.stopping import Stop, stoppable
from warmspare.runtime.unit import Tools, Unit, noted, written


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """`force`: go on against what only speaks against it. `lock_s`: how long running GPU work may take to end.

    `proven` is asked before anything is touched, with the UUIDs of the GPUs in use (none: not known); it raises
    NotActed where this machine has not shown that it can do this.
    """

    force: bool = False
    lock_s: float = LOCK_S
    proven: Callable[[tuple[str, ...]], None] = lambda _gpus: None

    @property
    def limits(self) -> Limits:
        """For the driver's calls."""
        return Limits(lock_s=self.lock_s)


def suspend(tools: Tools, pid: int, options: Options) -> str:
    """Suspend a process with all that it started; one line that says what was freed, and what undoes it.

    Raises:
        NotActed: a guard refused, or it failed.
        JournalFailed: nothing can be written down, so nothing was done.
    """
    before = tools.cards()
    seen = look(pid, tools.levers, before)
    if seen.cuda and set(seen.cuda.values()) == {"checkpointed"} and not seen.untold:
        return f"{called(seen.tree[0])} is suspended already; `warmspare resume {pid}` brings it back"
    refuse(guards.before_suspend(seen), options)
    options.proven(tuple(seen.by_gpu or ()))
    already = noted(tools.journal, [one for one in cuda_of(seen) if seen.cuda[one.pid] == "checkpointed"])
    vram = None if seen.vram is None else {**seen.vram, **(already or {})}
    with stoppable(tools.say) as stop, begun(tools, "suspend", seen, vram) as entry:
        took = freed(tools, entry, seen, options, stop)
        line = f"suspended {whom(seen)}: {told(before, tools.cards(), seen)} in {took.all_s:.2f} s"
        return done(entry, tools, f"{line}; `warmspare resume {pid}` brings it back", stop)


def freed(tools: Tools, entry: Entry, seen: Seen, options: Options, stop: Stop) -> Took:
    """Suspend what was seen, or bring all of it back.

    Raises:
        NotActed: it failed; the entry is ended.
    """
    members = cuda_of(seen)
    unit = Unit(tools, entry, members, stop)
    try:
        with unit.held():
            return together.suspend(tools.levers, unit.pids, unit, options.limits)
    except FAILURES as failure:
        raise ended(entry, unit, undone(unit, seen, failure), stop) from failure


def finish(operation: Operation, entry: Entry, tools: Tools) -> Recovered:
    """Clear up a suspend whose controller was killed: it counts as done if all are suspended, else it is undone."""
    members = tuple(one for one in operation.targets if one.pid in operation.cuda)
    unit = Unit(tools, entry, [one for one in members if is_same(one)])
    gone = [one for one in members if one not in unit.members]
    if unit.members and not gone and not unit.left(dict.fromkeys(unit.pids, "checkpointed")):
        how = "only the report of it was broken off"
        back = f"`warmspare resume {operation.pid}` brings it back"
        sentence = f"{called(operation.targets[0])} is suspended: {how}; {back}"
        return Recovered(operation=operation, outcome="done", sentence=sentence)
    touched = tuple(pid for pid in unit.pids if operation.touched(pid))
    ran_again(unit, touched, operation)
    well = Well("undone", "was brought back, and runs")
    return told_of(operation, unit, gone, dict.fromkeys(touched, "running"), well)


class Well(NamedTuple):
    """How an operation ended, and what is said of the tree's root, if all are in the states wanted."""

    outcome: Outcome
    words: str


def told_of(
    operation: Operation, unit: Unit, gone: Sequence[Target], wanted: Mapping[int, State], well: Well
) -> Recovered:
    """What became of an interrupted operation."""
    outcome: Outcome = "lost" if any(operation.was_under_way(one.pid) for one in gone) else well.outcome
    said = [f"{called(one)} has ended meanwhile" for one in gone]
    if unit.members:
        end, of_each = judged(unit, wanted)
        said.insert(0, of_each or f"{called(operation.targets[0])} {well.words}")
        outcome = "lost" if end == "lost" or outcome == "lost" else "stranded" if end else outcome
    return Recovered(operation=operation, outcome=outcome, sentence="; ".join(said))


def refuse(found: tuple[guards.Refusal, ...], options: Options) -> None:
    """Go no further if a guard speaks against it.

    Raises:
        NotActed: one does.
    """
    if standing := guards.standing(found, force=options.force):
        raise NotActed(standing.why, "refused")


def begun(tools: Tools, action: Act, seen: Seen, vram: Mapping[int, Mib] | None, **detail: str) -> Entry:
    """Write down what is about to be done, and how much GPU memory each process has or had.

    Raises:
        NotActed: another operation on one of these processes has no outcome yet.
        JournalFailed: it cannot be written.
    """
    try:
        return tools.journal.begin(action, seen.tree, sorted(seen.cuda), **written(vram), **detail)
    except Busy as busy:
        other = busy.other
        if busy.lives:
            why = f"another warmspare, process {other.controller}, is at work on it: {other.action} {other.pid}"
        else:
            why = f"a {other.action} of {other.pid} was interrupted just now; run the command again"
        raise NotActed(why, "refused") from busy


def cuda_of(seen: Seen) -> tuple[Target, ...]:
    """The processes of a tree that the driver is called for."""
    return tuple(one for one in seen.tree if one.pid in seen.cuda)


def told(before: tuple[Card, ...], after: tuple[Card, ...], seen: Seen) -> str:
    """What became free, as NVML tells it from outside."""
    then, now = gpus.free(before), gpus.free(after)
    if then is None or now is None:
        return "NVML does not tell how much was freed,"
    names = {card.uuid: card.subject for card in after}
    concerned = [gpu for gpu in then if gpu in now and gpu in (seen.by_gpu or then)]
    parts = [f"{mib} MiB of {names[gpu]}" for gpu in concerned if (mib := now[gpu] - then[gpu]) > 0]
    return f"{' and '.join(parts) or '0 MiB'} freed, by NVML,"


def undone(unit: Unit, seen: Seen, failure: Failure) -> NotActed:
    """Bring back what ran before a suspend that failed; how it ended."""
    why = words(failure)
    if not unit.touched:
        return NotActed(f"nothing was done: {why}", "refused")
    ran_again(unit, tuple(pid for pid in unit.pids if seen.cuda[pid] == "running"))
    end, said = judged(unit, seen.cuda)
    if end is None:
        return NotActed(f"not suspended, {whom(seen)} runs on: {why}", "undone")
    return NotActed(f"not suspended: {why}; {said}", end)


def whom(seen: Seen) -> str:
    """How a tree is named to the user."""
    others = f" with {len(seen.cuda)} CUDA processes" if len(seen.cuda) > 1 else ""
    return f"{called(seen.tree[0])}{others}"
