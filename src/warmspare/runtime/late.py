"""What a checkpoint left whose controller was killed: with a published image its processes end, without one they go on.

The folder itself says which: it is known by its inode, under whichever of its two names it stands.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from warmspare.control import process
from warmspare.control.checkpointer import State
from warmspare.control.criu import log_of
from warmspare.control.target import Target, is_same, target, tree
from warmspare.runtime import frozen
from warmspare.runtime.checkpointing import CRIU, DUMP_S, PLACE, TREE, Why, undone
from warmspare.runtime.journal import Entry
from warmspare.runtime.operations import Operation, Outcome
from warmspare.runtime.outcomes import Recovered, called
from warmspare.runtime.publishing import Place, is_at, remove
from warmspare.runtime.unit import Tools, Unit

WHY = "it was interrupted"
SOON_S: Final = 1.0
"""How long is waited without a word."""


def finish(operation: Operation, entry: Entry, tools: Tools) -> Recovered:
    """Clear up a checkpoint whose controller was killed."""
    place = msgspec.json.decode(operation.detail[PLACE], type=Place)
    known = operation.detail.get(TREE)
    targets = msgspec.json.decode(known, type=tuple[Target, ...]) if known else operation.targets
    if not operation.rebooted:
        _await_criu(operation, tools)
    outcome: Outcome
    if is_at(place, place.name):
        outcome, sentence = ("done", "") if operation.rebooted else _ended_late(targets)
        whole = f"the image {place.path} of {called(targets[0])} is whole"
        return Recovered(operation=operation, outcome=outcome, sentence="; ".join(filter(None, (whole, sentence))))
    log = log_of(Path(place.parent, place.hidden), "dump") if is_at(place, place.hidden) else ""
    if operation.rebooted:
        outcome, sentence = "failed", f"not checkpointed, {called(targets[0])}: the machine restarted before"
    else:
        unit = Unit(tools, entry, [one for one in targets if one.pid in operation.cuda and is_same(one)])
        new = [one for one in _there(operation) if one.pid not in {each.pid for each in targets}]
        ran: dict[int, State] = {pid: "running" for pid in unit.pids if operation.touched(pid)}
        back = undone(unit, (*targets, *new), ran, Why(WHY, log, operation))
        outcome, sentence = "failed" if back.end == "refused" else back.end, str(back)
    if not remove(place):
        sentence = f"{sentence}; {Path(place.parent, place.hidden)} could not be removed"
    return Recovered(operation=operation, outcome=outcome, sentence=sentence)


def _ended_late(targets: tuple[Target, ...]) -> tuple[Outcome, str]:
    """End those that the image is of, if they are still as they were dumped."""
    there = [now for one in targets if is_same(one) and (now := target(one.pid))]
    if running := [one for one in there if not frozen.is_still(one)]:
        return "stranded", f"{called(running[0])} was continued meanwhile: end it, or remove the image"
    if left := frozen.end(there):
        return "stranded", f"{called(left[0])} does not end: kill -9 it"
    return "done", "its processes have been ended"


def _there(operation: Operation) -> tuple[Target, ...]:
    """The tree as it is now; nothing if the root has ended: its number may be that of somebody else's tree."""
    return tree(operation.pid) if is_same(operation.targets[0]) else ()


def _await_criu(operation: Operation, tools: Tools) -> None:
    """A CRIU outlives the one who started it, and until it has ended nobody may touch the processes."""
    pid, _, ticks = operation.detail.get(CRIU, "0:0").partition(":")
    seen = process.started(int(pid))
    at_work = {int(pid)} if seen and str(seen[1]) == ticks and seen[2] not in "ZX" else set()
    for one in at_work | {one.tracer for one in _there(operation) if one.tracer}:
        with process.holding(one) as descriptor:
            if descriptor is not None and not process.ready([descriptor], SOON_S):
                tracer = target(one)
                who = called(tracer) if tracer else f"process {one}"
                whom = called(operation.targets[0])
                tools.say(f"waiting for {who} to end: it is at work on {whom}, whose checkpoint was broken off")
                process.ready([descriptor], DUMP_S)
