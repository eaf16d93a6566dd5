"""One cell of the workload matrix: programs started, suspended, resumed, checked, and ended."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, NoReturn

import msgspec

from warmspare.control import host_memory, together
from warmspare.control.checkpointer import Action, Checkpointer, CheckpointFailed, Done
from warmspare.control.lever import LeverRefused
from warmspare.control.worker import Died, Hung
from warmspare.model.facts import Cause
from warmspare.trials import gentle
from warmspare.trials.api import NotTried, Steps
from warmspare.trials.free_memory import free_by_nvml
from warmspare.trials.on_gpu import MIB, SHARE
from warmspare.trials.workload_cells import Fate, MatrixCell
from warmspare.trials.workloads.api import Host, Place, Variant, Workload
from warmspare.trials.workloads.crew import Crew
from warmspare.trials.workloads.running import Answer
from warmspare.trials.workloads.serving import Order

MANY: Final = 8
"""So many processes may take twice as long as one."""
LOCK_PART: Final = 6
COPY_PART: Final = 2
"""One lock, and one copy of memory, may take these parts of a cell's time."""
MOST_OF_IT: Final = 0.5
"""So much of what was held must be seen free, beside what others may take meanwhile."""
FREED_S, LOOK_S = 2.0, 0.05
NOT_FREED: Final = "NVML saw {freed} of {held} MiB freed"
BLIND: Final = "oracle-blind"
UNSEEN: Final = "a word was changed, and the program's check did not see it"
NO_TIME: Final = "no time was left for it"
NO_ROOM: Final = "its {held} MiB of GPU memory are more than a tenth of the host's free memory"


class About(NamedTuple):
    """Which cell: of which workload, in which variant, on what host, and how many seconds it may take."""

    workload: Workload
    variant: Variant
    host: Host
    limit_s: float


def tried(steps: Steps, levers: Checkpointer, about: About) -> MatrixCell:
    """Try one cell, whatever happens in it; its processes have ended then, or are left to the keeper."""
    cell = MatrixCell(kind=about.workload.kind, variant=about.variant.name, fate="survives")
    try:
        places = about.workload.places(about.host)
    except NotTried as absent:
        return msgspec.structs.replace(cell, fate="not-here", detail=str(absent))
    cycle = _Cycle(steps, levers, about, places)
    try:
        cycle.run()
    except _Fated as end:
        cycle.seen |= end.seen
    except (OSError, LookupError, msgspec.MsgspecError) as error:  # ours: it says nothing of the program
        cycle.seen |= {"fate": "not-tried", "detail": f"{type(error).__name__}: {error}"[:300]}
    finally:
        cycle.end()
    return msgspec.structs.replace(cell, processes=len(cycle.pids) or None, **cycle.seen)


class _Fated(Exception):
    """The cell has come to its end."""

    def __init__(self, *, fate: Fate, step: str, code: str | None = None, detail: str = "") -> None:
        super().__init__(detail)
        self.seen: dict[str, Any] = {"fate": fate, "step": step, "code": code, "detail": detail[:300]}


class _Cycle:
    """One full cycle. `seen` are the fields of its cell, as far as it came."""

    def __init__(self, steps: Steps, levers: Checkpointer, about: About, places: tuple[Place, ...]) -> None:
        self._steps, self._levers, self._about, self._places = steps, levers, about, places
        limit_s = about.limit_s * (1 + len(places) / MANY)
        self._ends = time.monotonic() + limit_s
        self._limits = together.Limits(lock_s=limit_s / LOCK_PART, copy_s=limit_s / COPY_PART)
        self._crew = Crew()
        self._restored: set[int] = set()
        self.seen: dict[str, Any] = {}

    def run(self) -> None:
        """From the start to the last check.

        Raises:
            _Fated: it did not come so far.
        """
        free = self._free()
        try:
            self._begin()
            self._fits(free)
            self._all("stay")
        except (Hung, Died, LeverRefused, NotTried) as error:
            _not_tried(error)
        for pids in self._rounds():
            self._suspended(pids)
        self._look(free)
        for pids in self._rounds():
            self._resumed(pids)
        if wrong := self._goes_on("lost-on-restore"):
            raise _Fated(fate="wrong", step=wrong.step, detail=wrong.detail)
        self._sees("lost-on-restore")
        held, freed = (self.seen.get(name) for name in ("held_mib", "freed_mib"))
        if held and freed is not None and freed < held * MOST_OF_IT:
            raise _Fated(fate="wrong", step="checkpoint", detail=NOT_FREED.format(freed=freed, held=held))

    def end(self) -> None:
        """End its processes; those that the driver has restored are suspended first, or left to the keeper."""
        self._crew.end(gentle.settle([pid for pid in self._crew.alive() if pid in self._restored]))

    @property
    def pids(self) -> tuple[int, ...]:
        """Its CUDA processes, as far as they have begun."""
        return self._crew.pids

    def _rounds(self) -> list[tuple[int, ...]]:
        """Which processes are suspended, and resumed, as one."""
        return [self.pids] if self._about.variant.together else [(pid,) for pid in self.pids]

    def _begin(self) -> None:
        """Start them, let them take their memory, and do their thing for the first time."""
        self._crew.begin(self._about.workload.kind, self._about.variant.added, self._places, self._ends)
        self._all("act", secrets.randbits(63))
        if wrong := self._problem():
            raise _Fated(fate="not-tried", step="begin", detail=f"before it was suspended: {wrong}")

    def _fits(self, before: int | None) -> None:
        """A checkpoint moves GPU memory into the host's."""
        after = self._free()
        if before is None or after is None:
            return
        held = max(0, before - after)
        self.seen["held_mib"] = held // MIB
        if held > host_memory.free_bytes() // SHARE:
            raise NotTried(Cause.SKIPPED, NO_ROOM.format(held=held // MIB))

    def _heed(self, action: Action, pid: int, end: Done | CheckpointFailed | None) -> None:
        """From its first restore on a process is the keeper's."""
        if action == "restore" and end is None and pid not in self._restored:
            self._steps.restoring(pid)
            self._restored.add(pid)

    def _look(self, before: int | None) -> None:
        """How much of what they held is free now, by NVML, which may be told of it a little later."""
        held = self.seen.get("held_mib")
        soon = time.monotonic() + FREED_S
        while before is not None and held is not None and (now := self._free()) is not None:
            self.seen["freed_mib"] = max(0, held - (before - now) // MIB)
            if self.seen["freed_mib"] >= held * MOST_OF_IT or time.monotonic() > soon:
                return
            time.sleep(LOOK_S)

    def _suspended(self, pids: Sequence[int]) -> None:
        try:
            took = together.suspend(self._levers, pids, self._heed, self._limits)
        except together.NotDone as failed:
            self._brought_back(pids)
            raise self._refused(failed) from failed
        self.seen["suspend_s"] = round(self.seen.get("suspend_s", 0.0) + took.all_s, 4)

    def _brought_back(self, failed: Sequence[int]) -> None:
        """Where they are suspended one by one, those before the one that failed are resumed."""
        earlier = self.pids[: self.pids.index(failed[0])]
        if not self._about.variant.together and earlier:
            with contextlib.suppress(together.NotDone):  # whether they go on is seen from themselves
                together.resume(self._levers, earlier, self._heed, self._limits)

    def _refused(self, failed: together.NotDone) -> _Fated:
        """It was refused: whether cleanly, its processes show."""
        step, code, detail = self._failed(failed)
        if failed.failure.how == "hung":
            return _Fated(fate="hung", step=step, code=code, detail=detail)
        if not failed.undone:
            return _Fated(fate="lost-on-suspend", step=step, code=code, detail=detail)
        try:
            wrong = self._goes_on("lost-on-suspend")
        except _Fated as lost:
            return _Fated(
                fate="lost-on-suspend", step=step, code=code, detail=f"{detail}; then {lost.seen['step']}: {lost}"
            )
        if wrong:
            return _Fated(
                fate="lost-on-suspend", step=step, code=code, detail=f"{detail}; then {wrong.step}: {wrong.detail}"
            )
        self._sees("lost-on-suspend")
        return _Fated(fate="refused", step=step, code=code, detail=detail)

    def _resumed(self, pids: Sequence[int]) -> None:
        try:
            took = together.resume(self._levers, pids, self._heed, self._limits)
        except together.NotDone as failed:
            fate: Fate = "hung" if failed.failure.how == "hung" else "lost-on-restore"
            step, code, detail = self._failed(failed)
            raise _Fated(fate=fate, step=step, code=code, detail=detail) from failed
        self.seen["resume_s"] = round(self.seen.get("resume_s", 0.0) + took.all_s, 4)

    def _failed(self, failed: together.NotDone) -> tuple[str, str, str]:
        """The step, the code, and what the driver tells of all of them."""
        failure = failed.failure
        states = ", ".join(state or "untold" for state in failed.states.values())
        which = f"process {self.pids.index(failure.pid) + 1} of {len(self.pids)}; " if len(self.pids) > 1 else ""
        return failure.action, failure.code, f"{which}{failure.detail}; now {states}"

    def _goes_on(self, lost: Fate) -> _Wrong | None:
        """Their content is right, and once more after they have done their thing again; else what is wrong.

        Raises:
            _Fated: `lost`, or hung: one does not do what it is told.
        """
        step = "check"
        try:
            if wrong := self._problem():
                return _Wrong(step, wrong)
            step = "go on"
            self._all("act", secrets.randbits(63))
            wrong = self._problem()
        except Hung:
            raise _Fated(fate="hung", step=step, detail="the program gave no answer") from None
        except (Died, LeverRefused) as error:
            raise _Fated(fate=lost, step=step, code=error.code, detail=str(error)) from None
        except NotTried as fault:
            raise _Fated(fate="not-tried", step=step, detail=str(fault)) from None
        return _Wrong(step, wrong) if wrong else None

    def _sees(self, lost: Fate) -> None:
        """An oracle that cannot fail is none: a planted fault must be seen.

        Raises:
            _Fated: it was not; or `lost`, or hung: one does not do what it is told.
        """
        step = "plant a fault"
        try:
            self._all("damage")
            seen = all(answer.result for answer in self._all("problem"))
        except Hung:
            raise _Fated(fate="hung", step=step, detail="the program gave no answer") from None
        except (Died, LeverRefused) as error:
            raise _Fated(fate=lost, step=step, code=error.code, detail=str(error)) from None
        except NotTried as fault:
            raise _Fated(fate="not-tried", step=step, detail=str(fault)) from None
        if not seen:
            raise _Fated(fate="not-tried", step=step, code=BLIND, detail=UNSEEN)

    def _problem(self) -> str | None:
        """What the first of them that finds something wrong says."""
        return next(filter(None, (answer.result for answer in self._all("problem"))), None)

    def _all(self, do: Order, *arguments: object) -> list[Answer]:
        return self._crew.all(do, self._ends, *arguments)

    def _free(self) -> int | None:
        """What their GPUs have to give, in bytes, by NVML; None where it does not say."""
        numbers = {gpu.nvml for place in self._places for gpu in place.gpus}
        told = [free_by_nvml(number) for number in numbers]
        return sum(one for one in told if one is not None) if None not in told else None


class _Wrong(NamedTuple):
    step: str
    detail: str


def _not_tried(error: Exception) -> NoReturn:
    """It did not come as far as the driver's levers."""
    match error:
        case NotTried(cause=Cause.SKIPPED):
            raise _Fated(fate="not-here", step="begin", detail=str(error)) from error
        case Hung():
            raise _Fated(fate="not-tried", step="begin", detail="the program gave no answer") from error
        case Died() | LeverRefused():
            raise _Fated(fate="not-tried", step="begin", code=error.code, detail=str(error)) from error
    raise _Fated(fate="not-tried", step="begin", detail=str(error)) from error
