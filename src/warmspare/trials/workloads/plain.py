"""A program that holds memory of one GPU, or of two that do not know each other; and one on a GPU that is shared."""

from __future__ import annotations

from typing import Final

from warmspare.control.cuda import Context, Driver
from warmspare.model.facts import Cause
from warmspare.trials.api import NotTried
from warmspare.trials.workloads.api import Host, Place, Program, Workload, alone, on_two_gpus

NO_MPS: Final = "no MPS daemon is there"
NO_MIG: Final = "no GPU is split by MIG"
NO_SLICE: Final = "a GPU is split by MIG, and CUDA shows no slice of it"


class Plain(Program):
    """Memory of every GPU of its place, each in a context of its own."""

    def __init__(self, place: Place) -> None:
        """Take it."""
        super().__init__(place)
        for number in range(len(place.gpus)):
            context = place.open(number)
            self.hold(context, context.allocate(self.size(context)))


class OnSlice(Program):
    """Memory of the first device that CUDA shows: where GPUs are split it is a slice of one."""

    def __init__(self, place: Place) -> None:
        """Take it.

        Raises:
            NotTried: there is no slice.
        """
        super().__init__(place)
        devices = Driver().devices()
        if not devices:
            raise NotTried(Cause.SKIPPED, NO_SLICE)
        context = Context(devices[0])
        self.hold(context, context.allocate(self.size(context)))


def as_mps_client(host: Host) -> tuple[Place, ...]:
    """One process where the environment makes each a client of MPS.

    Raises:
        NotTried: it does not.
    """
    if not host.mps:
        raise NotTried(Cause.SKIPPED, NO_MPS)
    return alone(host)


def on_a_slice(host: Host) -> tuple[Place, ...]:
    """One process where a GPU is split.

    Raises:
        NotTried: none is.
    """
    if not host.mig:
        raise NotTried(Cause.SKIPPED, NO_MIG)
    return alone(host)


WORKLOADS: Final = (
    Workload("plain", Plain),
    Workload("two-gpus", Plain, on_two_gpus),
    Workload("mps-client", Plain, as_mps_client, hazard=1),
    Workload("mig-slice", OnSlice, on_a_slice, hazard=1),
)
