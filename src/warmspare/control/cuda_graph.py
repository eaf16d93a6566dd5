"""A CUDA graph: work that is captured from a stream once, and launched as a whole again and again.

Source: CUDA driver API, "Graph Management" and "Stream Management".
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from warmspare.control import cuda_abi as abi
from warmspare.control.cuda import Context, Stream


class Graph:
    """What `work` starts on a stream, ready to be launched. Its kernels must have run before: that loads them."""

    def __init__(self, context: Context, work: Callable[[Stream], None]) -> None:
        """Capture it, and instantiate the graph; nothing of it is run yet.

        Raises:
            CudaError: the driver refuses, or the work holds what cannot be captured.
        """
        self.context = context
        captured, self._executable = _captured(context, work), abi.Handle()
        try:
            context.call("cuGraphInstantiateWithFlags", ctypes.byref(self._executable), captured, 0)
        finally:
            context.call("cuGraphDestroy", captured)

    def launch(self, stream: Stream | None = None) -> None:
        """Run it once, in stream order."""
        self.context.call("cuGraphLaunch", self._executable, stream.handle if stream else abi.Handle())

    def close(self) -> None:
        """Give it up; none of its launches may still be at work."""
        self.context.call("cuGraphExecDestroy", self._executable)


def _captured(context: Context, work: Callable[[Stream], None]) -> abi.Handle:
    stream, graph = context.stream(), abi.Handle()
    context.call("cuStreamBeginCapture_v2", stream.handle, abi.CAPTURE_MODE_THREAD_LOCAL)
    try:
        work(stream)
    finally:  # a stream that captures can do nothing else, and what went wrong spoils the capture
        ended = context.driver.result("cuStreamEndCapture", stream.handle, ctypes.byref(graph))
        stream.close()
    if ended != abi.SUCCESS:
        context.driver.fail("cuStreamEndCapture", ended)
    return graph
