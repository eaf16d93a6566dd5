"""Sleep first: an engine drops its cache and moves its weights to the host itself, and the driver moves what is left.

Undone in reverse order: what the driver suspended is resumed, then the engine is woken. What was found asleep is left
asleep.
"""

from __future__ import annotations

import time
from typing import Final, NamedTuple

import msgspec

from warmspare.control import together
from warmspare.control.together import Limits
from warmspare.control.vllm import Engine, EngineFailed
from warmspare.runtime import cards as gpus
from warmspare.runtime import engines, guards, suspending
from warmspare.runtime.aftermath import FAILURES, done, ended, words
from warmspare.runtime.cards import Card
from warmspare.runtime.engines import Found
from warmspare.runtime.guards import Mib, Seen
from warmspare.runtime.journal import Entry
from warmspare.runtime.looking import look
from warmspare.runtime.operations import JournalFailed, Operation
from warmspare.runtime.outcomes import NotActed, Recovered, called
from warmspare.runtime.owed import AWAKE, FOUND, US, Owed, detail, held, owed
from warmspare.runtime.stopping import AskedToStop, Stop, stoppable
from warmspare.runtime.suspending import Options, begun, cuda_of, refuse, told, undone, whom
from warmspare.runtime.unit import Tools, Unit, state_of, written

SLEEPING: Final = "sleeping"
"""The stage of a suspend from which on its engine may sleep."""
LEAST: Final = 0.1
"""What part of its GPU memory a sleep must free at least: less is none."""


def suspend(tools: Tools, found: Found, options: Options) -> str:
    """Put an engine to sleep and suspend its processes; one line that says what was freed.

    `options.lock_s` is also how long its requests in flight may take to end.

    Raises:
        NotActed: a guard refused, or it failed.
        JournalFailed: nothing can be written down, so nothing was done.
    """
    url, engine, pid = found
    before = tools.cards()
    seen = look(pid, tools.levers, before)
    if seen.cuda and set(seen.cuda.values()) == {"checkpointed"} and not seen.untold:
        return f"{called(seen.tree[0])} is suspended already; `warmspare resume {pid}` brings it back"
    refuse(guards.before_sleep(seen), options)
    if seen.vram is None and gpus.free(before) is None and not options.force:
        why = "nobody tells how much GPU memory is free, so whether it slept could not be seen; --force goes on"
        raise NotActed(why, "refused")
    asleep = engines.is_asleep(engine, force=options.force)
    refuse(guards.before_suspend(seen) if asleep else (), options)
    options.proven(tuple(seen.by_gpu or ()))
    debt = owed(tools.journal, seen.tree) if asleep else None
    if asleep:
        notes = debt.detail if debt else detail(url, FOUND, None)
    else:
        notes = {**detail(url, US, _answers(engine)), **held(seen.by_gpu, None)}
    with stoppable(tools.say) as stop, begun(tools, "suspend", seen, seen.vram if asleep else None, **notes) as entry:
        act = _Act(tools, entry, _Was(engine, before, seen, asleep, debt is not None, options), stop)
        return done(entry, tools, act.whole(), stop)


class _Was(NamedTuple):
    """What was found, and how it is asked for; `is_owed`: it sleeps because this tool put it to sleep before."""

    engine: Engine
    cards: tuple[Card, ...]
    seen: Seen
    asleep: bool
    is_owed: bool
    options: Options


class _Act:
    """One suspend, once it is written down."""

    def __init__(self, tools: Tools, entry: Entry, was: _Was, stop: Stop) -> None:
        self._tools, self._entry, self._was, self._stop = tools, entry, was, stop
        self._unit = Unit(tools, entry, cuda_of(was.seen), stop)

    def whole(self) -> str:
        """Do it; the line to say.

        Raises:
            NotActed: it failed; the entry is ended.
        """
        began = time.monotonic()
        now = self._was.seen if self._was.asleep else self._asleep()
        asleep_s, slept = time.monotonic() - began, self._tools.cards()
        try:
            with self._unit.held():
                took = together.suspend(
                    self._tools.levers, self._unit.pids, self._unit, Limits(lock_s=self._was.options.lock_s)
                )
        except FAILURES as failure:
            bad = undone(self._unit, now, failure)
            raise self._ended(self._taken_back(words(failure), bad)) from failure
        self._note_rest(slept)
        freed = told(self._was.cards, self._tools.cards(), self._was.seen)
        root, pid = whom(self._was.seen), self._was.seen.pid
        if self._was.asleep:
            line = f"suspended {root}, whose engine slept already: {freed} in {took.all_s:.2f} s"
            how = " and wakes it" if self._was.is_owed else ", asleep as it was found"
            return f"{line}; `warmspare resume {pid}` brings it back{how}"
        line = f"put its engine to sleep and suspended {root}: {freed} in {asleep_s + took.all_s:.2f} s"
        line = f"{line} (asleep after {asleep_s:.2f}, the rest by the driver in {took.all_s:.2f})"
        return f"{line}; `warmspare resume {pid}` brings it back and wakes it"

    def _asleep(self) -> Seen:
        """Put it to sleep; what is left to be suspended."""
        try:
            self._entry.stage(SLEEPING)
            engines.drained(self._was.engine, self._was.options.lock_s, self._stop, self._tools.say)
            self._stop.check()
            engines.slept(self._was.engine)
            return self._left()
        except AskedToStop as failure:
            raise self._ended(self._taken_back(words(failure))) from failure
        except (NotActed, JournalFailed) as failure:
            raise self._ended(self._taken_back(str(failure))) from failure

    def _left(self) -> Seen:
        """What is left of it on the GPUs, seen by NVML.

        Raises:
            NotActed: it is as much as before, or something speaks against suspending it.
            JournalFailed: it cannot be written down.
        """
        before, shown = self._was, self._tools.cards()
        now = look(before.seen.pid, self._tools.levers, shown)
        if set(now.cuda) != set(before.seen.cuda):
            why = "its processes changed while it was put to sleep"
            raise NotActed(why, "undone")
        fell = _fell(before, now, shown)
        if fell is not None and sum(fell.mib.values()) < LEAST * fell.of_mib:
            why = f"it says that it sleeps, and by NVML {sum(fell.mib.values())} of {fell.of_mib} MiB were freed"
            why = f"{why}: was it started with --enable-sleep-mode?"
            raise NotActed(why, "undone")
        of_each = held(before.seen.by_gpu, now.by_gpu)
        self._entry.note(**written(now.vram), **(of_each if AWAKE in of_each else held(fell and fell.mib, {})))
        refuse(guards.before_suspend(now), self._was.options)
        return now

    def _taken_back(self, why: str, bad: NotActed | None = None) -> NotActed:
        """Wake it, where all of it runs and this tool put it to sleep; how it ended."""
        root = whom(self._was.seen)
        if self._was.asleep:
            return bad or NotActed(f"not suspended: {why}", "undone")
        if bad and (bad.is_harm or not _all_run(self._unit)):
            return NotActed(f"{bad}; its engine is left asleep", bad.end)
        try:
            woken = engines.woken(self._was.engine)
        except engines.NotServing as failure:
            return NotActed(f"not suspended, and {root} is stranded: {why}; {failure}", "stranded")
        serves = "its engine serves on" if woken.answer.tokens else f"its engine is awake ({woken.answer.why})"
        return NotActed(f"not suspended, {root} runs and {serves}: {why}", "undone")

    def _ended(self, failure: NotActed) -> NotActed:
        return ended(self._entry, self._unit, failure, self._stop)

    def _note_rest(self, slept: tuple[Card, ...]) -> None:
        """Where NVML does not tell what each process held, what became free is what it will need."""
        first, rest = _freed(self._was.cards, slept), _freed(slept, self._tools.cards())
        if self._was.asleep or self._was.seen.by_gpu is not None or first is None or rest is None:
            return
        awake = {gpu: first.get(gpu, 0) + rest.get(gpu, 0) for gpu in {*first, *rest}}
        try:
            self._entry.note(**held(awake, rest))
        except JournalFailed as failed:
            self._tools.say(str(failed))


class _Fell(NamedTuple):
    """What a sleep freed by GPU, and of how much in all."""

    mib: Mib
    of_mib: int


def _fell(was: _Was, now: Seen, shown: tuple[Card, ...]) -> _Fell | None:
    """By each process's own memory, else by what became free; None where nobody tells either."""
    awake, asleep = was.seen.by_gpu, now.by_gpu
    if awake is not None and asleep is not None:
        return _Fell({gpu: max(0, mib - asleep.get(gpu, 0)) for gpu, mib in awake.items()}, sum(awake.values()))
    freed = _freed(was.cards, shown)
    if freed is None:
        return None
    used = gpus.in_use_mib([card for card in was.cards if card.uuid in freed] or was.cards)
    return _Fell(freed, used or 1)


def _freed(then: tuple[Card, ...], now: tuple[Card, ...]) -> Mib | None:
    """What became free, by GPU."""
    before, after = gpus.free(then), gpus.free(now)
    if before is None or after is None:
        return None
    return {gpu: mib for gpu in before if (mib := after.get(gpu, 0) - before[gpu]) > 0}


def _answers(engine: Engine) -> tuple[int, ...] | None:
    """What it answers before it sleeps.

    Raises:
        NotActed: it does not.
    """
    try:
        given = engines.answer(engine)
    except EngineFailed as failed:
        why = f"the engine does not serve ({failed}), so whether it comes back could not be seen"
        raise NotActed(why, "refused") from failed
    if given.tokens is None:
        raise NotActed(given.why, "refused")
    return given.tokens


def _all_run(unit: Unit) -> bool:
    return all(state_of(unit.tools.levers, pid) == "running" for pid in unit.pids)


def finish(operation: Operation, entry: Entry, tools: Tools) -> Recovered:
    """Clear up a suspend whose controller was killed: where its processes run again, the engine is woken."""
    found = suspending.finish(operation, entry, tools)
    engine = Owed.by(operation)
    if engine is None or operation.stage != SLEEPING or found.outcome != "undone":
        return found
    return woken_late(found, engine, tools)


def woken_late(found: Recovered, engine: Owed, tools: Tools) -> Recovered:
    """Wake the engine of an interrupted operation, whose processes run; where there is no room it is left asleep."""
    try:
        client = engines.again(engine.url, engine.pid)
        against = engine.against(tools.cards(), engine.cuda) if engines.sleeps(client) else ()
        if standing := guards.standing(against, force=True):
            why = f"its engine still sleeps: {standing.why}; `warmspare resume {engine.pid}` tries again"
            return msgspec.structs.replace(found, outcome="stranded", sentence=f"{found.sentence}; {why}")
        woken = engines.woken(client)
    except engines.NotServing as failure:
        return msgspec.structs.replace(found, outcome="stranded", sentence=f"{found.sentence}; {failure}")
    how = "serves again" if woken.answer.tokens else f"is awake ({woken.answer.why})"
    return msgspec.structs.replace(found, sentence=f"{found.sentence}; its engine was woken and {how}")
