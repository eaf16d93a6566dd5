"""The replica's memory, on the reader's side: seals looked at, and versions verified by what is there."""

from __future__ import annotations

import struct
from types import TracebackType
from typing import Final, Self

from warmspare.control.cuda import Context
from warmspare.control.kernels import Kernels
from warmspare.control.replica.slots import SEAL_BYTES, WORD_BYTES, Layout, Sealed, Slot
from warmspare.control.replica.undo import Undo

_SEAL: Final = struct.Struct("<4Q")
_SUM: Final = struct.Struct("<Q")
_SEAL_WORDS: Final = SEAL_BYTES // 4


class Replica:
    """An allocation of slots on one GPU, and what it takes to verify them. One thread at a time may use it."""

    def __init__(self, context: Context, layout: Layout, tag: int) -> None:
        """Take the memory, with no valid seal in it.

        Raises:
            CudaError: the driver refuses, for instance for want of memory.
        """
        self.context, self.layout, self.tag = context, layout, tag
        with Undo() as undo:
            self._kernels = Kernels(context)
            undo.freeing(self._kernels.close)
            self._stream = context.stream()
            undo.freeing(self._stream.close)
            self._sum = context.allocate(2 * WORD_BYTES)
            undo.freeing(self._sum.free)
            self._host = context.pin(layout.slots * SEAL_BYTES + WORD_BYTES)
            undo.freeing(self._host.free)
            self._seen = self._host.bytes()
            undo.callback(self._seen.release)
            self.buffer = context.allocate(layout.total)
            undo.freeing(self.buffer.free)
            undo.freeing(self._stream.synchronize)
            for slot in range(layout.slots):
                context.set_words(self.buffer.pointer + layout.seal(slot), 0, _SEAL_WORDS, self._stream)
            self._stream.synchronize()
            self._undo = undo.pop_all()

    def __enter__(self) -> Self:
        """Use it until the block ends."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Free it."""
        self.close()

    def state(self, slot: int) -> int:
        """The pointer to the state in a slot."""
        return self.buffer.pointer + self.layout.state(slot)

    def seals(self) -> dict[int, Sealed]:
        """What is written in each slot's seal at this moment."""
        for slot in range(self.layout.slots):
            self._fetch_seal(slot)
        self._stream.synchronize()
        return {slot: self._seal(slot) for slot in range(self.layout.slots)}

    def verified(self, slot: Slot) -> Sealed | None:
        """The seal of a version that is whole, or None: the bytes that are there now have the checksum of its seal.

        The seal is of this version and session, with a possible size, and is read before and after.
        """
        self._fetch_seal(slot.slot)
        self._stream.synchronize()
        sealed = self._seal(slot.slot)
        if sealed.version != slot.version or not sealed.may_be(self.layout, self.tag):
            return None
        self._kernels.start_checksum(self.state(slot.slot), sealed.size, self._sum.pointer, self._stream)
        at_sum = self.layout.slots * SEAL_BYTES
        self.context.copy_out(self._host.pointer + at_sum, self._sum.pointer, WORD_BYTES, self._stream)
        self._fetch_seal(slot.slot)
        self._stream.synchronize()
        (checksum,) = _SUM.unpack_from(self._seen, at_sum)
        return sealed if checksum == sealed.checksum and sealed == self._seal(slot.slot) else None

    def close(self) -> None:
        """Free all of it."""
        self._undo.close()

    def _fetch_seal(self, slot: int) -> None:
        source = self.buffer.pointer + self.layout.seal(slot)
        self.context.copy_out(self._host.pointer + slot * SEAL_BYTES, source, SEAL_BYTES, self._stream)

    def _seal(self, slot: int) -> Sealed:
        return Sealed(*_SEAL.unpack_from(self._seen, slot * SEAL_BYTES))
