"""How much memory a GPU has to give: by NVML, which has no part in CUDA's calls; else by CUDA itself, and told so.

Another process's memory is seen from outside of it either way.
"""

from __future__ import annotations

import time
from typing import Final, Literal, NamedTuple

from warmspare.control.cuda import Context
from warmspare.host import nvml
from warmspare.model.transcript import Gave
from warmspare.trials.given import Gpu
from warmspare.trials.on_gpu import opened

Instrument = Literal["nvml", "cuda"]
LOOK_AGAIN_S: Final = 0.01


class Free(NamedTuple):
    """So many bytes, and who says so."""

    bytes: int
    by: Instrument


def free(context: Context, index: int | None) -> Free:
    """What the GPU of this context, whose NVML number is `index`, has to give.

    Source: nvml.h, nvmlDeviceGetMemoryInfo; cuda.h, cuMemGetInfo.
    """
    told = free_by_nvml(index)
    return Free(context.memory().free, "cuda") if told is None else Free(told, "nvml")


def more(context: Context, index: int | None, before: Free) -> int | None:
    """How many bytes more that is than before, by the same instrument; None if it does not say any more."""
    now = free(context, index)
    return now.bytes - before.bytes if now.by == before.by else None


class Watch:
    """What another process gives back of a GPU, or takes, from now on. `by` says who tells."""

    def __init__(self, gpu: Gpu) -> None:
        """Look now. Only where NVML does not tell is a context made for it, in this process."""
        self._index = gpu.nvml
        told = free_by_nvml(gpu.nvml)
        self._context = opened(gpu) if told is None else None
        self.by: Instrument = "nvml" if told is not None else "cuda"
        self._before = self._free()

    def rose(self, least: int, patience_s: float) -> int:
        """How many bytes more are free now, waited for until they are at least so many."""
        return self._changed(1, least, patience_s)

    def fell(self, least: int, patience_s: float) -> int:
        """How many bytes less, in the same way."""
        return self._changed(-1, least, patience_s)

    def _changed(self, way: int, least: int, patience_s: float) -> int:
        deadline = time.monotonic() + patience_s
        while (change := way * (self._free() - self._before)) < least and time.monotonic() < deadline:
            time.sleep(LOOK_AGAIN_S)
        return change

    def _free(self) -> int:
        told = self._context.memory().free if self._context else free_by_nvml(self._index)
        if told is None:
            message = "NVML no longer tells how much memory is free"
            raise OSError(message)
        return told


def lists(index: int | None, pid: int) -> bool | None:
    """Whether NVML lists a process among those that compute on a GPU; None if it does not tell.

    In a container its numbers may be the host's. Source: nvml.h, nvmlDeviceGetComputeRunningProcesses.
    """
    listed = nvml.compute_pids(index) if index is not None else None
    return None if listed is None else pid in listed


def free_by_nvml(index: int | None) -> int | None:
    """What a GPU has to give in bytes, by NVML; None where it does not say."""
    if index is None:
        return None
    answer = nvml.ask("nvmlDeviceGetMemoryInfo", str(index))
    told = answer.value.get("free") if isinstance(answer, Gave) and isinstance(answer.value, dict) else None
    return told if isinstance(told, int) else None
