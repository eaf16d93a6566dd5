"""The processes of one workload: started together, told together, ended together."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Collection, Mapping, Sequence

import msgspec

from warmspare.control import process
from warmspare.control.lever import LeverRefused
from warmspare.model.facts import Cause
from warmspare.trials.api import NotTried
from warmspare.trials.workloads.api import Place
from warmspare.trials.workloads.running import ENDING_S, Answer, Running
from warmspare.trials.workloads.serving import Begun, Order


class Crew:
    """All of them; `pids` are their CUDA processes, which they may have started themselves."""

    def __init__(self) -> None:
        """Nobody is there yet."""
        self._programs: list[Running] = []
        self.pids: tuple[int, ...] = ()

    def begin(self, kind: str, added: Mapping[str, str], places: Sequence[Place], ends: float) -> None:
        """Start one for each place; each takes its memory, and then what the first one offers.

        Raises:
            Hung, Died, LeverRefused, NotTried: one of them did not get so far.
        """
        for place in places:
            self._programs.append(Running(kind, added))
            self._programs[-1].order("begin", place)
        begun = [msgspec.convert(answer.result, Begun) for answer in self._answers(ends)]
        self.pids = tuple(pid for one in begun for pid in one.pids)
        self.all("join", ends, begun[0].offer)

    def all(self, do: Order, ends: float, *arguments: object) -> list[Answer]:
        """Tell all of them, then wait for all: they may need each other for it.

        Raises:
            Hung, Died: one gave no answer until `ends`.
            LeverRefused: the driver, or NCCL, refused it something.
            NotTried: it cannot be tried, or has a fault.
        """
        for program in self._programs:
            program.order(do, *arguments)
        return self._answers(ends)

    def alive(self) -> tuple[int, ...]:
        """Those of its CUDA processes that live, by the trial's mark: a number alone may have become another's."""
        token = os.environ.get(process.TAG, "")
        return tuple(pid for pid in self.pids if process.is_tagged(pid, token))

    def end(self, spared: Collection[int]) -> None:
        """End all but these, and wait for it: the next ones are to find the GPUs as they were."""
        own = {program.pid for program in self._programs}
        for pid in (pid for pid in self.pids if pid not in own and pid not in spared):
            with process.holding(pid) as held, contextlib.suppress(ProcessLookupError):
                if pid in self.alive():  # asked now that it is held
                    os.kill(pid, signal.SIGKILL)
                    process.ready([held] if held is not None else [], ENDING_S if held is not None else 0.0)
        for program in self._programs:
            if program.pid not in spared:
                program.kill()

    def _answers(self, ends: float) -> list[Answer]:
        return [_checked(program.answer(ends)) for program in self._programs]


def _checked(answer: Answer) -> Answer:
    if answer.kind == "refused":
        raise LeverRefused(answer.code, answer.detail)
    if answer.kind == "absent":
        raise NotTried(Cause(answer.code), answer.detail)
    return answer
