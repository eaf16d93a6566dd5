"""A program with page-locked host memory, which its GPU reads and writes as well as the CPU."""

from __future__ import annotations

from typing import Final

from warmspare.control import host_memory
from warmspare.control.kernels import WORD_BYTES, word
from warmspare.trials.on_gpu import SHARE
from warmspare.trials.workloads.api import GRAIN, Place, Program, Workload

WRONG: Final = "the CPU finds word {at} of the pinned memory wrong"


class Pinned(Program):
    """Pinned memory, and memory of the GPU beside it."""

    def __init__(self, place: Place) -> None:
        """Take both."""
        super().__init__(place)
        context = place.open()
        size = self.size(context)
        self.hold(context, context.allocate(size))
        self._pinned = context.pin(max(GRAIN, min(size, host_memory.free_bytes() // SHARE // 2) // GRAIN * GRAIN))
        self._host = self.hold(context, self._pinned)

    def problem(self) -> str | None:
        """As its GPU sees it, and the first and the last word as the CPU does."""
        seen, last = self._pinned.bytes(), self._pinned.size // WORD_BYTES - 1
        for at in (0, last):
            octets = bytes(seen[at * WORD_BYTES : (at + 1) * WORD_BYTES])
            if int.from_bytes(octets, "little") != word(self._host.seed, at):
                return WRONG.format(at=at)
        return super().problem()


WORKLOADS: Final = (Workload("pinned-memory", Pinned),)
