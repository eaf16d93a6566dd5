"""Scenes with a graph, played by test_cuda_graph.py on the stand-in driver."""

from __future__ import annotations

from scenes import contexts, perform, put, refusal, words_of
from warmspare.control.cuda import Stream
from warmspare.control.cuda_graph import Graph
from warmspare.control.kernels import WORD_BYTES, Kernels


def counts() -> list[object]:
    """A captured sum is not carried out until it is launched, then as often as it is, in its stream's order."""
    context = contexts()[0]
    kernels, words, stream = Kernels(context), context.allocate(4 * WORD_BYTES), context.stream()
    put(words, [5, 6, 7, 8])
    graph = Graph(context, lambda captured: kernels.add(words.pointer, words.size, 2, captured))
    seen: list[object] = [words_of(words, 4)]
    graph.launch(stream)
    graph.launch(stream)
    stream.synchronize()
    seen.append(words_of(words, 4))
    graph.launch()
    seen.append(words_of(words, 4))  # the copy waits for the context's own stream
    graph.close()
    seen.append(refusal(lambda: context.call("cuStreamEndCapture", stream.handle, None)) is not None)
    return seen


def refused() -> object:
    """What the driver refuses is told, and the context goes on."""
    context = contexts()[0]
    kernels, words = Kernels(context), context.allocate(WORD_BYTES)
    put(words, [1])
    said = refusal(lambda: Graph(context, lambda captured: kernels.add(words.pointer, words.size, 2, captured)))
    kernels.add(words.pointer, words.size, 1)
    return [said, words_of(words, 1)]


def spoilt() -> object:
    """Work that waits for the stream which is captured spoils the capture; one that raises is not hidden."""
    context = contexts()[0]

    def fail(_: Stream) -> None:
        message = "no such luck"
        raise RuntimeError(message)

    said: list[object] = [refusal(lambda: Graph(context, lambda captured: captured.synchronize()))]
    try:
        Graph(context, fail)
    except RuntimeError as error:
        said.append(str(error))
    kernels, words = Kernels(context), context.allocate(WORD_BYTES)
    put(words, [1])
    Graph(context, lambda captured: kernels.add(words.pointer, words.size, 2, captured)).launch()
    return [*said, words_of(words, 1)]


if __name__ == "__main__":
    perform(globals())
