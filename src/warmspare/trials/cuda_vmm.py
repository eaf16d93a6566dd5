"""Do with CUDA's virtual memory what Sleep Mode does: keep the addresses, give the memory away, and come back."""

from __future__ import annotations

import time
from typing import ClassVar, Final, NamedTuple

from warmspare.control import host_memory, vmm
from warmspare.control.cuda import Context, CudaError, HostBuffer
from warmspare.control.kernels import POISON
from warmspare.model.facts import Cause, Count, Kind, Outcome, Proof, Seconds, Text
from warmspare.probes.gpus import GPU
from warmspare.trials.api import NotTried, Steps, trial
from warmspare.trials.free_memory import Free, Instrument, free, more
from warmspare.trials.given import Gpu
from warmspare.trials.on_gpu import GIB, MIB, SHARE, Ready, pinned, ready, seed

REAL: Final = 32 * GIB
"""What programs reserve at a time. Source: withcatai/node-llama-cpp#610, which it failed for under WSL2."""
MOST: Final = 512 * MIB
CHUNKS: Final = 8
WORD32_BYTES: Final = 4
CAME_BACK: Final = 0.9
"""The part of the memory that must be seen to come back: what others use of the GPU changes meanwhile."""
SETTLED_S: Final = 1.0
"""How long it may take until it is seen: the driver gives back in its own time."""
LOOK_AGAIN_S: Final = 0.05


class CudaVmm(Proof, frozen=True, kw_only=True):
    """Addresses reserved, memory created, mapped, taken away and brought back under the same addresses, content right.

    `reserved_gib` is the largest range of addresses that was reserved at once, and `reserve_refusal` what a range as
    large as the GPU's memory was refused with, if it was. `mib_freed` is what the GPU had more to give while the memory
    was away, as `freed_by` says: NVML, or where that is silent CUDA itself, whose own word it then is. Times are for a
    GiB: to copy out and give away, and to create, map and copy back in.
    """

    KIND: ClassVar[Kind] = GPU

    reserved_gib: Count | None = None
    reserve_refusal: Text | None = None
    mib_freed: Count | None = None
    freed_by: Instrument | None = None
    sleep_s_per_gib: Seconds | None = None
    wake_s_per_gib: Seconds | None = None


class Chunk(NamedTuple):
    """Memory at an offset of the reservation, its pattern, and its place in the copy on the host."""

    handle: int
    offset: int
    seed: int
    at: int


class Tenant:
    """Chunks of memory, far apart in one range of addresses, with a copy of them on the host."""

    def __init__(self, ready: Ready, range_: vmm.Reservation, size: int, copy: HostBuffer) -> None:
        """Hold nothing yet; `size` is a chunk's."""
        self.context, self.kernels = ready.context, ready.kernels
        self.range, self.size, self.copy = range_, size, copy
        self.chunks: tuple[Chunk, ...] = ()

    def move_in(self, step: int) -> None:
        """Create the chunks, map them from the first address of the range to its last, and fill them."""
        gap = (self.range.size - self.size) // (CHUNKS - 1) // step * step
        places = [*(n * gap for n in range(CHUNKS - 1)), self.range.size - self.size]
        self.chunks = tuple(
            Chunk(vmm.create(self.context, self.size), place, seed(), n * self.size) for n, place in enumerate(places)
        )
        for chunk in self.chunks:
            pointer = self.range.map(chunk.handle, self.size, chunk.offset).pointer
            self.kernels.fill(pointer, self.size, chunk.seed)
        self.context.synchronize()

    def sleep(self) -> None:
        """Copy every chunk out and give it away."""
        for chunk in self.chunks:
            self.context.copy_out(self.copy.pointer + chunk.at, self.range.base + chunk.offset, self.size)
        self.context.synchronize()
        for chunk in self.chunks:
            self.range.unmap(self.size, chunk.offset)
            vmm.release(self.context, chunk.handle)

    def map_again(self) -> None:
        """Put new memory behind the same addresses."""
        self.chunks = tuple(chunk._replace(handle=vmm.create(self.context, self.size)) for chunk in self.chunks)
        for chunk in self.chunks:
            self.range.map(chunk.handle, self.size, chunk.offset)

    def poison(self) -> None:
        """So that content which is still there by chance does not pass for what is copied back."""
        for chunk in self.chunks:
            self.context.set_words(self.range.base + chunk.offset, POISON, self.size // WORD32_BYTES)
        self.context.synchronize()

    def copy_back(self) -> None:
        """Fill the chunks from the copy on the host."""
        for chunk in self.chunks:
            self.context.copy_in(self.range.base + chunk.offset, self.copy.pointer + chunk.at, self.size)
        self.context.synchronize()

    def problem(self) -> str | None:
        """What the GPU finds wrong in the chunks, each with its own pattern, or None."""
        for chunk in self.chunks:
            found = self.kernels.check(self.range.base + chunk.offset, self.size, chunk.seed)
            if found.wrong:
                return (
                    f"{found.wrong} words are wrong in the chunk at {chunk.offset // MIB} MiB, from word {found.first}"
                )
        return None

    def move_out(self) -> None:
        """Give everything back, the addresses too."""
        for chunk in self.chunks:
            self.range.unmap(self.size, chunk.offset)
            vmm.release(self.context, chunk.handle)
        self.range.free()


@trial(
    deadline=30,
    touches="a CUDA context and up to 512 MiB of each GPU, addresses for all of its memory, and up to 512 MiB of the"
    " host, pinned; never over a tenth of what is free",
    quick=True,
)
def cuda_vmm(steps: Steps, gpu: Gpu) -> CudaVmm:
    """A range of real size is reserved, since small ones work where large ones do not; the chunks lie all over it.

    That the memory comes back while it sleeps is asked of NVML, and that the content does is seen by the GPU's own
    check, after what was there was overwritten.
    """
    at = ready(steps, gpu)
    step = steps("ask for the granularity", vmm.granularity, at.context)
    size = min(MOST, at.share, host_memory.free_bytes() // SHARE) // CHUNKS // step * step
    if not size:
        raise NotTried(Cause.SKIPPED, f"a tenth of the free memory is less than {CHUNKS * step // MIB} MiB")
    copy = steps.prepare("pin memory for the copy", _pinned, at.context, size, step)
    size = copy.size // CHUNKS
    range_ = steps("reserve 32 GiB", vmm.Reservation, at.context, REAL)
    range_, refusal = steps("reserve as much as the GPU has", _as_large, range_, at.context, step)
    tenant = Tenant(at, range_, size, copy)
    steps("create, map and fill", tenant.move_in, step)
    if problem := steps("check", tenant.problem):
        steps.wrong(problem)
    mapped = steps("see what is free", free, at.context, gpu.nvml)
    steps("sleep", tenant.sleep)
    freed = steps("see what came back", _freed, at.context, gpu.nvml, mapped, int(CAME_BACK * CHUNKS * size))
    if freed < CAME_BACK * CHUNKS * size:
        steps.wrong(f"{CHUNKS * size // MIB} MiB were given away, and the GPU has {freed // MIB} MiB more to give")
    steps("map again", tenant.map_again)
    steps("overwrite", tenant.poison)
    steps("copy back", tenant.copy_back)
    if problem := steps("check what came back", tenant.problem):
        steps.wrong(problem)
    steps("give it back", tenant.move_out)
    gib = CHUNKS * size / GIB
    return CudaVmm(
        outcome=Outcome(kind="done"),
        reserved_gib=range_.size // GIB,
        reserve_refusal=refusal,
        mib_freed=freed // MIB,
        freed_by=mapped.by,
        sleep_s_per_gib=round(steps.took_s["sleep"] / gib, 4),
        wake_s_per_gib=round((steps.took_s["map again"] + steps.took_s["copy back"]) / gib, 4),
    )


def _pinned(context: Context, size: int, step: int) -> HostBuffer:
    """Memory for so many chunks of `size`, or for smaller ones."""
    try:
        return pinned(context, CHUNKS * size, CHUNKS * step)
    except CudaError as error:
        raise NotTried(Cause.SKIPPED, f"no memory for the copy could be pinned: {error}") from None


def _freed(context: Context, index: int | None, mapped: Free, enough: int) -> int:
    """How many bytes more there are to give than before, by the instrument that told the first number."""
    deadline = time.monotonic() + SETTLED_S
    while True:
        freed = more(context, index, mapped)
        if freed is None:
            raise NotTried(Cause.INVALID, "NVML says no more what is free")
        if freed >= enough or time.monotonic() > deadline:
            return freed
        time.sleep(LOOK_AGAIN_S)


def _as_large(range_: vmm.Reservation, context: Context, step: int) -> tuple[vmm.Reservation, str | None]:
    """A range as large as the GPU's memory if one can be had: it, or the one we have with what the driver said."""
    whole = context.memory().total // step * step
    if whole <= range_.size:
        return range_, None
    try:
        larger = vmm.Reservation(context, whole)
    except CudaError as error:
        return range_, error.code
    range_.free()
    return larger, None
