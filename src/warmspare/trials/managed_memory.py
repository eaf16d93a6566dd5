"""Let CPU and GPU use the same managed memory: in turns, and at once where the driver says that they may."""

from __future__ import annotations

import ctypes
from typing import ClassVar, Final, NamedTuple

from warmspare.control import host_memory
from warmspare.control.cuda import Buffer
from warmspare.model.facts import Cause, Count, Kind, Outcome, Proof
from warmspare.probes.gpus import GPU
from warmspare.trials.api import NotTried, Steps, trial
from warmspare.trials.given import Gpu
from warmspare.trials.on_gpu import MIB, SHARE, Ready, ready, seed

MOST: Final = 64 * MIB
ON_GPU: Final = 2
"""How many times that much it takes of the GPU: the managed memory, and a pattern beside it."""
ON_HOST: Final = 5
"""And of the host: the managed memory again, two patterns, and copies to compare."""
PATIENCE_S: Final = 5.0
"""How long the GPU is held at most; it lets go by itself then."""
GO: Final = 1
WORD_BYTES: Final = 8


class ManagedMemory(Proof, frozen=True, kw_only=True):
    """Managed memory written by each of CPU and GPU and read by the other.

    `concurrent` is whether both used it at once; False where the driver says that they may not, which is then not
    tried, since the CPU's touch would kill the process. `pageable`: the GPU also reaches memory that nobody prepared.
    """

    KIND: ClassVar[Kind] = GPU

    concurrent: bool | None = None
    pageable: bool | None = None
    size_mib: Count | None = None


@trial(
    deadline=30,
    touches="a CUDA context and up to 128 MiB of each GPU, and up to 320 MiB of the host;"
    " never over a tenth of what is free",
    quick=True,
)
def managed_memory(steps: Steps, gpu: Gpu) -> ManagedMemory:
    """The attributes first; never more than is free, since what does not fit is moved back and forth without end.

    At once: while a kernel holds the GPU, the CPU reads and writes other pages of the same allocation. That the kernel
    was there all the time, it says itself: it ends only when it sees the CPU's flag.
    """
    at = ready(steps, gpu)
    size = min(MOST, at.share // ON_GPU, host_memory.free_bytes() // SHARE // ON_HOST) // (2 * MIB) * (2 * MIB)
    if not size:
        raise NotTried(Cause.SKIPPED, "a tenth of the free memory is too little")
    concurrent = at.context.device.attribute("concurrent_managed_access") == 1
    pageable = at.context.device.attribute("pageable_memory_access") == 1
    one, other = (steps.prepare("make a pattern", pattern, at, size) for _ in range(2))
    managed = steps("allocate", at.context.allocate_managed, size)
    if problem := steps("GPU writes, CPU reads", gpu_writes, at, managed, one):
        steps.wrong(problem)
    if problem := steps("CPU writes, GPU reads", cpu_writes, at, managed, other):
        steps.wrong(problem)
    if concurrent and (problem := steps("both at once", both, at, managed, (other, one))):
        steps.wrong(problem)
    return ManagedMemory(
        outcome=Outcome(kind="done"),
        concurrent=concurrent,
        pageable=pageable,
        size_mib=size // MIB,
    )


class Pattern(NamedTuple):
    """A pattern as the kernels know it, and as the CPU does."""

    seed: int
    data: bytes


def pattern(at: Ready, size: int) -> Pattern:
    """A new one, made by the GPU in memory of its own."""
    number, buffer = seed(), at.context.allocate(size)
    at.kernels.fill(buffer.pointer, size, number)
    made = Pattern(number, buffer.read(size))
    buffer.free()
    return made


def gpu_writes(at: Ready, managed: Buffer, one: Pattern) -> str | None:
    """What is wrong with what the CPU reads after the GPU wrote, or None."""
    at.kernels.fill(managed.pointer, managed.size, one.seed)
    at.context.synchronize()
    right = ctypes.string_at(managed.pointer, managed.size) == one.data
    return None if right else "the CPU does not read what the GPU wrote"


def cpu_writes(at: Ready, managed: Buffer, one: Pattern) -> str | None:
    """What is wrong with what the GPU reads after the CPU wrote, or None."""
    ctypes.memmove(managed.pointer, one.data, managed.size)
    found = at.kernels.check(managed.pointer, managed.size, one.seed)
    return (
        f"the GPU finds {found.wrong} words wrong that the CPU wrote, the first at {found.first}"
        if found.wrong
        else None
    )


def both(at: Ready, managed: Buffer, patterns: tuple[Pattern, Pattern]) -> str | None:
    """The first half for the GPU, the second for the CPU while the GPU is held; what is wrong then, or None."""
    before, after = patterns
    half = managed.size // 2
    there = managed.pointer + half
    with_flag, stream = at.context.pin(WORD_BYTES), at.context.stream()
    flag = ctypes.c_uint64.from_address(with_flag.pointer)
    flag.value = 0
    begun = at.context.event().record(stream)
    at.kernels.hold(with_flag.pointer, GO, PATIENCE_S, stream)
    held = at.context.event().record(stream)
    at.kernels.fill(managed.pointer, half, after.seed, stream)
    begun.synchronize()
    read_right = ctypes.string_at(there, half) == before.data[half:]
    ctypes.memmove(there, after.data[half:], half)
    let_go = held.is_over()
    flag.value = GO
    if not at.kernels.held(stream) or let_go:
        return f"the CPU did not come through within the {PATIENCE_S:g} s that a kernel held the GPU"
    if not read_right:
        return "the CPU does not read what was there while a kernel holds the GPU"
    found = at.kernels.check(managed.pointer, managed.size, after.seed)
    return (
        f"{found.wrong} words are wrong after both wrote at once, the first at {found.first}" if found.wrong else None
    )
