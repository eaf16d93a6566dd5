"""Several CUDA processes suspended and resumed as one: all of them, or none.

All are locked before the first is checkpointed, so that none waits for one that has gone; all are restored before the
first is unlocked. Where one fails, the others are brought back to where they were.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import msgspec

from warmspare.control.checkpointer import COPY_S, LOCK_S, Action, Checkpointer, CheckpointFailed, Done, State

Tell = Callable[[Action, int, Done | CheckpointFailed | None], None]
"""Told of every call: before it with None, and after it with how it ended."""
TAKES: Final[Mapping[Action, State]] = MappingProxyType({
    "lock": "running", "checkpoint": "locked", "restore": "checkpointed", "unlock": "locked",
})  # fmt: skip
"""The state that a process must be in for each action."""
NO_GPUS: Final[Mapping[str, str]] = MappingProxyType({})


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How long one process may take: to end its work, and to have its memory copied."""

    lock_s: float = LOCK_S
    copy_s: float = COPY_S


class Took(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds that the driver took for each of its two halves, all processes together."""

    first_s: float
    second_s: float

    @property
    def all_s(self) -> float:
        """Both."""
        return self.first_s + self.second_s


class NotDone(Exception):
    """One of them failed. `undone`: all are in the state in which they were found; `states`: as they are now."""

    def __init__(self, failure: CheckpointFailed, states: Mapping[int, State | None], *, undone: bool) -> None:
        """Carry the failure, and what became of all."""
        super().__init__(str(failure))
        self.failure, self.states, self.undone = failure, dict(states), undone


def suspend(levers: Checkpointer, pids: Sequence[int], tell: Tell, limits: Limits | None = None) -> Took:
    """Lock all, then checkpoint all. One that is locked or checkpointed already is taken as it is.

    Raises:
        NotDone: one failed; those that were running run again, if they can.
    """
    pull = _Pull(levers, tell, limits or Limits(), NO_GPUS)
    found: dict[int, State] = {}
    try:
        found |= {pid: levers.state(pid) for pid in pids}
        locking = [pull("lock", pid) for pid in pids if found[pid] not in ("locked", "checkpointed")]
        copying = [pull("checkpoint", pid) for pid in pids if found[pid] != "checkpointed"]
    except CheckpointFailed as failure:
        ran = [pid for pid in found if found[pid] == "running"]
        pull.back("restore", ran)  # the memory of all of them first
        pull.back("unlock", ran)
        raise _not_done(levers, pids, found, failure) from failure
    return Took(first_s=sum(locking), second_s=sum(copying))


def resume(
    levers: Checkpointer,
    pids: Sequence[int],
    tell: Tell,
    limits: Limits | None = None,
    gpus: Mapping[str, str] = NO_GPUS,
) -> Took:
    """Restore all, then unlock all. One that is locked or runs already is taken as it is.

    `gpus`: by UUID which GPU in place of which, for every GPU that the driver shows; empty: each its own.

    Raises:
        NotDone: one could not be restored, and those that were are checkpointed again, if they can; or one could not
            be unlocked, and the others run.
    """
    pull = _Pull(levers, tell, limits or Limits(), gpus)
    found: dict[int, State] = {}
    try:
        found |= {pid: levers.state(pid) for pid in pids}
        copying = [pull("restore", pid) for pid in pids if found[pid] not in ("locked", "running")]
    except CheckpointFailed as failure:
        pull.back("checkpoint", [pid for pid in found if found[pid] == "checkpointed" and pid != failure.pid])
        raise _not_done(levers, pids, found, failure) from failure
    unlocking, failures = list[float](), list[CheckpointFailed]()
    for pid in (pid for pid in pids if found[pid] != "running"):
        try:
            unlocking.append(pull("unlock", pid))
        except CheckpointFailed as failure:  # the others are whole, and need not wait for it
            failures.append(failure)
    if failures:
        raise _not_done(levers, pids, found, failures[0]) from failures[0]
    return Took(first_s=sum(copying), second_s=sum(unlocking))


def states(levers: Checkpointer, pids: Sequence[int]) -> dict[int, State | None]:
    """The state of each; None where the driver does not tell."""
    return {pid: levers.state_or_none(pid) for pid in pids}


class _Pull:
    """Pulls one lever on one process, and tells of it."""

    def __init__(self, levers: Checkpointer, tell: Tell, limits: Limits, gpus: Mapping[str, str]) -> None:
        self._levers, self._tell, self._limits, self._gpus = levers, tell, limits, gpus

    def __call__(self, action: Action, pid: int) -> float:
        """Give the seconds that it took."""
        self._tell(action, pid, None)
        try:
            done = self._pulled(action, pid)
        except CheckpointFailed as failed:
            self._tell(action, pid, failed)
            raise
        self._tell(action, pid, done)
        return done.took_s

    def back(self, action: Action, pids: Sequence[int]) -> None:
        """Undo with those that are in the state for it; what fails is told, and the states at the end say the rest."""
        for pid in pids:
            if self._levers.state_or_none(pid) == TAKES[action]:
                with contextlib.suppress(CheckpointFailed):
                    self(action, pid)

    def _pulled(self, action: Action, pid: int) -> Done:
        match action:
            case "lock":
                return self._levers.lock(pid, self._limits.lock_s)
            case "checkpoint":
                return self._levers.checkpoint(pid, self._limits.copy_s)
            case "restore":
                return self._levers.restore(pid, self._limits.copy_s, self._gpus)
            case "unlock":
                return self._levers.unlock(pid)


def _not_done(
    levers: Checkpointer, pids: Sequence[int], found: Mapping[int, State], failure: CheckpointFailed
) -> NotDone:
    now = states(levers, pids)
    return NotDone(failure, now, undone=all(now[pid] == found.get(pid, now[pid]) for pid in pids))
