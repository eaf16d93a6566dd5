"""A completion as it is written: read aside, so that it is in flight while other things are asked of the engine.

Source: vllm 0.26.0, entrypoints/openai/completion/serving.py; WHATWG HTML, server-sent events.
"""

from __future__ import annotations

import contextlib
import http.client
import queue
import socket
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from warmspare.control.vllm_address import Address
from warmspare.control.vllm_wire import (
    BODY,
    ENDED,
    TOO_LONG,
    UNKNOWN,
    Connection,
    EngineFailed,
    NotVllm,
    Reply,
    Request,
    refuse_redirect,
    send,
    told_apart,
)

CALL: Final = "POST /v1/completions"
READ: Final = 65_536
BROKEN: Final = "broken"
LEAVE_S: Final = 5.0
_NUMBERED: Final = "token_id:"
_EVENT: Final = b"data:"
_DONE: Final = b"[DONE]"


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """What came at once: tokens with their logprobs, and how long after the request."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    finish_reason: str | None
    after_s: float


class Stream:
    """One request, under way from when it is made. Leaving it closes the connection: the engine then drops it."""

    def __init__(self, place: Address, request: Request, within_s: float) -> None:
        """Send it to an address in numbers; nothing here waits for the engine."""
        self.failure: EngineFailed | None = None
        """Why it is broken, once it is."""
        self._began = time.monotonic()
        self._within_s = within_s
        self._pieces: queue.SimpleQueue[Piece | None] = queue.SimpleQueue()
        self._finish: str | None = None
        self._over = threading.Event()
        self._left = False
        self._connection = Connection(place, self._began + within_s)
        self._thread = threading.Thread(target=self._follow, args=(request,), daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Break it off where it is still under way."""
        self.close()

    def wait_piece(self, within_s: float) -> Piece | None:
        """The next that came; None: none came in time, or no more will (`ended` says which)."""
        try:
            piece = self._pieces.get(timeout=max(0.0, within_s))
        except queue.Empty:
            return None
        if piece is None:
            self._pieces.put(None)  # whoever asks again is told again
        return piece

    def ended(self, within_s: float) -> str | None:
        """How it ended: the engine's finish reason, or `broken` (see `failure`); None: it has not."""
        if not self._over.wait(max(0.0, within_s)):
            return None
        return BROKEN if self.failure or self._finish is None else self._finish

    def close(self) -> None:
        """Break it off; what came stays to be read."""
        self._left = True
        opened = self._connection.opened
        if opened is not None:
            with contextlib.suppress(OSError):  # it is closed already
                opened.shutdown(socket.SHUT_RDWR)
        self._thread.join(LEAVE_S)

    def _follow(self, request: Request) -> None:
        try:
            with contextlib.closing(self._connection), told_apart(CALL):
                send(self._connection, request)
                with self._connection.getresponse() as response:
                    self._read(response)
        except EngineFailed as failure:
            self.failure = self._said(failure)
        except Exception as error:  # noqa: BLE001 # told to whoever waits, who would wait for ever
            self.failure = NotVllm(UNKNOWN, f"{CALL}: {type(error).__name__}")
        finally:
            self._over.set()
            self._pieces.put(None)

    def _said(self, failure: EngineFailed) -> EngineFailed:
        if self._left:
            return EngineFailed("left", f"{CALL}: we broke it off")
        if failure.how == "hung":
            return EngineFailed(f"no answer within {self._within_s:g} s", failure.detail, how="hung")
        return failure

    def _read(self, response: http.client.HTTPResponse) -> None:
        refuse_redirect(response, CALL)
        if response.status != http.client.OK:
            reply = Reply(status=response.status, body=response.read(READ), took_s=time.monotonic() - self._began)
            raise EngineFailed.of(reply, CALL)
        for event in _events(response):
            if event == _DONE:
                break
            piece = self._piece(event)
            self._finish = piece.finish_reason or self._finish
            self._pieces.put(piece)
        if self._finish is None:
            raise EngineFailed(ENDED, f"{CALL}: in the middle of the answer", how="died")

    def _piece(self, event: bytes) -> Piece:
        try:
            told = msgspec.json.decode(event)
        except (msgspec.DecodeError, RecursionError):
            raise NotVllm(UNKNOWN, CALL) from None
        if isinstance(told, dict) and "error" in told:
            raise _error(told["error"])
        try:
            choice = told["choices"][0]
            listed = choice.get("logprobs") or {"tokens": [], "token_logprobs": []}
            return Piece(
                tokens=tuple(int(token.removeprefix(_NUMBERED)) for token in listed["tokens"]),
                logprobs=tuple(float(value) for value in listed["token_logprobs"]),
                text=str(choice.get("text") or ""),
                finish_reason=choice.get("finish_reason"),
                after_s=time.monotonic() - self._began,
            )
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            raise NotVllm(UNKNOWN, CALL) from None


def _events(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """The data of each event; each is one line here."""
    rest, seen = b"", 0
    while data := response.read1(READ):
        seen += len(data)
        if seen > BODY:
            raise EngineFailed(TOO_LONG, CALL)
        *lines, rest = (rest + data).split(b"\n")
        yield from (line.removeprefix(_EVENT).strip() for line in lines if line.startswith(_EVENT))


def _error(told: Any) -> EngineFailed:  # noqa: ANN401 # what came, not yet looked at
    """An error that came after a 200: by then the status was sent."""
    code = told.get("code") if isinstance(told, dict) else None
    message = str(told.get("message", "")) if isinstance(told, dict) else str(told)
    status = code if type(code) is int else None
    reply = Reply(status=status or 200, body=message.encode(), took_s=0.0)
    failure = EngineFailed.of(reply, f"{CALL}, in the answer")
    return EngineFailed(failure.code if status else "an error", failure.detail, status=status)
