"""On which GPUs an engine is that is there already."""

from __future__ import annotations

from warmspare.control import listening, process
from warmspare.control.vllm import Engine, Unix
from warmspare.host import nvml
from warmspare.trials.given import Gpu


def gpus(engine: Engine, all_of_them: tuple[Gpu, ...]) -> tuple[Gpu, ...]:
    """Those on which NVML lists a process of the server's; all, where that cannot be told (as from another container).

    What changes on them while it sleeps and wakes is then the engine's all the same, if nobody else is at work.
    """
    try:
        address = engine.address
        if isinstance(address, Unix):
            top = listening.on_socket(address.path)
        else:
            top = listening.on_port(address.host, address.port)
    except listening.NotFound:
        return all_of_them
    its = {top, *below(top)}
    found = tuple(gpu for gpu in all_of_them if gpu.nvml is not None and its & (nvml.compute_pids(gpu.nvml) or set()))
    return found or all_of_them


def below(pid: int) -> set[int]:
    """All processes that it has started, and that those have."""
    found: set[int] = set()
    for child in process.children(pid):
        found |= {child, *below(child)}
    return found
