"""A program whose child is a CUDA process too: the driver suspends each of them by itself."""

from __future__ import annotations

import time
from typing import Any, Final

from warmspare.control.lever import LeverRefused
from warmspare.control.worker import Died, Hung
from warmspare.model.facts import Cause
from warmspare.trials.api import NotTried
from warmspare.trials.workloads.api import TOGETHER, Place, Workload
from warmspare.trials.workloads.plain import Plain
from warmspare.trials.workloads.running import Running

PATIENCE_S: Final = 30.0
HUNG: Final = "hung"


class Tree(Plain):
    """Memory of a GPU, and a child with a context and memory of its own on the same GPU."""

    def __init__(self, place: Place) -> None:
        """Take it, and start the child."""
        super().__init__(place)
        self._child = Running("plain", {})
        self._told("begin", place)

    @property
    def pids(self) -> tuple[int, ...]:
        """This one and the child."""
        return (*super().pids, self._child.pid)

    def act(self, seed: int) -> None:
        """Both of them."""
        super().act(seed)
        self._told("act", ~seed & (2**63 - 1))

    def problem(self) -> str | None:
        """In its own memory, or in the child's."""
        wrong = super().problem() or self._told("problem")
        return wrong if wrong is None else str(wrong)

    def damage(self) -> None:
        """In the child."""
        self._told("damage")

    def stay(self) -> None:
        """The child may not end when this one does."""
        self._told("stay")

    def _told(self, do: str, *arguments: object) -> Any:  # noqa: ANN401 # JSON, as each order gives it
        self._child.order(do, *arguments)
        try:
            answer = self._child.answer(time.monotonic() + PATIENCE_S)
        except Hung:  # no fault of this program: it is what became of the child
            raise LeverRefused(HUNG, "the child gave no answer") from None
        except Died as died:
            raise LeverRefused(died.code, "the child ended") from None
        if answer.kind == "refused":
            raise LeverRefused(answer.code, f"in the child: {answer.detail}")
        if answer.kind == "absent":
            raise NotTried(Cause(answer.code), f"in the child: {answer.detail}")
        return answer.result


WORKLOADS: Final = (Workload("child-context", Tree, variants=(TOGETHER,)),)
