"""Move: suspended on one GPU, restored on another of the same kind.

The driver takes a map that names every GPU that it shows: the two change places in it, and each other stays.
Source: cuda.h, CUcheckpointRestoreArgs; our own runs on two H200.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final, NamedTuple

from warmspare.control import together
from warmspare.control.checkpointer import State
from warmspare.control.target import is_same
from warmspare.runtime import cards as gpus
from warmspare.runtime import guards, suspending
from warmspare.runtime.aftermath import FAILURES, Failure, done, ended, judged, words
from warmspare.runtime.cards import Card
from warmspare.runtime.guards import Mib, Refusal, Seen
from warmspare.runtime.journal import Entry
from warmspare.runtime.looking import look
from warmspare.runtime.operations import Operation
from warmspare.runtime.outcomes import NotActed, Recovered, called
from warmspare.runtime.owed import owed
from warmspare.runtime.resuming import suspended_again
from warmspare.runtime.stopping import Stop, stoppable
from warmspare.runtime.suspending import Options, Well, begun, cuda_of, freed, refuse, told_of
from warmspare.runtime.unit import Tools, Unit, bring_back, has_room, noted, noted_in, state_of, summed

GPUS: Final = "gpus"
"""The detail of an operation that says which GPU takes which one's place: {uuid: uuid}."""
RAN: Final = "ran"
"""The detail that says whether it ran before."""
SUSPENDED: Final = "suspended"
"""The stage of a move after which it is finished rather than undone."""


class _Plan(NamedTuple):
    """A move: what was seen, what each GPU must give by its old UUID, and which takes which one's place."""

    seen: Seen
    needed: Mib
    pairs: Mapping[str, str]

    @property
    def ran(self) -> bool:
        """Whether it ran before."""
        return set(self.seen.cuda.values()) != {"checkpointed"}


def move(tools: Tools, pid: int, to: str, options: Options) -> str:
    """Move a process with all that it started to another GPU; a suspended one is resumed there.

    Raises:
        NotActed: a guard refused, or it failed.
        JournalFailed: nothing can be written down, so nothing was done.
    """
    shown = tools.cards()
    seen = look(pid, tools.levers, shown)
    suspended = bool(seen.cuda) and set(seen.cuda.values()) == {"checkpointed"}
    refuse(guards.before_any(seen) if suspended else guards.before_suspend(seen), options)
    if owed(tools.journal, seen.tree):
        why = f"its engine was put to sleep first; `warmspare resume {pid}` wakes it, and awake it can be moved"
        raise NotActed(why, "refused")
    vram = noted(tools.journal, cuda_of(seen)) if suspended else seen.vram
    old, new = _ways(shown, summed(vram), to)
    if old.uuid == new.uuid:
        return f"{called(seen.tree[0])} {'was' if suspended else 'is'} on {new.subject} already"
    plan = _Plan(
        seen,
        summed(vram) or {},
        {card.uuid: card.uuid for card in shown} | {old.uuid: new.uuid, new.uuid: old.uuid},
    )
    refuse(tuple(_against(old, new, plan.needed)), options)
    options.proven((old.uuid, new.uuid))
    detail = {GPUS: json.dumps(plan.pairs), RAN: str(plan.ran)}
    with stoppable(tools.say) as stop, begun(tools, "move", seen, vram, **detail) as entry:
        down_s = freed(tools, entry, seen, options, stop).all_s
        up_s = _brought(tools, entry, plan, stop)
        line = f"moved {called(seen.tree[0])} from {old.subject} to {new.subject} in {down_s + up_s:.2f} s"
        line = f"{line} (down {down_s:.2f}, up {up_s:.2f}); `warmspare move {pid} --to {old.uuid}` moves it back"
        return done(entry, tools, line, stop)


def finish(operation: Operation, entry: Entry, tools: Tools) -> Recovered:
    """Clear up a move whose controller was killed: undone while it was being suspended, after that finished.

    Where it cannot be finished it is brought back to where it was, as it was.
    """
    members = [one for one in operation.targets if one.pid in operation.cuda]
    unit = Unit(tools, entry, [one for one in members if is_same(one)])
    gone = [one for one in members if one not in unit.members]
    ran = operation.detail.get(RAN) == str(True)
    all_down = bool(unit.members) and not gone and not unit.left(dict.fromkeys(unit.pids, "checkpointed"))
    if operation.stage != SUSPENDED and not (all_down and ran):
        if all_down:
            return told_of(operation, unit, gone, {}, Well("undone", "is as it was: nothing had been done to it"))
        return suspending.finish(operation, entry, tools)
    pairs = json.loads(operation.detail[GPUS])
    waiting = [one.pid for one in unit.members if state_of(tools.levers, one.pid) == "checkpointed"]
    needed, free = summed(noted_in(operation, waiting)), gpus.free(tools.cards())
    on_new = {pairs.get(gpu, gpu): mib for gpu, mib in (needed or {}).items()}
    why, (wanted, well) = "", _MOVED
    if waiting and not has_room(on_new, free):
        why = ": there is no longer room on the other GPU"
    else:
        try:
            bring_back(unit, unit.pids, needed, pairs)
        except (NotActed, *FAILURES) as failure:
            why = f": {_words(failure)}"
    if why:
        _home(unit, needed, ran=ran)
        wanted, well = _HOME if ran else _STILL
    found = told_of(operation, unit, gone, dict.fromkeys(unit.pids, wanted), well)
    return Recovered(operation=operation, outcome=found.outcome, sentence=f"{found.sentence}{why}")


def _ways(shown: tuple[Card, ...], held: Mib | None, to: str) -> tuple[Card, Card]:
    new = gpus.named(shown, to)
    if new is None:
        names = ", ".join(card.subject for card in shown) or "none"
        why = f"no GPU is called {to!r}; name one by UUID, PCI address, its number in nvidia-smi, or {names}"
        raise NotActed(why, "refused")
    if not held:
        why = "on which GPU it is cannot be told: NVML does not list it, nor did this tool suspend it"
        raise NotActed(why, "refused")
    if len(held) > 1:
        why = f"it holds memory on {len(held)} GPUs, and can only be moved from one"
        raise NotActed(why, "refused")
    old = next((card for card in shown if card.uuid in held), None)
    if old is None:
        why = f"the GPU that it was on, {next(iter(held))}, is not here"
        raise NotActed(why, "refused")
    return old, new


def _against(old: Card, new: Card, needed: Mib) -> list[Refusal]:
    found = []
    if old.name != new.name or old.total_mib != new.total_mib:
        found.append(Refusal(why=f"{new.subject} is {new.name}, and it can only be moved to another {old.name}"))
    mib = sum(needed.values())
    if new.free_mib is None or new.free_mib < mib:
        free = "an unknown amount" if new.free_mib is None else f"{new.free_mib} MiB"
        found.append(Refusal(why=f"{new.subject} has {free} free, and {mib} MiB are needed; free some first"))
    return found


def _brought(tools: Tools, entry: Entry, plan: _Plan, stop: Stop) -> float:
    """The second half: restored on the other GPU, or on its own if that fails.

    Raises:
        NotActed: it was not moved; the entry is ended.
    """
    unit = Unit(tools, entry, cuda_of(plan.seen), stop)
    try:
        entry.stage(SUSPENDED)
        with unit.held():
            return bring_back(unit, unit.pids, plan.needed, plan.pairs).all_s
    except (NotActed, *FAILURES) as failure:
        raise ended(entry, unit, _not_moved(unit, plan, failure), stop) from failure


def _not_moved(unit: Unit, plan: _Plan, failure: NotActed | Failure) -> NotActed:
    _home(unit, plan.needed, ran=plan.ran)
    end, said = judged(unit, dict.fromkeys(unit.pids, "running" if plan.ran else "checkpointed"))
    whom = called(plan.seen.tree[0])
    if end is not None:
        return NotActed(f"not moved: {_words(failure)}; {said}", end)
    restored = isinstance(failure, together.NotDone) and failure.failure.action == "restore"
    if restored and not plan.ran:
        again = f"a restore that has failed may never succeed; `warmspare resume {plan.seen.pid}` tries again"
        return NotActed(f"not moved: {_words(failure)}; {whom} is stranded, suspended: {again}", "stranded")
    now = "runs where it was" if plan.ran else "is still suspended"
    return NotActed(f"not moved, {whom} {now}: {_words(failure)}", "undone")


def _home(unit: Unit, needed: Mib | None, *, ran: bool) -> None:
    """Bring them back to where and how they were; what fails shows in their states."""
    unit.turn_back()
    suspended_again(unit, unit.pids)  # one that was restored on the other GPU
    if not ran:
        return
    try:
        bring_back(unit, unit.pids, needed)
    except (NotActed, *FAILURES) as failure:
        unit.problem = _words(failure)


def _words(failure: NotActed | Failure) -> str:
    return str(failure) if isinstance(failure, NotActed) else words(failure)


_MOVED: Final[tuple[State, Well]] = ("running", Well("done", "runs: its move was finished"))
_HOME: Final[tuple[State, Well]] = ("running", Well("undone", "runs where it was"))
_STILL: Final[tuple[State, Well]] = ("checkpointed", Well("undone", "is still suspended"))
