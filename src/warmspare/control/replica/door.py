"""How the two sides begin and part: the reader lets one writer in, and the writer hears where the replica is."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import Final

from warmspare.control import process
from warmspare.control.replica import wire
from warmspare.control.replica.errors import ProtocolError, ReaderGone, Refused
from warmspare.control.replica.messages import MAGIC, PROTOCOL, Goodbye, Hello
from warmspare.control.replica.slots import Layout, laid_out
from warmspare.control.replica.undo import Undo
from warmspare.control.replica.wire import Closed

GONE: Final = "the reader is gone"


class Door:
    """Where a reader waits for its writer."""

    def __init__(self, link: wire.Link, undo: Undo) -> None:
        """Open it; it is shut by `undo`, if not before.

        Raises:
            Refused, OSError: as for `wire.listening`.
        """
        self._connected = link if isinstance(link, socket.socket) else None
        self._door = undo.enter_context(contextlib.ExitStack())
        self._link = wire.opened(link, self._door)

    def met(self, stop: int) -> wire.Wire | None:
        """A writer that is who it should be; None if `stop` can be read first."""
        if self._connected:
            return wire.Wire(self._connected, wants_pid=True)
        while stop not in process.ready([stop, self._link.fileno()], None):
            came, _ = self._link.accept()
            try:
                met = wire.Wire(came, wants_pid=True)
            except Refused:  # somebody else's: the one that is awaited may still come
                came.close()
            else:
                self._door.close()  # nobody else shall wait to be heard, and the next reader may have the name
                return met
        return None


def part(spoken: wire.Wire, gone: int | None, patience_s: float) -> None:
    """Say goodbye to a writer that has the memory open, and wait until it has let go of it, or its process is gone."""
    with contextlib.suppress(Closed, ProtocolError):
        spoken.send(Goodbye())
        deadline = time.monotonic() + patience_s
        watched = [fd for fd in (spoken.fileno(), gone) if fd is not None]
        while spoken.fileno() in process.ready(watched, max(0.0, deadline - time.monotonic())):
            spoken.receive()


def heard(spoken: wire.Wire, timeout_s: float) -> tuple[Hello, Layout]:
    """The reader's hello, and how its replica is laid out.

    Raises:
        ReaderGone: it closed instead.
        ProtocolError: it speaks another version of the protocol, or of a replica that cannot be.
        TimeoutError: it said nothing in time.
    """
    try:
        hello = spoken.first(Hello, timeout_s)
    except Closed as closed:
        raise ReaderGone(GONE) from closed
    if (hello.magic, hello.protocol) != (MAGIC, PROTOCOL):
        message = f"the reader speaks protocol {hello.protocol}, this is {PROTOCOL}"
        raise ProtocolError(message)
    try:
        return hello, laid_out(hello.slots, hello.size)
    except ValueError as impossible:
        message = f"the reader said that {impossible}"
        raise ProtocolError(message) from impossible
