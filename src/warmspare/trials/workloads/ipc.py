"""Two programs, one of which uses the other's GPU memory by a CUDA IPC handle."""

from __future__ import annotations

from typing import Final

from warmspare.control.cuda import Buffer
from warmspare.control.kernels import GOLDEN
from warmspare.trials.workloads.api import TOGETHER, Held, Place, Program, Workload, two_on_one_gpu


class Sharing(Program):
    """The first owns the memory that both use; the second has some of its own beside it."""

    def __init__(self, place: Place) -> None:
        """Take memory of its own, and export the first one's."""
        super().__init__(place)
        self._context = place.open()
        own = self._context.allocate(self.size(self._context))
        self.hold(self._context, own)
        self._shared: Held | None = None
        if place.rank == 0:
            self.offer = own.size.to_bytes(8, "little") + own.shared()

    def join(self, offer: bytes) -> None:
        """Open what the first exports."""
        if self.place.rank:
            size = int.from_bytes(offer[:8], "little")
            opened = self._context.open_shared(offer[8:], size)
            self._shared = Held(self._context, Buffer(self._context, opened.pointer, size))

    def act(self, seed: int) -> None:
        """The first writes what the second will read."""
        self.held[0].fill(seed + self.place.rank * GOLDEN)
        if self._shared:
            self._shared.seed = seed

    def problem(self) -> str | None:
        """In its own memory, and in the other's as it sees it."""
        wrong = super().problem()
        if wrong or not self._shared:
            return wrong
        wrong = self._shared.problem()
        return f"in the memory of the other process {wrong}" if wrong else None

    def damage(self) -> None:
        """In what both of them use."""
        (self._shared or self.held[0]).damage()


WORKLOADS: Final = (Workload("cuda-ipc", Sharing, two_on_one_gpu, (TOGETHER,), hazard=1),)
