"""A program on two GPUs, each of which may use the other's memory."""

from __future__ import annotations

from typing import Final

from warmspare.control import cuda_abi as abi
from warmspare.control.cuda import Context, CudaError
from warmspare.control.kernels import POISON
from warmspare.model.facts import Cause
from warmspare.trials.api import NotTried
from warmspare.trials.on_gpu import MIB, SHARE
from warmspare.trials.workloads.api import NOT_NOW, Place, Program, Workload, on_two_gpus

LARGE: Final = 512 * MIB
"""A block from which on peer access was seen to be lost; blocks of 384 MiB survived (2 x H200, driver 580.159.04)."""
NO_PEERS: Final = frozenset({abi.PEER_ACCESS_UNSUPPORTED, abi.TOO_MANY_PEERS, abi.NOT_SUPPORTED})
"""How a driver refuses peer access."""


class Peers(Program):
    """Peer access both ways, memory on both, and a copy from the first to the second."""

    def __init__(self, place: Place) -> None:
        """Take the memory and enable the access.

        Raises:
            NotTried: the driver gives no peer access here.
        """
        super().__init__(place)
        first, second = (place.open(number) for number in range(2))
        size = min(self.size(first), self.size(second))
        for context in (first, second):
            self.hold(context, context.allocate(size))
        try:
            first.enable_peer(second)
            second.enable_peer(first)
        except CudaError as error:
            if error.result in NO_PEERS:
                raise NotTried(Cause.SKIPPED, f"the driver gives no peer access: {error.code}") from None
            raise

    def act(self, seed: int) -> None:
        """Fill the first, copy, and wait."""
        here, there = self.held
        there.context.set_words(there.memory.pointer, POISON, there.memory.size // 4)
        there.context.synchronize()
        here.fill(seed)
        here.context.copy(there.memory.pointer, here.memory.pointer, here.memory.size)
        here.context.synchronize()
        there.seed = seed


class LargePeers(Peers):
    """The same with a block of 512 MiB on each GPU: a small one alone would call this survivable."""

    def size(self, context: Context) -> int:
        """Such a block, where it is within the share.

        Raises:
            NotTried: it is not.
        """
        if context.memory().free // SHARE < LARGE:
            raise NotTried(Cause.SKIPPED, NOT_NOW.format(gpu=self.place.gpus[0].subject))
        return LARGE


WORKLOADS: Final = (
    Workload("peer-access", Peers, on_two_gpus, hazard=1),
    Workload("peer-access-large", LargePeers, on_two_gpus, hazard=1),
)
