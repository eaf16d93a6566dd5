"""Resume: a tree's CUDA processes are restored and unlocked as one.

No proof is asked for: the process does not run, so it can only gain. What may strand it is too little free GPU memory,
and that is looked at, and claimed, beforehand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from warmspare.control import together
from warmspare.control.checkpointer import State
from warmspare.control.target import is_same
from warmspare.control.together import Took
from warmspare.runtime import cards as gpus
from warmspare.runtime import guards
from warmspare.runtime.aftermath import FAILURES, Failure, done, ended, judged, words
from warmspare.runtime.guards import Mib, Seen
from warmspare.runtime.journal import Entry, Journal
from warmspare.runtime.looking import look
from warmspare.runtime.operations import Operation
from warmspare.runtime.outcomes import NotActed, Recovered, called
from warmspare.runtime.stopping import Stop, stoppable
from warmspare.runtime.suspending import Options, begun, cuda_of, refuse, told_of
from warmspare.runtime.unit import VRAM, Tools, Unit, bring_back, noted


def resume(tools: Tools, pid: int, options: Options) -> str:
    """Resume a process with all that it started; one line that says what it took, and what undoes it.

    Raises:
        NotActed: a guard refused, or it failed.
        JournalFailed: nothing can be written down, so nothing was done.
    """
    shown = tools.cards()
    seen = look(pid, tools.levers, shown)
    if seen.cuda and set(seen.cuda.values()) == {"running"} and not seen.untold:
        return f"{called(seen.tree[0])} runs: there is nothing to resume"
    needed = needed_by(tools.journal, seen)
    refuse(guards.before_resume(seen, needed, gpus.free(shown)), options)
    with stoppable(tools.say) as stop, begun(tools, "resume", seen) as entry:
        took = _resumed(tools, entry, seen, needed, stop)
        back = f"{sum(needed.values())} MiB back on its GPU" if needed else "its GPU memory is back"
        line = f"resumed {called(seen.tree[0])}: {back} in {took.all_s:.2f} s; `warmspare suspend {pid}` frees it again"
        return done(entry, tools, line, stop)


def needed_by(journal: Journal, seen: Seen) -> dict[str, int] | None:
    """MiB by GPU that the suspended ones among them held, by the journal; None where this tool did not suspend them."""
    needed: dict[str, int] = {}
    for one in cuda_of(seen):
        if seen.cuda[one.pid] != "checkpointed":
            continue
        held = noted(journal.last_of(one, noting=VRAM), (one.pid,))
        if held is None:
            return None
        for gpu, mib in held.items():
            needed[gpu] = needed.get(gpu, 0) + mib
    return needed


def suspended_again(unit: Unit, pids: Sequence[int]) -> None:
    """Bring those that were restored back to where they were, if nothing else can be done with them."""
    unit.turn_back()
    levers = unit.tools.levers
    for pid in pids:
        if levers.state_or_none(pid) == "locked":
            try:
                unit("checkpoint", pid, None)
                unit("checkpoint", pid, levers.checkpoint(pid))
            except FAILURES as failure:
                unit.problem = words(failure)


def finish(operation: Operation, entry: Entry, tools: Tools) -> Recovered:
    """Clear up a resume whose controller was killed: it is finished, if there is room for what is still suspended."""
    members = [one for one in operation.targets if one.pid in operation.cuda]
    unit = Unit(tools, entry, [one for one in members if is_same(one)])
    gone = [one for one in members if one not in unit.members]
    if not unit.touched_in(operation):
        return told_of(operation, unit, gone, {}, "is as it was: nothing had been done to it")
    waiting = [pid for pid in unit.pids if tools.levers.state_or_none(pid) == "checkpointed"]
    needed = noted(operation, waiting) or _noted_before(tools.journal, unit, waiting)
    free = gpus.free(tools.cards())
    whom, pid = called(operation.targets[0]), operation.pid
    if waiting and (needed is None or free is None or any(mib > free.get(gpu, 0) for gpu, mib in needed.items())):
        suspended_again(unit, unit.pids)
        again = f"is still suspended: too little GPU memory is known to be free; `warmspare resume {pid}` tries again"
        return told_of(operation, unit, gone, dict.fromkeys(unit.pids, "checkpointed"), again)
    try:
        bring_back(unit, unit.pids, needed)
    except (NotActed, *FAILURES):
        outcome = told_of(operation, unit, gone, dict.fromkeys(unit.pids, "running"), "runs")
    else:
        outcome = told_of(operation, unit, gone, dict.fromkeys(unit.pids, "running"), "runs: its resume was finished")
    return outcome


def _resumed(tools: Tools, entry: Entry, seen: Seen, needed: Mib | None, stop: Stop) -> Took:
    unit = Unit(tools, entry, cuda_of(seen), stop)
    try:
        with unit.held():
            return bring_back(unit, unit.pids, needed)
    except NotActed as failure:
        raise ended(entry, unit, failure, stop) from failure
    except FAILURES as failure:
        raise ended(entry, unit, _not_resumed(unit, seen.cuda, failure), stop) from failure


def _not_resumed(unit: Unit, found: Mapping[int, State], failure: Failure) -> NotActed:
    """How it ended: a process whose restore failed is as it was, and yet may be beyond any restore."""
    why = words(failure)
    if not unit.touched:
        return NotActed(f"nothing was done: {why}", "refused")
    suspended_again(unit, [pid for pid in unit.pids if found[pid] == "checkpointed"])
    end, said = judged(unit, found)
    if end is None and isinstance(failure, together.NotDone):
        pid = failure.failure.pid
        return NotActed(f"not resumed: {why}; {pid} is stranded: `warmspare resume {pid}` may fail again", "stranded")
    if end is None:
        return NotActed(f"not resumed, it is still suspended: {why}", "undone")
    return NotActed(f"not resumed: {why}; {said}", end)


def _noted_before(journal: Journal, unit: Unit, waiting: Sequence[int]) -> dict[str, int] | None:
    needed: dict[str, int] = {}
    for one in unit.members:
        if one.pid in waiting:
            held = noted(journal.last_of(one, noting=VRAM), (one.pid,))
            if held is None:
                return None
            for gpu, mib in held.items():
                needed[gpu] = needed.get(gpu, 0) + mib
    return needed
