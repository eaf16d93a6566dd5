"""Resume of an engine that was put to sleep first: its processes by the driver, then it is woken, until it serves.

A wake that was tried and failed is not tried again: the engine is named as stranded. Before it is tried, what it will
take must be free.
"""

from __future__ import annotations

import time
from typing import Final, NamedTuple

from warmspare.control import together
from warmspare.control.vllm import Engine, EngineFailed
from warmspare.runtime import cards as gpus
from warmspare.runtime import engines, guards, resuming
from warmspare.runtime.aftermath import FAILURES, done, ended, judged, words
from warmspare.runtime.engines import Found, NotServing, Woken
from warmspare.runtime.guards import Seen
from warmspare.runtime.journal import Entry
from warmspare.runtime.looking import look
from warmspare.runtime.operations import JournalFailed, Operation
from warmspare.runtime.outcomes import NotActed, Recovered, called
from warmspare.runtime.owed import Owed, owed
from warmspare.runtime.sleeping_first import woken_late
from warmspare.runtime.stopping import AskedToStop, Stop, stoppable
from warmspare.runtime.suspending import Options, begun, cuda_of, refuse
from warmspare.runtime.unit import Tools, Unit, bring_back, noted, state_of, summed

WAKING: Final = "waking"
"""The stage of a resume from which on all its processes run, and its engine is woken."""


def resume(tools: Tools, pid: int, options: Options, found: Found | None = None) -> str:
    """Resume a process with all that it started; an engine that was put to sleep for it is woken.

    `found`: where it is to be reached, if that was named; else where it was when it was put to sleep.

    Raises:
        NotActed: a guard refused, or it failed.
        JournalFailed: nothing can be written down, so nothing was done.
    """
    shown = tools.cards()
    seen = look(pid, tools.levers, shown)
    debt = owed(tools.journal, seen.tree)
    if debt is None:
        line = resuming.resume(tools, pid, options)
        return line if found is None else f"{line}; {_condition(found.engine)}"
    if debt.pid != pid:  # all of it or none
        seen = look(debt.pid, tools.levers, shown)
    held = noted(tools.journal, [one for one in cuda_of(seen) if seen.cuda[one.pid] == "checkpointed"])
    needed = summed(held)
    refuse(guards.before_resume(seen, needed, gpus.free(shown)), options)
    running = [pid for pid in seen.cuda if seen.cuda[pid] != "checkpointed"]
    client = found.engine if found else _again(debt)
    if len(running) < len(seen.cuda) or _sleeps(client, seen):
        refuse(debt.against(shown, running), options)
    with stoppable(tools.say) as stop, begun(tools, "resume", seen, held, **debt.detail) as entry:
        given = _Given(seen, debt, client, options)
        return done(entry, tools, _Act(tools, entry, given, stop).whole(needed), stop)


class _Given(NamedTuple):
    """What was found, what is owed, and how it is asked for."""

    seen: Seen
    debt: Owed
    engine: Engine
    options: Options


class _Act:
    """One resume, once it is written down."""

    def __init__(self, tools: Tools, entry: Entry, given: _Given, stop: Stop) -> None:
        self._tools, self._entry, self._given, self._stop = tools, entry, given, stop
        self._unit = Unit(tools, entry, cuda_of(given.seen), stop)

    def whole(self, needed: guards.Mib | None) -> str:
        """Do it; the line to say.

        Raises:
            NotActed: it failed; the entry is ended.
        """
        driver_s = self._by_the_driver(needed)
        self._may_wake()
        began = time.monotonic()
        try:
            woken = engines.woken(self._given.engine)
        except NotServing as failure:
            why = f"resumed {self._root}, and it is stranded: {failure}"
            raise self._ended(NotActed(why, "stranded")) from failure
        all_s = driver_s + time.monotonic() - began
        line = f"resumed {self._root} and woke its engine: {self._held()} and {serves(woken, self._given.debt)}"
        parts = f"by the driver {driver_s:.2f}, awake {woken.wake_s:.2f}, its answer {woken.answer.took_s:.2f}"
        again = f"`warmspare suspend --engine {self._given.debt.url}` suspends it again"
        return f"{line} after {all_s:.2f} s ({parts}); {again}"

    @property
    def _root(self) -> str:
        return called(self._given.seen.tree[0])

    def _held(self) -> str:
        """What its processes hold now, as NVML shows it."""
        held = gpus.vram(self._tools.cards(), self._unit.pids)
        mib = sum(sum(one.values()) for one in (held or {}).values())
        return f"it holds {mib} MiB of GPU memory again" if mib else "it is awake"

    def _by_the_driver(self, needed: guards.Mib | None) -> float:
        if set(self._given.seen.cuda.values()) == {"running"}:
            return 0.0
        try:
            with self._unit.held():
                wanted = None if self._given.options.force else needed
                return bring_back(self._unit, self._unit.pids, wanted).all_s
        except NotActed as failure:
            raise self._ended(failure) from failure
        except FAILURES as failure:
            raise self._ended(resuming.not_resumed(self._unit, self._given.seen.cuda, failure)) from failure

    def _may_wake(self) -> None:
        """The last look before the wake.

        Raises:
            NotActed: it is not tried, and all are as they were; the entry is ended.
        """
        try:
            self._stop.check()
            if engines.sleeps(self._given.engine):
                refuse(self._given.debt.against(self._tools.cards(), self._unit.pids), self._given.options)
            self._entry.stage(WAKING)
        except AskedToStop as failure:
            raise self._ended(self._suspended_again(words(failure))) from failure
        except (NotActed, JournalFailed) as failure:
            raise self._ended(self._suspended_again(str(failure))) from failure
        except NotServing as failure:
            why = f"resumed {self._root}, and it is stranded: {failure}"
            raise self._ended(NotActed(why, "stranded")) from failure

    def _suspended_again(self, why: str) -> NotActed:
        """Bring those back to where they were that were resumed."""
        unit, found = self._unit, self._given.seen.cuda
        unit.turn_back()
        try:
            together.suspend(
                unit.tools.levers,
                [pid for pid in unit.pids if found[pid] == "checkpointed"],
                unit,
                self._given.options.limits,
            )
        except FAILURES as failure:
            unit.problem = words(failure)
        end, said = judged(unit, found)
        if end is None:
            return NotActed(f"not resumed, all are as they were: {why}", "undone")
        return NotActed(f"not resumed: {why}; {said}; its engine is left asleep", end)

    def _ended(self, failure: NotActed) -> NotActed:
        return ended(self._entry, self._unit, failure, self._stop)


def finish(operation: Operation, entry: Entry, tools: Tools) -> Recovered:
    """Clear up a resume whose controller was killed: it is finished, and the engine woken, if there is room."""
    engine = Owed.by(operation)
    if operation.stage != WAKING:
        found = resuming.finish(operation, entry, tools)
        return woken_late(found, engine, tools) if engine and found.outcome == "done" else found
    running = all(state_of(tools.levers, pid) == "running" for pid in operation.cuda)
    found = Recovered(operation=operation, outcome="done", sentence=f"{called(operation.targets[0])} runs")
    if engine is None or not running:
        ends = f"{called(operation.targets[0])} does not run as a whole any more; its engine is left asleep"
        return Recovered(operation=operation, outcome="stranded", sentence=ends)
    return woken_late(found, engine, tools)


def serves(woken: Woken, debt: Owed) -> str:
    """What is said of an engine that was woken."""
    tokens = woken.answer.tokens
    if tokens is None:
        return f"it says that it is awake ({woken.answer.why})"
    if debt.tokens is None:
        return "it serves"
    if tokens == debt.tokens:
        return "it serves, with the same token as before,"
    return f"it serves, but answers {tokens} where it answered {debt.tokens} before: restart it if that is no chance,"


def _again(debt: Owed) -> Engine:
    """Where it was reached when it was put to sleep.

    Raises:
        NotActed: it cannot be asked; nothing was touched.
    """
    try:
        return engines.again(debt.url, debt.pid)
    except NotServing as failure:
        raise NotActed(str(failure), "refused") from failure


def _sleeps(engine: Engine, seen: Seen) -> bool:
    """Whether an engine whose processes all run still sleeps.

    Raises:
        NotActed: it does not answer.
    """
    try:
        return engines.sleeps(engine)
    except NotServing as failure:
        why = f"{called(seen.tree[0])} is stranded: {failure}"
        raise NotActed(why, "stranded") from failure


def _condition(engine: Engine) -> str:
    """How an engine is that is left as it was found."""
    try:
        if engine.is_sleeping():
            return "its engine sleeps, as it was found; nothing of ours put it to sleep, so it is not woken"
        given = engines.answer(engine)
    except EngineFailed as failed:
        return f"its engine does not answer as it should: {failed}"
    return "its engine serves" if given.tokens else f"its engine is awake ({given.why})"
