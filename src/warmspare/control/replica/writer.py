"""The writer's side of a replica: versions of a GPU buffer, copied to the reader's GPU and sealed there."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, NamedTuple, Self

from warmspare.control import process
from warmspare.control.cuda import Context, Driver, Event, Stream
from warmspare.control.cuda_driver import CudaError
from warmspare.control.replica import wire
from warmspare.control.replica.door import GONE, heard
from warmspare.control.replica.errors import ProtocolError, ReaderGone, ReplicaError
from warmspare.control.replica.messages import (
    PROTOCOL,
    Accepted,
    Goodbye,
    Message,
    News,
    Ready,
    Released,
)
from warmspare.control.replica.opened import Opened
from warmspare.control.replica.slots import WORD_BYTES, WriterSlots
from warmspare.control.replica.source import be_own
from warmspare.control.replica.undo import Undo
from warmspare.control.replica.wire import Closed

PATIENCE_S: Final = 10.0
LOOK_AGAIN_S: Final = 0.1
"""How often a wait for the reader looks whether the GPU has failed meanwhile."""
CLOSED: Final = "the writer is closed"


class _Queued(NamedTuple):
    """A version whose copy is queued on the GPU."""

    version: int
    slot: int
    passed: Event
    published_ns: int


class Writer:
    """Keeps versions of a state on the reader's GPU. Threads may publish in turn.

    It works in the primary context of its GPU, so that pointers of torch and other users of the CUDA runtime are good
    in it. It never touches a slot that the reader has not released.
    """

    def __init__(self, gpu: str, link: wire.Link, *, timeout_s: float = PATIENCE_S) -> None:
        """Meet the reader at `link` and open its replica for use by `gpu` (a UUID or PCI address).

        Raises:
            Refused: the reader is another user's process.
            ReaderGone: it closed instead of saying hello.
            ProtocolError: it speaks another version of the protocol, or something else altogether.
            TimeoutError: it said nothing in time.
            OSError: nobody listens at the path.
            CudaError: the driver refuses, for instance 217: no peer access between the two GPUs.
        """
        with contextlib.ExitStack() as here, Undo() as undo:
            connected = wire.connected(link, timeout_s)
            undo.callback(connected.close)
            self._wire = wire.Wire(connected)
            hello, self.layout = heard(self._wire, timeout_s)
            self.reader_gpu = hello.gpu.rstrip(b"\0").decode("ascii", "replace")
            self.context = Context(Driver().device(gpu))
            undo.freeing(self.context.release)
            here.enter_context(self.context.visited())
            self._opened = Opened(self.context, self.layout, hello)
            undo.freeing(self._opened.close)
            self._stop = os.eventfd(0, os.EFD_CLOEXEC)
            undo.callback(os.close, self._stop)
            # Only now, when all of the driver's descriptors are open.
            self._wire.be_closed_early()
            undo.callback(self._wire.close)
            self._send(Ready(PROTOCOL))
            self._undo = undo.pop_all()
        self._slots = WriterSlots(self.layout.slots)
        self._publishing = threading.Condition()
        self._is_parting = False
        self._marking = threading.Lock()
        self._failure: ReplicaError | CudaError | None = None
        self._settled = 0
        self._queue: queue.SimpleQueue[_Queued | None] = queue.SimpleQueue()
        self._closed, self._pid = False, os.getpid()
        self.published = self.sealed = self.accepted = 0
        """The last version queued, the last known to be whole on the other GPU, the last that the reader accepted."""
        self._teller = threading.Thread(target=self._tell, name="warmspare-replica-writer", daemon=True)
        self._teller.start()
        self._listener = threading.Thread(target=self._listen, name="warmspare-replica-listener", daemon=True)
        self._listener.start()

    def __enter__(self) -> Self:
        """Use it until the block ends."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close it; a block that is left by an error says no goodbye: its owner has died, and the reader takes over."""
        self._end(in_peace=not isinstance(error, Exception))

    def publish(
        self,
        pointer: int,
        size: int | None = None,
        stream: Stream | int | None = None,
        *,
        wait: bool = True,
        timeout_s: float = PATIENCE_S,
    ) -> int | None:
        """Queue a version: `size` bytes at a device pointer, in order on `stream`; returns its number at once.

        No size is the whole of the replica's.

        `stream` is a CUDA stream's handle (torch: `stream.cuda_stream`) or one of ours; None is the default stream.
        The bytes must not change until the stream has passed: what is queued on it afterwards may change them.
        Where the reader has released no slot it waits, or with `wait=False` drops the version and returns None.

        Raises:
            ValueError: the size is no multiple of 8 bytes or more than the replica holds, or the pointer is not
                aligned to 8 bytes, not this GPU's, or fewer bytes than these before the end of what cudaMalloc gave.
            ReaderGone: the reader has closed or died; nothing of the writer's own is touched.
            TimeoutError: no slot was released in time.
            CudaError: the driver refuses.
        """
        published_ns = time.monotonic_ns()
        size = self.layout.size if size is None else size
        if pointer % WORD_BYTES or size % WORD_BYTES or not 0 < size <= self.layout.size:
            message = f"{size} bytes at {pointer:#x}: 8-byte words are kept, at most {self.layout.size} bytes of them"
            raise ValueError(message)
        with self._publishing:
            self._hear()
            if self._slots.is_full and not wait:
                return None
            self._hear_until(lambda: not self._slots.is_full, timeout_s, "no slot was released")
            with self.context.visited():
                be_own(self.context, pointer, size)
                at = Stream(self.context, stream) if isinstance(stream, int) else stream
                self.published = self._queued(pointer, size, at, published_ns)
            return self.published

    def flush(self, timeout_s: float = PATIENCE_S) -> int:
        """Wait until all that was published is settled by the reader; returns the version that it holds then.

        Raises:
            ReaderGone, CudaError: as for `publish`.
            TimeoutError: it is not settled in time.
        """
        with self._publishing:
            last = self.published
            self._hear_until(lambda: self._settled >= last, timeout_s, f"version {last} is not settled")
            return self.accepted

    def close(self) -> None:
        """Let what is queued pass, say goodbye and free everything. The reader keeps its last version."""
        self._end(in_peace=True)

    def _end(self, *, in_peace: bool) -> None:
        if os.getpid() != self._pid:  # a forked child: neither the GPU nor the conversation is its own
            return
        with self._publishing:
            if self._closed:
                return
            self._closed = True
            self._publishing.notify_all()
        os.eventfd_write(self._stop, 1)
        self._listener.join()
        self._let_pass()
        with self.context.visited(), self._undo:
            if in_peace:
                try:
                    self._opened.unmap()
                finally:  # the reader may free its memory when it hears this
                    with contextlib.suppress(Closed):
                        self._wire.send(Goodbye())

    def _let_pass(self) -> None:
        """Wait until all that is queued has passed, and is told of."""
        self._queue.put(None)
        self._teller.join()

    def _queued(self, pointer: int, size: int, at: Stream | None, published_ns: int) -> int:
        """Take a slot, and queue all that is to be done to it."""
        taken = self._slots.take()
        try:
            passed = self._opened.queue(taken, pointer, size, at)
        except CudaError:
            # What was queued of it must have passed before the slot may be written again.
            (at or self.context).synchronize()
            self._slots.untaken(taken)
            raise
        self._queue.put(_Queued(*taken, passed, published_ns))
        return taken.version

    def _tell(self) -> None:
        """The thread that waits for each version to be whole, and says so: also when nobody publishes any more."""
        while queued := self._queue.get():
            try:
                queued.passed.synchronize()
                self.sealed = queued.version
                with self._marking:
                    self._slots.told(queued.version, queued.slot)
                self._send(News(queued.version, queued.slot, queued.published_ns))
            except (CudaError, ReaderGone) as failure:
                self._failure = self._failure or failure

    def _listen(self) -> None:
        """The thread that hears the reader when nobody publishes: after its goodbye it waits to free the memory."""
        descriptor = self._wire.fileno()
        while self._stop not in process.ready([self._stop, descriptor], None):
            with self._publishing:
                try:
                    self._hear()
                except (ReplicaError, CudaError):
                    break
        if self._is_parting:
            self._let_pass()
            try:
                self._opened.unmap()
            except CudaError:  # a GPU that failed: whoever uses it next is told so, and the memory is not in use
                pass
            finally:
                self._wire.close()

    def _send(self, message: Message) -> None:
        try:
            self._wire.send(message)
        except Closed as closed:
            raise ReaderGone(GONE) from closed

    def _hear_until(self, done: Callable[[], bool], timeout_s: float, otherwise: str) -> None:
        """Wait with the lock let go, so that others may publish what needs no waiting, or close."""
        deadline = time.monotonic() + timeout_s
        self._hear()
        while not done():
            left = deadline - time.monotonic()
            if left <= 0:
                message = f"{otherwise} within {timeout_s:g} s"
                raise TimeoutError(message)
            self._publishing.wait(min(left, LOOK_AGAIN_S))
            self._hear()

    def _hear(self) -> None:
        """Take in what the reader has said by now. The lock is held: one thread at a time receives."""
        if self._closed:
            raise ReplicaError(CLOSED)
        try:
            while not self._failure and process.ready([self._wire.fileno()], 0.0):
                for message in self._wire.receive():
                    self._heed(message)
                self._publishing.notify_all()
        except Closed:
            self._failure = ReaderGone(GONE)
        except ProtocolError as failure:
            self._failure = failure
        if self._failure:
            raise self._failure

    def _heed(self, message: Message) -> None:
        match message:
            case Accepted(version=version):
                self.accepted = version
            case Released(version=version, slot=slot):
                with self._marking:
                    self._slots.released(version, slot)
            case Goodbye():
                self._is_parting = True
                raise Closed
            case _:
                problem = f"the reader sent {type(message).__name__}"
                raise ProtocolError(problem)
        self._settled = max(self._settled, version)
