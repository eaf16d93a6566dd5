"""How much memory a GPU has to give: by NVML, which has no part in CUDA's calls; else by CUDA itself, and told so."""

from __future__ import annotations

from typing import Literal, NamedTuple

from warmspare.control.cuda import Context
from warmspare.host import nvml
from warmspare.model.transcript import Gave

Instrument = Literal["nvml", "cuda"]


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


def free_by_nvml(index: int | None) -> int | None:
    """The same in bytes, by NVML alone; None where it does not say."""
    if index is None:
        return None
    answer = nvml.ask("nvmlDeviceGetMemoryInfo", str(index))
    told = answer.value.get("free") if isinstance(answer, Gave) and isinstance(answer.value, dict) else None
    return told if isinstance(told, int) else None
