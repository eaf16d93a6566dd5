"""Copy between the host's memory and a GPU, pinned and pageable, both ways: right, and how fast."""

from __future__ import annotations

import ctypes
import mmap
import statistics
from collections.abc import Callable
from typing import ClassVar, Final

from warmspare.control import host_memory
from warmspare.control.cuda import Buffer, Context, CudaError, HostBuffer, Memory
from warmspare.control.kernels import POISON, WORD_BYTES, word
from warmspare.model.facts import Cause, Count, GbPerS, Kind, Outcome, Proof, Text
from warmspare.probes.gpus import GPU
from warmspare.trials.api import NotTried, Steps, trial
from warmspare.trials.given import Gpu
from warmspare.trials.on_gpu import MIB, SHARE, Ready, pinned, ready, seed

BLOCK: Final = 256 * MIB
"""Large enough that starting a copy costs under a thousandth of its time."""
REPEATS: Final = 11
"""How often a pinned copy is timed: half a tenth of a second a way at 55 GB/s."""
PAGEABLE_REPEATS: Final = 3
PAGE: Final = 4096
WORD32_BYTES: Final = 4


class HostCopy(Proof, frozen=True, kw_only=True):
    """Medians in decimal GB/s, into the GPU (`h2d`) and out of it (`d2h`), of blocks of `block_mib`.

    The pinned ones are None where nothing could be pinned, for the reason `pinned_refusal`. `link_gb_per_s` is what its
    PCIe link is said to carry one way. `nodes` are the NUMA nodes on which the pinned pages lie, empty where the kernel
    does not say; `near` says whether those are all near to the GPU.
    """

    KIND: ClassVar[Kind] = GPU

    pinned_h2d_gb_per_s: GbPerS | None = None
    pinned_d2h_gb_per_s: GbPerS | None = None
    pageable_h2d_gb_per_s: GbPerS | None = None
    pageable_d2h_gb_per_s: GbPerS | None = None
    link_gb_per_s: GbPerS | None = None
    block_mib: Count | None = None
    pinned_refusal: Text | None = None
    nodes: tuple[Count, ...] = ()
    near: bool | None = None


class Copier:
    """A block on the GPU and the two ways to and from it, poisoned before and checked after."""

    def __init__(self, at: Ready, size: int) -> None:
        """Take the block, and make a pattern."""
        self.context, self.kernels, self.size, self.seed = at.context, at.kernels, size, seed()
        self.block: Buffer = at.context.allocate(size)
        self.stream = at.context.stream()

    def out(self, host: Memory) -> None:
        """Copy out of the GPU."""
        self.context.copy_out(host.pointer, self.block.pointer, self.size, self.stream)

    def into(self, host: Memory) -> None:
        """Copy into the GPU."""
        self.context.copy_in(self.block.pointer, host.pointer, self.size, self.stream)

    def out_problem(self, host: Memory) -> str | None:
        """Copy a pattern out over poison: what is wrong with it on the CPU, one word of every page looked at."""
        self.kernels.fill(self.block.pointer, self.size, self.seed, self.stream)
        self.stream.synchronize()
        ctypes.memset(host.pointer, POISON & 0xFF, self.size)
        self.out(host)
        self.stream.synchronize()
        return wrong_word(host, self.size, self.seed)

    def in_problem(self, host: Memory) -> str | None:
        """Copy it back over poison: what is wrong with it on the GPU, every word looked at."""
        self.context.set_words(self.block.pointer, POISON, self.size // WORD32_BYTES, self.stream)
        self.stream.synchronize()
        self.into(host)
        self.stream.synchronize()
        found = self.kernels.check(self.block.pointer, self.size, self.seed, self.stream)
        return f"{found.wrong} words arrived wrong, the first at {found.first}" if found.wrong else None

    def gb_per_s(self, copy: Callable[[Memory], None], host: Memory, repeats: int) -> float:
        """The median of several copies, each timed by the GPU's own clock; the checked copies were the warm-up."""
        took_s = []
        for _ in range(repeats):
            begun, ended = self.context.event().record(self.stream), self.context.event()
            copy(host)
            took_s.append(ended.record(self.stream).since_s(begun))
        return round(self.size / statistics.median(took_s) / 1e9, 2)


@trial(
    deadline=40,
    touches="a CUDA context and up to 256 MiB of each GPU, and up to 512 MiB of the host, half of it pinned;"
    " never over a tenth of what is free",
    quick=True,
)
def host_copy(steps: Steps, gpu: Gpu) -> HostCopy:
    """What comes out of the GPU is looked at by the CPU, and what goes in by the GPU: no copy vouches for itself.

    The process keeps to the processors near the GPU, so that the memory it takes is near as well; the kernel is then
    asked where it lies.
    """
    host_memory.stay_near(gpu.numa_nodes)
    at = ready(steps, gpu)
    size = min(BLOCK, at.share, host_memory.free_bytes() // SHARE // 2) // MIB * MIB
    if not size:
        raise NotTried(Cause.SKIPPED, "a tenth of the free memory is less than 1 MiB")
    fast, refusal = steps("pin", _pinned, at.context, size)
    size = fast.size if fast else size
    copier = steps.prepare("take memory of the GPU", Copier, at, size)
    pageable = steps.prepare("take pageable memory", Pageable, at.context, size)
    for name, host in ((("pinned", fast),) if fast else ()) + (("pageable", pageable),):
        if problem := steps(f"copy out, {name}", copier.out_problem, host):
            steps.wrong(f"on the CPU: {problem}")
        if problem := steps(f"copy in, {name}", copier.in_problem, host):
            steps.wrong(f"on the GPU: {problem}")
    where = tuple(sorted(host_memory.nodes_of(fast.pointer))) if fast else ()
    return HostCopy(
        outcome=Outcome(kind="done"),
        pinned_h2d_gb_per_s=steps("time in, pinned", copier.gb_per_s, copier.into, fast, REPEATS) if fast else None,
        pinned_d2h_gb_per_s=steps("time out, pinned", copier.gb_per_s, copier.out, fast, REPEATS) if fast else None,
        pageable_h2d_gb_per_s=steps("time in, pageable", copier.gb_per_s, copier.into, pageable, PAGEABLE_REPEATS),
        pageable_d2h_gb_per_s=steps("time out, pageable", copier.gb_per_s, copier.out, pageable, PAGEABLE_REPEATS),
        link_gb_per_s=gpu.pcie_gb_per_s,
        block_mib=size // MIB,
        pinned_refusal=refusal,
        nodes=where,
        near=set(where) <= set(gpu.numa_nodes) if where and gpu.numa_nodes else None,
    )


def _pinned(context: Context, size: int) -> tuple[HostBuffer | None, str | None]:
    """As much of it as can be pinned, or what the last MiB was refused with: pageable copies need none."""
    try:
        return pinned(context, size, MIB), None
    except CudaError as error:
        return None, error.code


class Pageable(Memory):
    """Host memory as any program gets it: private, not pinned; every page is touched, so that none is only promised."""

    def __init__(self, context: Context, size: int) -> None:
        """Map it."""
        self._map = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        super().__init__(context, ctypes.addressof(ctypes.c_char.from_buffer(self._map)), size)
        ctypes.memset(self.pointer, 1, size)


def wrong_word(host: Memory, size: int, number: int) -> str | None:
    """The first word that differs from the pattern, of one word in every page; each page has another's place."""
    words = memoryview((ctypes.c_char * size).from_address(host.pointer)).cast("B").cast("Q")
    step = PAGE // WORD_BYTES
    for start in range(0, len(words), step):
        index = start + word(number, start) % step
        if words[index] != word(number, index):
            return f"word {index} of {len(words)} is {words[index]:#x}, and not {word(number, index):#x}"
    return None
