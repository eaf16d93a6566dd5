"""A program with a CUDA graph, which engines capture once and launch for every token."""

from __future__ import annotations

from typing import Final

from warmspare.control.cuda_graph import Graph
from warmspare.trials.workloads.api import Place, Program, Workload

STEP: Final = 0x5EED
LAUNCHES: Final = 3


class WithGraph(Program):
    """A graph that adds to every word of a pattern, captured before the suspend and launched after it."""

    def __init__(self, place: Place) -> None:
        """Take the memory, and capture the graph."""
        super().__init__(place)
        context = place.open()
        held = self.hold(context, context.allocate(self.size(context)))
        memory = held.memory
        held.kernels.add(memory.pointer, memory.size, 0)  # loads the kernel, which a capture could not
        context.synchronize()
        self._graph = Graph(context, lambda stream: held.kernels.add(memory.pointer, memory.size, STEP, stream))

    def act(self, seed: int) -> None:
        """Launch it some times over a new pattern, and take the steps back without it: the pattern must be there."""
        super().act(seed)
        held = self.held[0]
        for _ in range(LAUNCHES):
            self._graph.launch()
        held.kernels.add(held.memory.pointer, held.memory.size, -LAUNCHES * STEP)
        held.context.synchronize()


WORKLOADS: Final = (Workload("cuda-graph", WithGraph),)
