"""A program that maps its GPU memory itself (cuMemCreate, cuMemMap), as PyTorch's expandable segments do."""

from __future__ import annotations

from typing import Final

from warmspare.control import vmm
from warmspare.model.facts import Cause
from warmspare.trials.api import NotTried
from warmspare.trials.workloads.api import Place, Program, Workload

NO_VMM: Final = "the device has no virtual memory management"
APART: Final = 4
"""How many times as many addresses as memory: the second chunk lies beyond a hole."""


class Mapped(Program):
    """Two chunks, apart in one range of addresses."""

    def __init__(self, place: Place) -> None:
        """Reserve, create and map.

        Raises:
            NotTried: the GPU has no such thing.
        """
        super().__init__(place)
        context = place.open()
        if not context.device.attribute("vmm"):
            raise NotTried(Cause.SKIPPED, NO_VMM)
        grain = vmm.granularity(context)
        size = max(grain, self.size(context) // 2 // grain * grain)
        self._range = vmm.Reservation(context, APART * size)
        for offset in (0, (APART - 1) * size):
            self.hold(context, self._range.map(vmm.create(context, size), size, offset))


WORKLOADS: Final = (Workload("vmm", Mapped),)
