"""How a kind of program is written for the workload matrix.

One file with a `Program` and `WORKLOADS`. A program is a process of its own, told step by step what to do: it takes its
memory and does its thing, is suspended and resumed from outside, says whether what it holds is still right, and does
its thing once more. What only some machines can try says so by NotTried(Cause.SKIPPED), with the reason.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import secrets
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

import msgspec

from warmspare.control.cuda import Buffer, Context, Driver, HostBuffer
from warmspare.control.kernels import GOLDEN, WORD_BYTES, Kernels
from warmspare.model.facts import Cause
from warmspare.trials import workloads
from warmspare.trials.api import NotTried
from warmspare.trials.given import Gpu
from warmspare.trials.on_gpu import MIB, SHARE, shown

MOST: Final = 32 * MIB
"""What a program fills of each GPU, at most: a fault of the driver shows in a page, and a cycle takes less time."""
PARTS: Final = 8
"""A program takes at most this part of its share at a time: it may take several, and others be beside it."""
GRAIN: Final = 2 * MIB
NOT_NOW: Final = "a tenth of the free memory of {gpu} is too little"
ONE_GPU: Final = "it takes two GPUs, and there is one"


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """What a workload may use: the GPUs, whether MPS and MIG are there, and the NCCL that an engine would load."""

    gpus: tuple[Gpu, ...]
    mps: bool = False
    mig: bool = False
    nccl: str | None = None


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """One process of a workload: its GPUs, its number among so many, and the NCCL to load."""

    gpus: tuple[Gpu, ...]
    rank: int = 0
    ranks: int = 1
    nccl: str | None = None

    def open(self, number: int = 0) -> Context:
        """A context on one of its GPUs.

        Raises:
            CudaError: the driver refuses.
            NotTried: CUDA does not show the GPU.
        """
        return Context(shown(Driver(), self.gpus[number]))


class Held:
    """Memory with a pattern, and the kernels that write and check it on its own GPU."""

    def __init__(self, context: Context, memory: Buffer | HostBuffer) -> None:
        """Name it; it holds no pattern yet."""
        self.context, self.memory, self.kernels = context, memory, Kernels(context)
        self.seed = 0

    def fill(self, seed: int) -> None:
        """Write a pattern, and wait."""
        self.seed = seed
        self.kernels.fill(self.memory.pointer, self.memory.size, seed)
        self.context.synchronize()

    def problem(self) -> str | None:
        """What the GPU finds wrong in it, or None."""
        found = self.kernels.check(self.memory.pointer, self.memory.size, self.seed)
        words = self.memory.size // WORD_BYTES
        return f"{found.wrong} of {words} words are wrong, the first at {found.first}" if found.wrong else None

    def damage(self) -> None:
        """Change one word, anywhere."""
        at = secrets.randbelow(self.memory.size // WORD_BYTES) * WORD_BYTES
        self.kernels.add(self.memory.pointer + at, WORD_BYTES, 1)
        self.context.synchronize()


class Program:
    """A program of the matrix; a subclass takes its memory as it begins, and `hold`s it.

    `offer` is what the other processes are told of the first one's, before any of them does its thing.
    """

    def __init__(self, place: Place) -> None:
        """Nothing is taken yet."""
        self.place, self.offer = place, b""
        self.held: list[Held] = []

    @property
    def pids(self) -> tuple[int, ...]:
        """Its CUDA processes: this one, and those that it has started."""
        return (os.getpid(),)

    def join(self, offer: bytes) -> None:
        """Take what the first process offers; all of them do so at once."""

    def act(self, seed: int) -> None:
        """Do its thing, which leaves known content; all of them do so at once, with the same seed."""
        for number, held in enumerate(self.held):
            held.fill(seed + number * GOLDEN)

    def problem(self) -> str | None:
        """What is wrong with what it holds, or None."""
        return next(filter(None, (held.problem() for held in self.held)), None)

    def damage(self) -> None:
        """Plant the smallest fault that `problem` must see."""
        self.held[-1].damage()

    def stay(self) -> None:
        """Have what it has started outlive it as well."""

    def hold(self, context: Context, memory: Buffer | HostBuffer) -> Held:
        """Keep content in this memory."""
        self.held.append(Held(context, memory))
        return self.held[-1]

    def size(self, context: Context) -> int:
        """How many bytes to take of a GPU at a time.

        Raises:
            NotTried: there are too few.
        """
        size = min(MOST, context.memory().free // SHARE // PARTS) // GRAIN * GRAIN
        if not size:
            raise NotTried(Cause.SKIPPED, NOT_NOW.format(gpu=self.place.gpus[0].subject))
        return size


def alone(host: Host) -> tuple[Place, ...]:
    """One process on one GPU."""
    return (Place(gpus=host.gpus[:1]),)


def on_two_gpus(host: Host) -> tuple[Place, ...]:
    """One process on two GPUs.

    Raises:
        NotTried: there is one.
    """
    if len(host.gpus) == 1:
        raise NotTried(Cause.SKIPPED, ONE_GPU)
    return (Place(gpus=host.gpus[:2]),)


def two_on_one_gpu(host: Host) -> tuple[Place, ...]:
    """Two processes on the same GPU."""
    return tuple(Place(gpus=host.gpus[:1], rank=rank, ranks=2) for rank in range(2))


class Variant(NamedTuple):
    """What is added to the environment of a workload, and whether its processes are suspended as one."""

    name: str
    added: Mapping[str, str] = MappingProxyType({})
    together: bool = True


ALONE: Final = Variant("alone")
TOGETHER: Final = Variant("together")
USUAL: Final = frozenset({ALONE.name, TOGETHER.name})
"""The variants that are as this tool suspends a program that nobody prepared for it."""


class Workload(NamedTuple):
    """A kind of program by its id, what its processes get on a host, and the variants to try.

    `hazard` is how badly it was seen to end, here or by others: 0 well, or refused; 1 lost; 2 hung. The worst are
    tried last.
    """

    kind: str
    program: type[Program]
    places: Callable[[Host], tuple[Place, ...]] = alone
    variants: tuple[Variant, ...] = (ALONE,)
    hazard: int = 0


def found() -> tuple[Workload, ...]:
    """All kinds, the least hazardous first."""
    names = sorted(info.name for info in pkgutil.iter_modules(workloads.__path__))
    modules = [importlib.import_module(f"{workloads.__name__}.{name}") for name in names]
    kinds = [one for module in modules for one in getattr(module, "WORKLOADS", ())]
    return tuple(sorted(kinds, key=lambda one: (one.hazard, one.kind)))


def of_kind(kind: str) -> Workload:
    """The one with this id."""
    return next(one for one in found() if one.kind == kind)
