"""A GPU's memory as NVML tells it, which sees that of all processes: an engine's own word is not asked."""

from __future__ import annotations

from typing import NamedTuple

from warmspare.control.host_memory import MIB
from warmspare.host import nvml
from warmspare.model.facts import Cause
from warmspare.model.transcript import Gave
from warmspare.trials.api import NotTried
from warmspare.trials.given import Gpu


class Memory(NamedTuple):
    """In MiB, of one GPU."""

    used_mib: int
    free_mib: int
    total_mib: int


def memory_of(gpu: Gpu) -> Memory:
    """What is used, free, and there. Source: nvml.h, nvmlDeviceGetMemoryInfo.

    Raises:
        NotTried: NVML does not tell.
    """
    answer = nvml.ask("nvmlDeviceGetMemoryInfo", str(gpu.nvml)) if gpu.nvml is not None else None
    told = answer.value if isinstance(answer, Gave) and isinstance(answer.value, dict) else {}
    used, free, total = (told.get(name) for name in ("used", "free", "total"))
    if not (isinstance(used, int) and isinstance(free, int) and isinstance(total, int)):
        raise NotTried(Cause.INVALID, f"NVML does not tell the memory of {gpu.subject}")
    return Memory(used // MIB, free // MIB, total // MIB)
