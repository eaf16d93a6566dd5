"""HTTP to an engine that may be slow, hostile or gone: one exchange, and what can come of it."""

from __future__ import annotations

import contextlib
import errno
import http.client
import re
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Final, Literal

import msgspec

from warmspare.control.lever import LeverRefused
from warmspare.control.vllm_address import Address, Tcp, Unix

BODY: Final = 8 * 1024 * 1024
"""The longest answer that is read."""
DETAIL: Final = 200
TOO_LONG: Final = "an answer above 8 MiB"
ENDED: Final = "the connection ended"
SLOW: Final = "no answer in time"
NO_HTTP: Final = "no HTTP"
UNKNOWN: Final = "an unknown answer"


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """An answer, and how long it took to be there whole."""

    status: int
    body: bytes
    took_s: float


class EngineFailed(LeverRefused):
    """An engine that did not do what it was asked.

    `how` is `refused` where it said so (then `status` is what it answered with), `hung` where it did not answer in
    time, `died` where nobody listens or the connection ended in the middle.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        how: Literal["refused", "hung", "died", "wrong"] = "refused",
        status: int | None = None,
    ) -> None:
        """Carry the code, such as `HTTP 404` or `ECONNREFUSED`, and the call with the first line of what it said."""
        super().__init__(code, detail)
        self.how, self.status = how, status

    @staticmethod
    def of(reply: Reply, call: str) -> EngineFailed:
        """The one of an answer."""
        said = first_line(reply.body)
        return EngineFailed(f"HTTP {reply.status}", f"{call}: {said}" if said else call, status=reply.status)


class NotVllm(EngineFailed):
    """Something answers, and it is no vLLM."""


def first_line(body: bytes) -> str:
    """The first line of an answer that holds something, fit to be shown."""
    text = body[: 16 * DETAIL].decode("utf-8", "replace")
    lines = (" ".join("".join(char if char.isprintable() else " " for char in line).split()) for line in _lines(text))
    return next((line for line in lines if line), "")[:DETAIL]


def _lines(text: str) -> list[str]:
    return re.split(r"[\r\n]", text)


class DeadlineSocket(socket.socket):
    """One whose every wait counts against a single deadline (of time.monotonic)."""

    __slots__ = ("deadline",)
    deadline: float

    def _left(self) -> None:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.settimeout(left)

    def connect(self, address: object) -> None:
        """Connect in time."""
        self._left()
        super().connect(address)  # type: ignore[arg-type] # whatever the family takes

    def recv_into(self, *args: object, **named: object) -> int:
        """Read in time."""
        self._left()
        return super().recv_into(*args, **named)  # type: ignore[arg-type] # passed on

    def sendall(self, *args: object) -> None:
        """Write in time."""
        self._left()
        super().sendall(*args)  # type: ignore[arg-type] # passed on


class Connection(http.client.HTTPConnection):
    """One to an address in numbers, with a deadline."""

    def __init__(self, place: Address, deadline: float) -> None:
        """Take them; nothing is connected yet."""
        super().__init__("localhost" if isinstance(place, Unix) else place.host)
        self._place, self._deadline = place, deadline
        self.opened: DeadlineSocket | None = None
        """The socket, also after http.client let go of it: what is still being read can be shut down."""
        if isinstance(place, Tcp):
            self.port = place.port

    def connect(self) -> None:
        """Connect."""
        self.sock = self.opened = connected(self._place, self._deadline)


def connected(place: Address, deadline: float) -> DeadlineSocket:
    """A socket to an address in numbers."""
    if isinstance(place, Unix):
        family, target = socket.AF_UNIX, place.path
    else:
        family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
        target = (place.host, place.port)  # type: ignore[assignment] # by family
    opened = DeadlineSocket(family, socket.SOCK_STREAM)
    opened.deadline = deadline
    try:
        opened.connect(target)
    except BaseException:
        opened.close()
        raise
    return opened


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes | None = None

    @property
    def call(self) -> str:
        """The call as it is shown: without its query."""
        return f"{self.method} {self.path.partition('?')[0]}"


def exchange(place: Address, request: Request, deadline: float) -> Reply:
    """Ask once, and read the answer whole.

    Raises:
        EngineFailed: nobody is there, it is too slow or too long, it breaks off, it is a redirect or no HTTP.
    """
    call = request.call
    began = time.monotonic()
    connection = Connection(place, deadline)
    with contextlib.closing(connection), told_apart(call):
        send(connection, request)
        with connection.getresponse() as response:
            refuse_redirect(response, call)
            data = response.read(BODY + 1)
            if len(data) > BODY:
                raise EngineFailed(TOO_LONG, call, status=response.status)
            if response.length:  # http.client is silent where a read with a bound meets the end too early
                raise http.client.IncompleteRead(data, response.length)
            return Reply(status=response.status, body=data, took_s=time.monotonic() - began)


def send(connection: Connection, request: Request) -> None:
    """Send it; the connection serves this one only."""
    connection.request(request.method, request.path, request.body, {**request.headers, "Connection": "close"})


def refuse_redirect(response: http.client.HTTPResponse, call: str) -> None:
    """Another address is another engine.

    Raises:
        EngineFailed: it is one.
    """
    if 300 <= response.status < 400:  # noqa: PLR2004 # RFC 9110, 15.4
        reply = Reply(status=response.status, body=b"it points elsewhere", took_s=0.0)
        raise EngineFailed.of(reply, call)


@contextlib.contextmanager
def told_apart(call: str) -> Iterator[None]:
    """What can go wrong on the wire, as what it means of the engine.

    Raises:
        EngineFailed: it went wrong.
    """
    try:
        yield
    except TimeoutError:
        raise EngineFailed(SLOW, call, how="hung") from None
    except http.client.RemoteDisconnected:
        raise EngineFailed(ENDED, f"{call}: no answer", how="died") from None
    except http.client.IncompleteRead:
        raise EngineFailed(ENDED, f"{call}: in the middle of the answer", how="died") from None
    except OSError as error:
        code = errno.errorcode.get(error.errno or 0, type(error).__name__)
        raise EngineFailed(code, call, how="refused" if error.errno == errno.EACCES else "died") from None
    except (http.client.HTTPException, ValueError) as error:
        raise NotVllm(NO_HTTP, f"{call}: {first_line(str(error).encode())}") from None
