"""How writer and reader meet: a unix stream socket in a private folder, both of the same user.

Source: unix(7) (SO_PEERCRED, SCM_CREDENTIALS).
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import resource
import socket
import struct
import time
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

from warmspare.control import process
from warmspare.control.replica.errors import ProtocolError, Refused
from warmspare.control.replica.messages import Goodbye, Message, decoded, encoded

_CREDENTIALS: Final = struct.Struct("3i")
_READ_BYTES: Final = 16_384
_PRIVATE: Final = 0o077
ROOT: Final = 0
HIGHEST: Final = 65_536
"""Descriptors are numbered below this, or below the process's own limit: a table for more would cost memory."""


Link: TypeAlias = str | os.PathLike[str] | socket.socket
"""Where the two meet: the path of a socket in a private folder, or a socket that is connected already."""
M = TypeVar("M", bound=Message)


class Closed(Exception):
    """The other side's end of the socket is closed."""


class Wire:
    """One side of a connected socket. One thread receives; any may send."""

    def __init__(self, connected: socket.socket, *, wants_pid: bool = False) -> None:
        """Take the socket over.

        Raises:
            Refused: the other side is another user's, or it is no unix socket.
        """
        self._socket, self._data = connected, bytearray()
        self.peer_pid: int | None = None
        if connected.family != socket.AF_UNIX or connected.type != socket.SOCK_STREAM:
            message = "a replica is spoken of over a unix stream socket"
            raise Refused(message)
        _be_same_user(connected)
        connected.setblocking(True)  # noqa: FBT003 # the socket's own name for it
        if wants_pid:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)

    def fileno(self) -> int:
        """Its descriptor, to wait for."""
        return self._socket.fileno()

    def send(self, message: Message) -> None:
        """Say something.

        Raises:
            Closed: nobody is there to hear it.
        """
        try:
            self._socket.sendall(encoded(message))
        except OSError as error:  # also a socket that was shut down, or closed on this side
            raise Closed from error

    def receive(self) -> list[Message]:
        """All that was said; waits for the first of it.

        Raises:
            Closed: the other side is closed, and all that it said was given before.
            ProtocolError: it said what is no message.
        """
        space = socket.CMSG_SPACE(_CREDENTIALS.size)
        try:
            data, beside, *_ = self._socket.recvmsg(_READ_BYTES, space, socket.MSG_CMSG_CLOEXEC)
        except ConnectionError as error:  # it was closed with words of ours unread
            raise Closed from error
        for level, kind, told in beside:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                self.peer_pid = _CREDENTIALS.unpack_from(told)[0] or None  # 0: in a pid namespace beside ours
            elif (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                for descriptor in array.array("i", told[: len(told) - len(told) % 4]):
                    os.close(descriptor)
                message = "descriptors are no part of the protocol"
                raise ProtocolError(message)
        if not data:
            raise Closed
        self._data += data
        return list(decoded(self._data))

    def first(self, kind: type[M], timeout_s: float) -> M:
        """The other side's first message, which must be of this kind.

        Raises:
            TimeoutError: it said nothing in time.
            Closed: it was closed instead.
            ProtocolError: it said something else.
        """
        deadline = time.monotonic() + timeout_s
        while process.ready([self.fileno()], max(0.0, deadline - time.monotonic())):
            match self.receive():
                case []:
                    continue
                case [*_, Goodbye()]:
                    raise Closed
                case [message] if isinstance(message, kind):
                    return message
                case [other, *_]:
                    problem = f"{type(other).__name__} came where {kind.__name__} was to be, or more than it"
                    raise ProtocolError(problem)
        problem = f"no {kind.__name__} came within {timeout_s:g} s"
        raise TimeoutError(problem)

    def be_closed_early(self) -> None:
        """Have the kernel close this socket among the first things of this process when it is killed.

        A process that ends closes the descriptor of the highest number first (in Linux since 4.3 the last put off is
        the first done), and a GPU's can take long: with a number above them, the other side hears of the end before
        the driver has cleared up. It is a matter of time only.
        """
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        number = min(soft if soft > 0 else HIGHEST, HIGHEST) - 1
        with contextlib.suppress(OSError):  # no such number is free: then it is closed later
            moved = fcntl.fcntl(self._socket.fileno(), fcntl.F_DUPFD_CLOEXEC, number)
            old, self._socket = self._socket, socket.socket(fileno=moved)
            old.close()

    def close(self) -> None:
        """Speak no more."""
        self._socket.close()


def _be_same_user(connected: socket.socket) -> None:
    _, uid, _ = _CREDENTIALS.unpack(connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    if uid not in (os.geteuid(), ROOT):
        message = f"the other side runs as user {uid}, not as {os.geteuid()} or root"
        raise Refused(message)


def listening(path: str | os.PathLike[str]) -> socket.socket:
    """A socket at a path, in a folder that is made if need be and must be private (0700, our own).

    Raises:
        Refused: others may enter or write the folder.
        OSError: it cannot be made there.
    """
    folder = Path(path).parent
    folder.mkdir(mode=0o700, exist_ok=True)
    seen = folder.stat()
    if seen.st_uid != os.geteuid() or seen.st_mode & _PRIVATE:
        message = f"{folder} is not private: it must be ours, with mode 0700"
        raise Refused(message)
    _be_rid_of_a_dead_ones(path)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        server.bind(os.fspath(path))
        server.listen(1)
    except OSError:
        server.close()
        raise
    return server


def _be_rid_of_a_dead_ones(path: str | os.PathLike[str]) -> None:
    """Remove the name that a reader left that was killed. One that listens is asked in a way that it does not notice.

    A datagram socket is refused by a name that nobody listens at, and told of its wrong kind by one that is in use.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            Path(path).unlink(missing_ok=True)
        except OSError:  # there is none, or it is in use: bind(2) tells
            return


def connected(link: Link, timeout_s: float) -> socket.socket:
    """The writer's end of a link.

    Raises:
        OSError: nobody listens there.
    """
    if isinstance(link, socket.socket):
        return link
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(timeout_s)
    try:
        client.connect(os.fspath(link))
    except OSError:
        client.close()
        raise
    return client


def opened(link: Link, door: contextlib.ExitStack) -> socket.socket:
    """The reader's end of a link: a connected socket as it is, or a listening one that goes with its name and the door.

    Raises:
        Refused, OSError: as for `listening`.
    """
    if isinstance(link, socket.socket):
        return link
    server = listening(link)
    door.callback(server.close)
    door.callback(Path(link).unlink, missing_ok=True)
    return server
