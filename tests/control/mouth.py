"""A server that says just what it is told to, on a real socket: every way in which an engine can misbehave."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

Say = Callable[[socket.socket], None]
CHUNKED: Final = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Mouth:
    """It reads one request of each connection, and says what comes next; when nothing is left, the last again."""

    def __init__(self, opened: socket.socket, says: tuple[Say, ...]) -> None:
        """Listen."""
        self.asked: list[bytes] = []
        self._says = list(says)
        self._opened = opened
        self._threads = [threading.Thread(target=self._listen, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        """Stop listening."""
        with contextlib.suppress(OSError):
            self._opened.shutdown(socket.SHUT_RDWR)
        self._opened.close()
        for thread in self._threads:
            thread.join(10)

    def lines(self) -> list[str]:
        """The first line of each request."""
        return [asked.split(b"\r\n")[0].decode() for asked in self.asked]

    def bodies(self) -> list[bytes]:
        """The body of each request."""
        return [asked.partition(b"\r\n\r\n")[2] for asked in self.asked]

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._opened.accept()
                say = self._says.pop(0) if len(self._says) > 1 else self._says[0]
                thread = threading.Thread(target=self._answer, args=(client, say), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _answer(self, client: socket.socket, say: Say) -> None:
        with client, contextlib.suppress(OSError):
            self.asked.append(_request(client))
            client.settimeout(20)
            say(client)


def _request(client: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += client.recv(65_536)
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    while len(body) < int(lengths[0] if lengths else 0):
        body += client.recv(65_536)
    return head + b"\r\n\r\n" + body


@contextlib.contextmanager
def mouth(path: Path, *says: Say) -> Iterator[Mouth]:
    """One on a unix socket."""
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(str(path))
        opened.listen()
        spoken = Mouth(opened, says)
        try:
            yield spoken
        finally:
            spoken.close()


def raw(*parts: bytes) -> Say:
    """These bytes, and the end."""

    def say(client: socket.socket) -> None:
        for part in parts:
            client.sendall(part)

    return say


def answer(body: object, status: str = "200 OK", headers: str = "") -> Say:
    """A whole answer: bytes as they are, anything else as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return raw(f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(data)}\r\n\r\n".encode() + data)


def chunk(data: bytes) -> bytes:
    """One of a chunked answer; an empty one is its end."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(token: int, finish: str | None = None) -> bytes:
    """What vLLM writes for one token."""
    logprobs = {"tokens": [f"token_id:{token}"], "token_logprobs": [-token / 10], "top_logprobs": [{}]}
    choice = {"index": 0, "text": f"<{token}>", "logprobs": logprobs, "finish_reason": finish}
    return chunk(b"data: " + json.dumps({"id": "x", "choices": [choice]}).encode() + b"\n\n")


def said(*events: bytes) -> Say:
    """A whole completion."""
    return raw(CHUNKED, *events, chunk(b"data: [DONE]\n\n"), chunk(b""))
