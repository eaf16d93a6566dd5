"""A vLLM server as its users meet it: over HTTP, nothing of vLLM imported.

One connection a call, a deadline over the whole exchange, no redirect followed, no answer above 8 MiB read. `/sleep`
and `/wake_up` take query parameters: what is sent them as a body is ignored without a word.

Source: vllm 0.26.0, entrypoints/serve/dev/{sleep,cache,rpc}/api_router.py, entrypoints/serve/instrumentator,
entrypoints/openai/completion/protocol.py, entrypoints/serve/tokenize/protocol.py, v1/metrics/loggers.py.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from functools import cached_property
from typing import Any, Final, Literal
from urllib.parse import urlencode

import msgspec

from warmspare.control.vllm_address import (
    Address,
    BadUrl,
    Tcp,
    Unix,
    Unresolved,
    address_at,
    is_key,
    is_loopback,
    resolved,
)
from warmspare.control.vllm_stream import Stream
from warmspare.control.vllm_wire import UNKNOWN, EngineFailed, NotVllm, Reply, Request, exchange

__all__ = ["BadUrl", "Completion", "Engine", "EngineFailed", "NotVllm", "Reply", "Stream", "Tcp", "Unix"]

ANSWER_S: Final = 5.0
"""How long a question that takes the engine no work may take."""
WORK_S: Final = 120.0
"""How long a sleep or a wake may take where the caller names nothing: the first sleep pins host memory."""
NOTHING_CAME: Final = "nothing came"
NO_HOST: Final = "no such host"
NOT_THERE: Final = (404, 405, 501)
_SLEEP_STATE: Final = re.compile(
    rb'^vllm:engine_sleep_state\{(?:[^\n]*?,)?sleep_state="(\w{1,32})"[^\n]*\} 1(?:\.0)?$', re.MULTILINE
)


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine wrote, by token; times from when the request was sent."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    finish_reason: str | None
    first_token_s: float
    took_s: float


class Engine:
    """One engine at an address. Nothing is sent until something is asked."""

    def __init__(self, address: Address, api_key: str | None = None) -> None:
        """Take them.

        Raises:
            BadUrl: the key cannot be sent.
        """
        if api_key is not None and not is_key(api_key):
            message = "the API key holds what no header can carry"
            raise BadUrl(message)
        self.address, self._api_key = address, api_key

    @staticmethod
    def at(url: str, api_key: str | None = None) -> Engine:
        """The engine at `http://HOST:PORT` or `unix:/PATH`.

        Raises:
            BadUrl: it is neither, or has more to it than that.
        """
        return Engine(address_at(url), api_key)

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine for sure: a loopback address or a unix socket.

        Raises:
            EngineFailed: its name leads to no address.
        """
        return isinstance(self.address, Unix) or is_loopback(self._place)

    def version(self) -> str:
        """Its version, as it says.

        Raises:
            NotVllm: something else answers there.
            EngineFailed: as every call: it refused, did not answer, or is not there.
        """
        try:
            told = _field(self.ask("GET", "/version"), "GET /version", "version")
        except EngineFailed as failure:
            if failure.status in NOT_THERE:
                raise NotVllm(failure.code, f"{failure.detail}; this is no vLLM") from None
            raise
        if not isinstance(told, str):
            raise NotVllm(UNKNOWN, "GET /version")
        return told[:64]

    def models(self) -> tuple[str, ...]:
        """The names under which it serves."""
        entries = _field(self.ask("GET", "/v1/models"), "GET /v1/models", "data")
        names = [entry.get("id") if isinstance(entry, dict) else None for entry in _list(entries, "GET /v1/models")]
        if not names or not all(isinstance(name, str) for name in names):
            raise NotVllm(UNKNOWN, "GET /v1/models")
        return tuple(str(name) for name in names)

    def health(self, within_s: float = ANSWER_S) -> int:
        """The status of `/health`, whatever it is; an engine asleep says 200, and so may one that is stuck."""
        return self._exchange("GET", "/health", None, within_s).status

    def sleep(
        self, level: int = 1, mode: Literal["abort", "wait", "keep"] | None = None, within_s: float = WORK_S
    ) -> Reply:
        """Have it sleep. `mode` is what becomes of requests in flight; before 0.17.0 there is none."""
        return self.ask(
            "POST", _query("/sleep", [("level", str(level)), *([("mode", mode)] if mode else [])]), within_s
        )

    def wake(self, tags: Iterable[str] = (), within_s: float = WORK_S) -> Reply:
        """Have it wake; with tags only that part of it (`weights`, `kv_cache`)."""
        return self.ask("POST", _query("/wake_up", [("tags", tag) for tag in tags]), within_s)

    def is_sleeping(self, within_s: float = ANSWER_S) -> bool:
        """What it says of itself; of several ranks, what the first says (before 0.32.0)."""
        told = _field(self.ask("GET", "/is_sleeping", within_s), "GET /is_sleeping", "is_sleeping")
        if not isinstance(told, bool):
            raise NotVllm(UNKNOWN, "GET /is_sleeping")
        return told

    def reset_prefix_cache(self, within_s: float = ANSWER_S) -> Reply:
        """Have it forget what it computed for earlier prompts."""
        return self.ask("POST", "/reset_prefix_cache", within_s)

    def reload_weights(self, within_s: float, path: str | None = None) -> Reply:
        """Have each worker read its weights again, from the model's folder or from `path` (not in older versions)."""
        body: dict[str, Any] = {"method": "reload_weights"}
        if path is not None:
            body["kwargs"] = {"weights_path": path}
        return self.ask("POST", "/collective_rpc", within_s, body)

    def complete(self, prompt: tuple[int, ...], tokens: int, within_s: float) -> Completion:
        """Have it write that many tokens, the likeliest each time.

        Raises:
            EngineFailed: it did not, or not in time; what came until then is lost.
        """
        deadline = time.monotonic() + within_s
        pieces = []
        with self.stream(prompt, tokens, within_s) as stream:
            while piece := stream.wait_piece(deadline - time.monotonic()):
                pieces.append(piece)
            ended = stream.ended(0)
            failure = stream.failure
        if failure:
            raise failure
        if ended is None:
            raise EngineFailed(_no_answer(within_s), "POST /v1/completions", how="hung")
        wrote = [piece for piece in pieces if piece.tokens]
        if not wrote:
            raise EngineFailed(NOTHING_CAME, f"POST /v1/completions: finish reason {ended}")
        return Completion(
            tokens=tuple(token for piece in wrote for token in piece.tokens),
            logprobs=tuple(logprob for piece in wrote for logprob in piece.logprobs),
            text="".join(piece.text for piece in pieces),
            finish_reason=ended,
            first_token_s=wrote[0].after_s,
            took_s=pieces[-1].after_s,
        )

    def stream(self, prompt: tuple[int, ...], tokens: int, within_s: float = 600.0) -> Stream:
        """The same, piece by piece, under way while other things are asked; leaving it breaks the request off.

        `within_s` bounds the whole of it: a request to an engine asleep is held until it wakes.
        """
        body = {
            "model": self._model,
            "prompt": list(prompt),
            "max_tokens": tokens,
            "temperature": 0,
            "logprobs": 1,
            "return_tokens_as_token_ids": True,
            "ignore_eos": True,
            "stream": True,
        }
        sent = msgspec.json.encode(body)
        request = Request(method="POST", path="/v1/completions", headers=self._headers(), body=sent)
        return Stream(self._place, request, within_s)

    def tokenize(self, text: str) -> tuple[int, ...]:
        """The tokens of a text, by the engine's own tokenizer."""
        reply = self.ask("POST", "/tokenize", ANSWER_S, {"model": self._model, "prompt": text})
        tokens = _list(_field(reply, "POST /tokenize", "tokens"), "POST /tokenize")
        if not all(type(token) is int for token in tokens):
            raise NotVllm(UNKNOWN, "POST /tokenize")
        return tuple(tokens)

    def sleep_state(self) -> str | None:
        """`awake`, `weights_offloaded` or `discard_all` by its metrics; engines that differ joined by `+`.

        None: it does not say (before 0.16, or with several API servers).
        """
        said = _SLEEP_STATE.findall(self.ask("GET", "/metrics").body)
        return "+".join(dict.fromkeys(state.decode() for state in said)) or None

    def ask(
        self, method: Literal["GET", "POST"], path: str, within_s: float = ANSWER_S, body: dict[str, Any] | None = None
    ) -> Reply:
        """One exchange.

        Raises:
            EngineFailed: no answer, or none with a status from 200 to 299.
        """
        reply = self._exchange(method, path, None if body is None else msgspec.json.encode(body), within_s)
        if not 200 <= reply.status < 300:  # noqa: PLR2004 # RFC 9110, 15.3
            raise EngineFailed.of(reply, f"{method} {path.partition('?')[0]}")
        return reply

    def _exchange(self, method: str, path: str, body: bytes | None, within_s: float) -> Reply:
        deadline = time.monotonic() + within_s
        request = Request(method=method, path=path, headers=self._headers(), body=body)
        try:
            return exchange(self._place, request, deadline)
        except EngineFailed as failure:
            if failure.how != "hung":
                raise
            raise EngineFailed(_no_answer(within_s), failure.detail, how="hung") from None

    @cached_property
    def _place(self) -> Address:
        """The address in numbers, found once: what is_local says holds for every call."""
        try:
            return resolved(self.address, ANSWER_S)
        except TimeoutError:
            raise EngineFailed(_no_answer(ANSWER_S), "looking up its host", how="hung") from None
        except Unresolved as error:
            raise EngineFailed(NO_HOST, f"looking up {error}", how="died") from None

    @cached_property
    def _model(self) -> str:
        return self.models()[0]

    def _headers(self) -> dict[str, str]:
        key = {"Authorization": f"Bearer {self._api_key}"} if self._api_key else {}
        return {"Content-Type": "application/json", **key}


def _no_answer(within_s: float) -> str:
    return f"no answer within {within_s:g} s"


def _query(path: str, pairs: list[tuple[str, str]]) -> str:
    return f"{path}?{urlencode(pairs)}" if pairs else path


def _field(reply: Reply, call: str, name: str) -> Any:  # noqa: ANN401 # what came, not yet looked at
    try:
        told = msgspec.json.decode(reply.body)
    except (msgspec.DecodeError, RecursionError):
        told = None
    if not isinstance(told, dict) or name not in told:
        raise NotVllm(UNKNOWN, call, status=reply.status)
    return told[name]


def _list(told: Any, call: str) -> list[Any]:  # noqa: ANN401 # likewise
    if not isinstance(told, list):
        raise NotVllm(UNKNOWN, call)
    return told
