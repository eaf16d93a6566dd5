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
from warmspare.runtime.journal import Entry
from warmspare.runtime.looking import look
from warmspare.runtime.operations import Operation
from warmspare.runtime.outcomes import NotActed, Recovered, called
from warmspare.runtime.stopping import Stop, stoppable
from warmspare.runtime.suspending import Options, Well, begun, cuda_of, refuse, told_of
from warmspare.runtime.unit import Tools, Unit, bring_back, has_room, noted, state_of, summed


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
    vram = noted(tools.journal, [one for one in cuda_of(seen) if seen.cuda[one.pid] == "checkpointed"])
    needed = summed(vram)
    refuse(guards.before_resume(seen, needed, gpus.free(shown)), options)
    with stoppable(tools.say) as stop, begun(tools, "resume", seen, vram) as entry:
        took = _resumed(tools, entry, seen, None if options.force else needed, stop)
        back = f"{sum(needed.values())} MiB of GPU memory are back" if needed else "it runs"
        line = f"resumed {called(seen.tree[0])}: {back} after {took.all_s:.2f} s"
        return done(entry, tools, f"{line}; `warmspare suspend {pid}` suspends it again", stop)


def suspended_again(unit: Unit, pids: Sequence[int]) -> None:
    """Bring those that were restored back to where they were; what fails shows in their states."""
    unit.turn_back()
    levers = unit.tools.levers
    for pid in (pid for pid in pids if state_of(levers, pid) == "locked"):
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
    if not any(map(operation.touched, unit.pids)):
        return told_of(operation, unit, gone, {}, Well("undone", "is as it was: nothing had been done to it"))
    waiting = [one for one in unit.members if state_of(tools.levers, one.pid) == "checkpointed"]
    needed, free = summed(noted(tools.journal, waiting)), gpus.free(tools.cards())
    if waiting and not has_room(needed, free):
        suspended_again(unit, unit.pids)
        again = f"is still suspended, for want of free GPU memory; `warmspare resume {operation.pid}` tries again"
        return told_of(operation, unit, gone, dict.fromkeys(unit.pids, "checkpointed"), Well("undone", again))
    why = ""
    try:
        bring_back(unit, unit.pids, needed)
    except NotActed as failure:
        why = f": {failure}"
    except FAILURES as failure:
        why = f": {words(failure)}"
    well = Well("done", f"runs: its {operation.action} was finished")
    found = told_of(operation, unit, gone, dict.fromkeys(unit.pids, "running"), well)
    return Recovered(operation=operation, outcome=found.outcome, sentence=f"{found.sentence}{why}")


def _resumed(tools: Tools, entry: Entry, seen: Seen, needed: Mib | None, stop: Stop) -> Took:
    unit = Unit(tools, entry, cuda_of(seen), stop)
    try:
        with unit.held():
            return bring_back(unit, unit.pids, needed)
    except NotActed as failure:
        raise ended(entry, unit, failure, stop) from failure
    except FAILURES as failure:
        raise ended(entry, unit, not_resumed(unit, seen.cuda, failure), stop) from failure


def not_resumed(unit: Unit, found: Mapping[int, State], failure: Failure) -> NotActed:
    """How it ended: a process whose restore failed is as it was, and yet may be beyond any restore."""
    why = words(failure)
    if not unit.touched:
        return NotActed(f"nothing was done: {why}", "refused")
    suspended_again(unit, [pid for pid in unit.pids if found[pid] == "checkpointed"])
    end, said = judged(unit, found)
    if end is None and isinstance(failure, together.NotDone) and failure.failure.action == "restore":
        pid = failure.failure.pid
        again = f"a restore that has failed may never succeed; `warmspare resume {pid}` tries again"
        return NotActed(f"not resumed: {why}; process {pid} is stranded, suspended: {again}", "stranded")
    if end is None:
        return NotActed(f"not resumed, all are as they were: {why}", "undone")
    return NotActed(f"not resumed: {why}; {said}", end)
