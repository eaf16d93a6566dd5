"""A replica as its writer's GPU has it open: the copies into it are queued here."""

from __future__ import annotations

from warmspare.control import cuda_abi as abi
from warmspare.control.cuda import Context, Event, Stream
from warmspare.control.kernels import Kernels, Seal
from warmspare.control.replica.messages import Hello
from warmspare.control.replica.slots import WORD_BYTES, Layout, Slot
from warmspare.control.replica.undo import Undo


class Opened:
    """The reader's memory, mapped for one GPU, and what it takes to write versions into it."""

    def __init__(self, context: Context, layout: Layout, hello: Hello) -> None:
        """Map what the reader said hello with.

        Raises:
            CudaError: the driver refuses.
        """
        self.context, self.layout, self._tag = context, layout, hello.tag
        self._is_mapped = False
        with Undo() as undo:
            self._kernels = Kernels(context)
            undo.freeing(self._kernels.close)
            self._replica = context.open_shared(hello.handle, layout.total)
            self._is_mapped = True
            undo.freeing(self.unmap)
            self._sums = context.allocate(layout.slots * WORD_BYTES)
            undo.freeing(self._sums.free)
            once = abi.EVENT_BLOCKING_SYNC | abi.EVENT_DISABLE_TIMING  # a wait must not burn one of the engine's cores
            self._passed: list[Event] = []
            for _ in range(layout.slots):
                self._passed.append(context.event(once))
                undo.freeing(self._passed[-1].close)
            self._undo = undo.pop_all()

    def queue(self, taken: Slot, pointer: int, size: int, at: Stream | None) -> Event:
        """The seal off, the bytes over, and the seal on: each after the other, by the stream's own order."""
        context, total = self.context, self._sums.pointer + taken.slot * WORD_BYTES
        seal = self._replica.pointer + self.layout.seal(taken.slot)
        self._kernels.seal(seal, Seal(0, 0, total, 0), at)
        context.copy(self._replica.pointer + self.layout.state(taken.slot), pointer, size, at)
        self._kernels.start_checksum(pointer, size, total, at)
        self._kernels.seal(seal, Seal(taken.version, size, total, self._tag), at)
        return self._passed[taken.slot].record(at)

    def unmap(self) -> None:
        """Let go of the reader's memory, once: nothing that was queued may still be at work."""
        if self._is_mapped:
            self._is_mapped = False
            self._replica.close()

    def close(self) -> None:
        """Free all of it."""
        self._undo.close()
