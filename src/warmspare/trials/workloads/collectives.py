"""Programs that sum over GPUs by NCCL, one process a rank as engines have it: on one GPU, and on all of them.

NVLink multicast (NVLS) is off in all of them: others have seen the driver hang on it for minutes.
Source: gVisor's proposal "Multi-GPU CUDA Checkpoint/Restore" (8 x H100, driver 610.57.04); NVIDIA/nccl#2350
(NCCL_CUMEM_HOST_ENABLE); NVIDIA/nvcf#1183 (P2P, NVLS and SHM off).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from types import MappingProxyType
from typing import Final

from warmspare.control.kernels import POISON, WORD_BYTES, Expected, Kernels
from warmspare.control.nccl import FLOAT_BYTES, Communicators, Nccl
from warmspare.model.facts import Cause
from warmspare.trials.api import NotTried
from warmspare.trials.workloads.api import ALONE, TOGETHER, Host, Place, Program, Variant, Workload

NO_LIBRARY: Final = "no NCCL library was found"
NO_PEERS: Final = "it takes two GPUs, and there is one"
NVLS_OFF: Final = MappingProxyType({"NCCL_NVLS_ENABLE": "0"})
NO_DIRECT: Final = MappingProxyType({"NCCL_P2P_DISABLE": "1", "NCCL_SHM_DISABLE": "1"})
NO_CUMEM: Final = MappingProxyType({"NCCL_CUMEM_ENABLE": "0", "NCCL_CUMEM_HOST_ENABLE": "0"})


class Rank(Program):
    """One rank: what it sends, what it receives, and its place in the communicator."""

    def __init__(self, place: Place) -> None:
        """Take the memory and load NCCL; the first makes up the communicator's name.

        Raises:
            NcclError: the library cannot be loaded, or refuses.
        """
        super().__init__(place)
        self._context = place.open()
        size = self.size(self._context)
        self._source, self._target = (self._context.allocate(size) for _ in range(2))
        self._kernels, self._stream = Kernels(self._context), self._context.stream()
        self._count, self._seed = size // FLOAT_BYTES, 0
        self._nccl = Nccl(place.nccl or "")
        self._group: Communicators | None = None
        self._enqueue: Callable[[], None] | None = None
        if place.rank == 0:
            self.offer = self._nccl.unique_id()

    def join(self, offer: bytes) -> None:
        """Make the communicator; it is there when all have joined."""
        self._context.synchronize()  # NCCL takes the GPU of the context that is current
        self._group = self._nccl.joined(offer, self.place.rank, self.place.ranks)
        self._enqueue = self._group.all_reduce([self._source], [self._target], self._count, [self._stream])

    def act(self, seed: int) -> None:
        """Sum over all ranks."""
        self._seed = seed
        self._kernels.fill_floats(self._source.pointer, self._count, seed, self.place.rank, self._stream)
        self._context.set_words(self._target.pointer, POISON, self._count, self._stream)
        if self._enqueue and self._group:
            self._enqueue()
            self._group.check()
        self._stream.synchronize()

    def problem(self) -> str | None:
        """In what it sent, or in the sums."""
        ranks = self.place.ranks
        sums = Expected(times=ranks, plus=ranks * (ranks - 1) // 2)
        for buffer, what, expected in (
            (self._source, "floats that were sent", Expected(times=1, plus=self.place.rank)),
            (self._target, "sums", sums),
        ):
            found = self._kernels.check_floats(buffer.pointer, self._count, self._seed, expected, self._stream)
            if found.wrong:
                where = f"on rank {self.place.rank}, the first at {found.first}"
                return f"{found.wrong} of {self._count} {what} are wrong {where}"
        return None

    def damage(self) -> None:
        """In the sums."""
        at = secrets.randbelow(self._count * FLOAT_BYTES // WORD_BYTES) * WORD_BYTES
        self._kernels.add(self._target.pointer + at, WORD_BYTES, 1)
        self._context.synchronize()


def on_one(host: Host) -> tuple[Place, ...]:
    """One rank.

    Raises:
        NotTried: there is no NCCL.
    """
    return _ranks(host, 1)


def on_all(host: Host) -> tuple[Place, ...]:
    """A rank a GPU.

    Raises:
        NotTried: there is no NCCL, or one GPU.
    """
    if len(host.gpus) == 1:
        raise NotTried(Cause.SKIPPED, NO_PEERS)
    return _ranks(host, len(host.gpus))


def _ranks(host: Host, count: int) -> tuple[Place, ...]:
    if host.nccl is None:
        raise NotTried(Cause.SKIPPED, NO_LIBRARY)
    return tuple(
        Place(gpus=(gpu,), rank=rank, ranks=count, nccl=host.nccl) for rank, gpu in enumerate(host.gpus[:count])
    )


VARIANTS: Final = (
    Variant(TOGETHER.name, NVLS_OFF),
    Variant("one by one", NVLS_OFF, together=False),
    Variant("together, P2P and SHM off", {**NVLS_OFF, **NO_DIRECT}),
    Variant("together, host cuMem off", {**NVLS_OFF, "NCCL_CUMEM_HOST_ENABLE": "0"}),
    Variant("together, cuMem off", {**NVLS_OFF, **NO_CUMEM}),
    Variant("together, P2P, SHM and cuMem off", {**NVLS_OFF, **NO_DIRECT, **NO_CUMEM}),
)
WORKLOADS: Final = (
    Workload("nccl-one-gpu", Rank, on_one, (Variant(ALONE.name, NVLS_OFF),), hazard=1),
    Workload("nccl", Rank, on_all, VARIANTS, hazard=2),
)
