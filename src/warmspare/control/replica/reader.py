"""The reader's side of a replica: it owns the memory, accepts versions, and takes over when the writer dies."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Final, Self, TypeVar

from warmspare.control import process
from warmspare.control.cuda import Context, Driver
from warmspare.control.cuda_driver import CudaError
from warmspare.control.replica import wire
from warmspare.control.replica.door import Door, part
from warmspare.control.replica.errors import CallbackError, ProtocolError, ReplicaError, WriterGone
from warmspare.control.replica.memory import Replica
from warmspare.control.replica.messages import (
    MAGIC,
    PROTOCOL,
    Accepted,
    Goodbye,
    Hello,
    Message,
    News,
    Ready,
    Released,
)
from warmspare.control.replica.slots import Ended, ReaderSlots, Slot, Version, laid_out
from warmspare.control.replica.undo import Undo
from warmspare.control.replica.wire import Closed

SLOTS: Final = 3
PARTING_S: Final = 2.0
"""How long the memory is kept for a writer that still has it open."""
_TAG_BITS: Final = 63
V = TypeVar("V", Version, "Version | None")


class Reader:
    """Holds the newest whole version of a writer's state. One reader serves one writer, once.

    `on_version` and `on_death` (where the session ended as `died`) are called on its own thread: while they run,
    nothing else is accepted. What they raise ends the session as `broken`.
    """

    def __init__(  # noqa: PLR0913 # each of them by its name
        self,
        gpu: str,
        size: int,
        link: wire.Link,
        *,
        slots: int = SLOTS,
        on_version: Callable[[Version], None] | None = None,
        on_death: Callable[[Version | None], None] | None = None,
    ) -> None:
        """Take `slots` times `size` bytes of a GPU (a UUID or PCI address), and wait for the writer at `link`.

        Raises:
            ValueError: fewer than three slots, or a size that is no multiple of 8 bytes.
            Refused: the socket's folder is not private.
            OSError: the socket cannot be made.
            CudaError: the driver refuses, for instance for want of memory.
        """
        layout = laid_out(slots, size)
        self._on_version, self._on_death = on_version, on_death
        with contextlib.ExitStack() as here, Undo() as undo:
            self._door = Door(link, undo)
            self.context = Context(Driver().device(gpu))
            undo.freeing(self.context.release)
            here.enter_context(self.context.visited())
            self.replica = Replica(self.context, layout, secrets.randbits(_TAG_BITS) | 1)
            undo.freeing(self.replica.close)
            self._handle = self.replica.buffer.shared()
            self._stop, self._stopper = os.pipe2(os.O_CLOEXEC)
            undo.callback(os.close, self._stop)
            undo.callback(os.close, self._stopper)
            self._undo = undo.pop_all()
        self._slots = ReaderSlots(slots)
        self._lock = threading.Lock()
        self._closing, self._is_closed, self._pid = threading.Lock(), False, os.getpid()
        self._found: Version | None = None
        self._told_ns: dict[int, int] = {}
        self._sizes: dict[int, int] = {}
        self._wire: wire.Wire | None = None
        self._gone: int | None = None
        self._is_open = False
        self._over = threading.Event()
        self.ended: Ended | None = None
        self.refused = 0
        """How many versions the writer told of that were not whole."""
        self._thread = threading.Thread(target=self._serve, name="warmspare-replica-reader", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        """Use it until the block ends."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close it."""
        self.close()

    def newest(self) -> Version | None:
        """The newest version that was verified, or None.

        While the writer lives, its slot may be written again once it is superseded: `hold` keeps it. After the
        writer's end it stays until `close`.
        """
        return self._found

    @contextlib.contextmanager
    def hold(self) -> Iterator[Version | None]:
        """The newest version, kept whole until the block ends. The writer has one slot less meanwhile."""
        with self._lock:
            slot, version = self._slots.keep(), self._found
        try:
            yield version
        finally:
            with self._lock:
                released = self._slots.let_go(slot) if slot else None
            if released and self._wire and not self.ended:
                with contextlib.suppress(Closed):  # its end is seen, and answered, on the reader's thread
                    self._wire.send(Released(*released))

    def is_whole(self, version: Version) -> bool:
        """Whether the version is still what was sealed: its checksum is worked out once more, now."""
        with self._lock, self.context.visited():
            return self.replica.verified(Slot(version.number, version.slot)) is not None

    def wait(self, timeout_s: float | None = None) -> Ended | None:
        """How the session ended, once `on_death` has returned if that is called; None if it has not within the time."""
        if threading.current_thread() is not self._thread:  # a callback would wait for itself
            self._over.wait(timeout_s)
        return self.ended

    def writer_is_gone(self, timeout_s: float) -> bool:
        """Whether the writer's process has ended altogether, waiting for it; False also where that cannot be told.

        It is not needed for taking over: the socket is closed before the driver has cleared up.
        """
        return self._gone is not None and bool(process.ready([self._gone], timeout_s))

    def close(self) -> None:
        """End the session and free everything, the versions included. Not to be called from a callback."""
        if os.getpid() != self._pid:  # a forked child: neither the GPU nor the conversation is its own
            return
        with self._closing:
            if self._is_closed:  # the descriptors' numbers are somebody else's by now
                return
            os.write(self._stopper, b"!")
            self._thread.join()
            self._is_closed = True
            with self.context.visited():
                self._undo.close()

    def _serve(self) -> None:
        try:
            self.ended = self._session()
        except (CudaError, ReplicaError, OSError) as error:
            now = time.monotonic()
            self.ended = Ended("broken", self._found, now, now, problem=f"{type(error).__name__}: {error}")
        is_dead = self.ended is not None and self.ended.how == "died"
        if self._wire and (is_dead or (self.ended and self.ended.how == "closed")):
            self._wire.close()
        if self.ended and is_dead:
            try:
                _tell(self._on_death, self.ended.version)
            except CallbackError as error:
                self.ended = self.ended._replace(how="broken", problem=str(error))
        self._over.set()
        if is_dead:
            self.writer_is_gone(PARTING_S)
        elif self._wire and (self.ended is None or self.ended.how == "broken"):
            part(self._wire, self._gone, PARTING_S if self._is_open else 0.0)
            self._wire.close()

    def _session(self) -> Ended | None:
        """Serve one writer to its end; None if this side is closed first."""
        self._wire = self._door.met(self._stop)
        if self._wire is None:
            return None
        try:
            layout, gpu = self.replica.layout, self.context.device.uuid.encode()
            hello = Hello(MAGIC, PROTOCOL, layout.slots, layout.size, self.replica.tag, gpu, self._handle)
            self._wire.send(hello)
            return self._heard_out(self._wire)
        except Closed:
            if not self._is_open:
                message = "the writer closed before it had opened the replica"
                raise WriterGone(message) from None
            try:
                return self._taken_over(time.monotonic())
            except CudaError as error:
                message = f"the writer died, and what it left could not be verified: {error}"
                raise ReplicaError(message) from error

    def _heard_out(self, spoken: wire.Wire) -> Ended | None:
        """Heed what the writer says until it closes in peace; None if this side is closed first.

        Raises:
            Closed: it ended without a goodbye.
        """
        while True:
            watched = [fd for fd in (self._stop, spoken.fileno(), self._gone) if fd is not None]
            ready = process.ready(watched, None)
            if self._stop in ready:
                return None
            if spoken.fileno() in ready:
                messages = spoken.receive()
                if self._heed(spoken, messages):
                    now = time.monotonic()
                    return Ended("closed", self._found, now, now)
            else:  # a child of the writer's that was forked may hold its end of the socket open
                raise Closed

    def _heed(self, spoken: wire.Wire, messages: list[Message]) -> bool:
        """Take in what the writer said; whether it said goodbye."""
        peace = False
        for message in messages:
            match message:
                case Ready(protocol=protocol) if protocol == PROTOCOL and not self._is_open:
                    self._is_open = True
                    if spoken.peer_pid and spoken.peer_pid != os.getpid():
                        self._gone = self._undo.enter_context(process.holding(spoken.peer_pid))
                case News(version=version, slot=slot, published_ns=published_ns) if self._is_open:
                    with self._lock:
                        self._slots.told(version, slot)
                    self._told_ns[version] = published_ns
                case Goodbye():
                    peace = True
                case _:
                    problem = f"the writer sent {message}"
                    raise ProtocolError(problem)
        if self._told_ns:
            self._settle(spoken)
        return peace

    def _settle(self, spoken: wire.Wire) -> None:
        """Accept the newest whole version of those told of, and only then release the others' slots."""
        with self._lock:
            before = self._slots.newest
            released = self._slots.settle(self._verified)
            after = self._slots.newest
            self.refused += sum(slot.version > (after.version if after else 0) for slot in released)
            if after and after != before:
                lag_s = (time.monotonic_ns() - self._told_ns[after.version]) / 1e9
                self._found = found = self._version(after, lag_s)
        self._told_ns.clear()
        if after and after != before:
            _tell(self._on_version, found)
            self._say(spoken, Accepted(*after))
        for slot in released:
            self._say(spoken, Released(*slot))

    @staticmethod
    def _say(spoken: wire.Wire, message: Message) -> None:
        """Tell the writer, if it is there: what it still said before its end, a goodbye for one, is heard first."""
        with contextlib.suppress(Closed):
            spoken.send(message)

    def _taken_over(self, noticed_s: float) -> Ended:
        """The writer is dead: the highest whole version of all slots. From now on no slot is released."""
        layout, tag = self.replica.layout, self.replica.tag
        with self._lock:
            seals = self.replica.seals()
            ours = {slot: sealed for slot, sealed in seals.items() if sealed.may_be(layout, tag)}
            slot, torn = self._slots.take_over(ours, self._verified)
            if slot is None or self._found is None or self._found.number != slot.version:
                self._found = self._version(slot, None) if slot else None
        unsealed = sum(sealed.version == 0 for sealed in seals.values())
        return Ended("died", self._found, noticed_s, time.monotonic(), unsealed, torn)

    def _verified(self, slot: Slot) -> bool:
        sealed = self.replica.verified(slot)
        if sealed:
            self._sizes[slot.slot] = sealed.size
        return sealed is not None

    def _version(self, slot: Slot, lag_s: float | None) -> Version:
        return Version(slot.version, self.replica.state(slot.slot), self._sizes[slot.slot], slot.slot, lag_s)


def _tell(callback: Callable[[V], None] | None, what: V) -> None:
    """Call what somebody else has written, if there is anything to call."""
    try:
        if callback:
            callback(what)
    except BaseException as error:  # also SystemExit, which would end this thread and nothing else
        message = f"a callback raised {type(error).__name__}: {error}"
        raise CallbackError(message) from error
