"""Clearing up after a controller that was killed: every command does it first, and says what it found.

Each kind of act knows how its own operations are finished or undone. What is said rests on what the driver says
afterwards, never on what the journal had meant to come true.
"""

from __future__ import annotations

import contextlib
import importlib
from typing import Final

import msgspec

from warmspare.runtime.journal import Entry
from warmspare.runtime.operations import Act, Operation
from warmspare.runtime.outcomes import Recovered, called
from warmspare.runtime.owed import ENGINE
from warmspare.runtime.stopping import stoppable
from warmspare.runtime.unit import Tools

FINISHES: Final[dict[Act, str]] = {
    "suspend": "warmspare.runtime.suspending",
    "resume": "warmspare.runtime.resuming",
    "move": "warmspare.runtime.moving",
    "checkpoint": "warmspare.runtime.late",
    "restore": "warmspare.runtime.restoring",
}
"""The module whose `finish(operation, entry, tools) -> Recovered` clears up an act; it is imported only for that."""
FIRST_ASLEEP: Final[dict[Act, str]] = {
    "suspend": "warmspare.runtime.sleeping_first",
    "resume": "warmspare.runtime.waking",
}
"""The same of acts on an engine that was put to sleep first."""
ENDS_WITH_THE_BOOT: Final = frozenset({"suspend", "resume", "move"})
"""Acts that leave nothing but processes behind."""


def recover(tools: Tools) -> tuple[Recovered, ...]:
    """Clear up every interrupted operation, the oldest first. One that another process is at is left to it.

    Raises:
        JournalFailed: the journal cannot be read or written.
    """
    found: list[Recovered] = []
    waiting = tools.journal.interrupted()
    with stoppable(tools.say) if waiting else contextlib.nullcontext():  # what is begun here is ended
        for operation in waiting:
            entry = tools.journal.taken_over(operation)
            if entry is None:
                continue
            with entry:
                recovered = _recovered(operation, entry, tools)
                tools.say(recovered.sentence)  # before it counts as told: we may be killed as well
                entry.end(recovered.outcome, recovered.sentence)
            found.append(recovered)
    return tuple(found)


def _recovered(operation: Operation, entry: Entry, tools: Tools) -> Recovered:
    if operation.rebooted and operation.action in ENDS_WITH_THE_BOOT:
        whom = called(operation.targets[0])
        sentence = f"{whom} ended with the machine's last boot, in the middle of its {operation.action}"
        return Recovered(operation=operation, outcome="failed", sentence=sentence)
    finishes = FINISHES | FIRST_ASLEEP if ENGINE in operation.detail else FINISHES
    module = importlib.import_module(finishes[operation.action])
    recovered: Recovered = module.finish(operation, entry, tools)
    when = f"the {operation.action} of {operation.pid} that was broken off at {operation.begun_at[11:19]} UTC"
    return msgspec.structs.replace(recovered, sentence=f"{when}: {recovered.sentence}")
