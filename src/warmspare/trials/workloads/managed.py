"""A program with managed memory (cudaMallocManaged), which the driver moves between CPU and GPU."""

from __future__ import annotations

from typing import Final

from warmspare.control import host_memory
from warmspare.model.facts import Cause
from warmspare.trials.api import NotTried
from warmspare.trials.on_gpu import SHARE
from warmspare.trials.workloads.api import GRAIN, Place, Program, Workload

NO_MANAGED: Final = "the device has no managed memory"


class Managed(Program):
    """Managed memory, and memory of the GPU beside it."""

    def __init__(self, place: Place) -> None:
        """Take both; never more managed memory than is free, of the host's too.

        Raises:
            NotTried: the GPU has no such thing.
        """
        super().__init__(place)
        context = place.open()
        if not context.device.attribute("managed_memory"):
            raise NotTried(Cause.SKIPPED, NO_MANAGED)
        size = self.size(context)
        self.hold(context, context.allocate(size))
        size = max(GRAIN, min(size, host_memory.free_bytes() // SHARE) // GRAIN * GRAIN)
        self.hold(context, context.allocate_managed(size))


WORKLOADS: Final = (Workload("managed-memory", Managed),)
