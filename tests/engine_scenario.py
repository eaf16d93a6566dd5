"""A fixed sequence of exchanges with an engine that speaks vLLM's HTTP, and a file of what came.

`python engine_scenario.py (URL | --start PYTHON MODEL_DIR) -o FILE [--wrong-order] [-- FLAGS…]`,
standing alone, Python 3.10 or newer.
URL is `http://HOST:PORT` or `unix:PATH`; the engine there has its development endpoints and may be killed by this.

The file holds nothing of the machine: statuses, the shapes of JSON, finish reasons, the order of events, whether tokens
were equal, and times rounded to 0.1 s. It is written anew after each exchange. What may end or wedge the engine comes
last; after two exchanges in a row without any answer the rest is left out, and the file says so.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

Json = Any
PROMPT: Final = tuple(20 + 7 * n % 230 for n in range(40))
"""Ids that a vocabulary of 256 has."""
SHORT: Final = 12
LONG: Final = 600
"""Tokens; the last one leaves time for a sleep to come between."""
USUAL_S: Final = 6.0
LONG_S: Final = 30.0
WEDGED_S: Final = 1.0
"""How long each exchange may take with an engine that is about to be wedged: most answer at once."""
PARKED_S: Final = 1.0
"""How long a request must stay without an answer to count as parked."""
READY_S: Final = 420.0
MOST: Final = 8 * 2**20
TEXT: Final = 160
HUNG_IN_A_ROW: Final = 2
PHRASES: Final = (
    "Starting to load model",
    "Loading weights took",
    "Loading safetensors checkpoint shards",
    "Model loading took",
    "torch.compile takes",
    "Available KV cache memory",
    "Capturing CUDA graphs",
    "Graph capturing finished",
    "init engine",
    "SECURITY WARNING",
    "Starting vLLM server on",
    "Available routes are",
    "Application startup complete",
    "wake up the engine with tags",
    "Sleep mode freed",
    "to fall asleep",
    "to wake up tags",
    "Executor is already sleeping",
    "Executor is not sleeping",
    "is not in sleeping tags",
    "Resetting prefix cache",
    "Waiting for in-flight requests to complete before sleeping",
    "Invocation of sleep method failed",
    "Invocation of collective_rpc method failed",
    "EngineCore encountered a fatal error",
    "EngineDeadError",
    "died unexpectedly",
    "Engine core proc",
    "CUDA error",
    "CUDA Error",
)
"""Words of the log that are looked for; nothing else of the log is kept."""


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        """Keep the path."""
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def connection(url: str, timeout: float) -> http.client.HTTPConnection:
    """A connection of its own for one exchange."""
    if url.startswith("unix:"):
        return UnixConnection(url.removeprefix("unix:"), timeout)
    parts = urlsplit(url)
    return http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port or 80, timeout=timeout)


def scrubbed(text: str) -> str:
    """A text without paths, addresses and long numbers."""
    text = re.sub(r"(?<![\w<])/[\w.\-]+(/[\w.\-]*)*", "<path>", text)
    text = re.sub(r"0x[0-9a-f]+|[0-9a-f]{8,}|\d{5,}", "<n>", text)
    return re.sub(r"\s+", " ", text).strip()[:TEXT]


def shape(value: Json) -> Json:
    """The keys and types of a JSON value; a list is shown by the shapes that its members have."""
    if isinstance(value, dict):
        numbered = value and all(re.fullmatch(r"token_id:\d+|\d+", key) for key in value)
        return {"<token>" if numbered else key: shape(one) for key, one in value.items()}
    if isinstance(value, list):
        shapes = [shape(one) for one in value]
        return [one for n, one in enumerate(shapes) if one not in shapes[:n]]
    return {str: "string", bool: "bool", int: "int", float: "float", type(None): "null"}[type(value)]


def parsed(body: bytes) -> Json:
    """JSON, or a mark that it is none."""
    try:
        return json.loads(body)
    except ValueError:
        return "<no JSON>"


def error_of(answer: Json) -> dict[str, Json]:
    """The type and the message of an error, if an answer is one."""
    found = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(found, dict):
        return {}
    return {"error": {"type": found.get("type"), "message": scrubbed(str(found.get("message")))}}


def slept(metrics: str) -> dict[str, str]:
    """What the metrics say of each engine's sleep."""
    found: dict[str, str] = {}
    for labels, value in re.findall(r"^vllm:engine_sleep_state\{([^}]*)\} ([\d.]+)", metrics, re.MULTILINE):
        named = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        number = "engine " + named.get("engine", "?")
        found.setdefault(number, "")
        if float(value):
            found[number] += ("+" if found[number] else "") + named.get("sleep_state", "?")
    return found


class Told:
    """The token ids, logprobs and finish reason that an answer or a stream's pieces tell."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.tokens: list[int] = []
        self.logprobs: list[float] = []
        self.finish: str | None = None

    def take(self, answer: Json) -> bool:
        """Add one piece; whether it had tokens."""
        had = len(self.tokens)
        for choice in answer.get("choices", ()) if isinstance(answer, dict) else ():
            logprobs = choice.get("logprobs") or {}
            self.tokens += [int(name.removeprefix("token_id:")) for name in logprobs.get("tokens", ())]
            self.logprobs += [number for number in logprobs.get("token_logprobs", ()) if number is not None]
            self.finish = choice.get("finish_reason") or self.finish
        return len(self.tokens) > had

    def against(self, other: Told) -> dict[str, Json]:
        """How it compares with an undisturbed one."""
        both = min(len(self.tokens), len(other.tokens))
        apart = [abs(a - b) for a, b in zip(self.logprobs[:both], other.logprobs[:both], strict=False)]
        return {
            "tokens_got": "all" if len(self.tokens) >= len(other.tokens) else "some" if self.tokens else "none",
            "tokens_equal": self.tokens[:both] == other.tokens[:both],
            "logprobs_within_0.001": max(apart, default=0.0) <= 0.001,  # its name says it
            "finish_reason": self.finish,
        }


class Exchange(threading.Thread):
    """One request and what comes of it, in a thread of its own; `events` is appended to as they come."""

    def __init__(self, url: str, ask: str, body: Json = None, *, raw: bytes | None = None, within_s: float) -> None:
        """Begin at once."""
        super().__init__(daemon=True)
        self.ask, self.within_s = ask, within_s
        self.end: str | None = None
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.body, self.told, self.pieces, self.first, self.last = b"", Told(), 0, "", ""
        self.began, self.took_s = time.monotonic(), 0.0
        self.moved = threading.Condition()
        self._url, self._data = url, raw if raw is not None else None if body is None else json.dumps(body).encode()
        self._connection: http.client.HTTPConnection | None = None
        self.start()

    def run(self) -> None:
        """Ask, and read until the end."""
        try:
            self._exchange()
            end = "reply"
        except TimeoutError:
            end = "no answer"
        except ConnectionRefusedError:
            end = "refused"
        except FileNotFoundError:
            end = "no socket"
        except (OSError, http.client.HTTPException, AttributeError, ValueError) as error:
            end = f"broken: {type(error).__name__}"  # AttributeError, ValueError: its socket was closed under it
        with self.moved:
            self.end, self.took_s = self.end or end, round(time.monotonic() - self.began, 1)
            self.moved.notify_all()

    def _exchange(self) -> None:
        method, _, path = self.ask.partition(" ")
        self._connection = wire = connection(self._url, self.within_s)
        headers = {"Content-Type": "application/json"} if self._data is not None else {}
        with contextlib.closing(wire):
            wire.request(method, path, self._data, headers)
            reply = wire.getresponse()
            self.status = reply.status
            self.headers = {name.lower(): value for name, value in reply.getheaders()}
            if not self.headers.get("content-type", "").startswith("text/event-stream"):
                self.body = reply.read(MOST)
                self.told.take(parsed(self.body))
                return
            while line := reply.readline(MOST):
                if line.startswith(b"data: "):
                    self._piece(line.removeprefix(b"data: ").strip())

    def _piece(self, data: bytes) -> None:
        with self.moved:
            self.last = data.decode("utf-8", "replace")
            self.first = self.first or self.last
            if data != b"[DONE]":
                answer = parsed(data)
                self.pieces += self.told.take(answer)
                self.body = data
            self.moved.notify_all()

    def waited_for(self, what: Callable[[Exchange], bool], seconds: float) -> bool:
        """Whether `what` became true in time (or the exchange ended with it true)."""
        with self.moved:
            return self.moved.wait_for(lambda: what(self) or self.end is not None, seconds) and what(self)

    def finished(self, seconds: float | None = None) -> bool:
        """Whether it has ended, after at most so long."""
        self.join(self.within_s + self.began - time.monotonic() if seconds is None else seconds)
        return not self.is_alive()

    def drop(self) -> None:
        """Go away, as a client does that has lost its patience."""
        self.end = self.end or "dropped by us"
        wire = self._connection
        if wire is not None and wire.sock is not None:
            with contextlib.suppress(OSError):
                wire.sock.shutdown(socket.SHUT_RDWR)

    def told_end(self) -> dict[str, Json]:
        """What is recorded of it."""
        if not self.finished():
            self.end = "no answer"
            self.drop()
        row: dict[str, Json] = {"ask": self.ask, "end": self.end, "took_s": self.took_s}
        if self.status is None:
            return row
        row |= {"status": self.status, "type": self.headers.get("content-type")}
        if self.pieces or self.last:
            row |= {"first": shape(parsed(self.first.encode())), "last": scrubbed(self.last)}
            return row | {"last_piece": shape(parsed(self.body))} | error_of(parsed(self.body))
        answer = parsed(self.body) if self.body else None
        row["body"] = "empty" if not self.body else "text" if answer == "<no JSON>" else shape(answer)
        row |= error_of(answer)
        if isinstance(answer, dict) and "error" not in row and len(self.body) < TEXT:
            row["value"] = json.loads(re.sub(r'"/[^"]*"', '"<path>"', json.dumps(answer)))
        return row


class Stopped(Exception):  # it says what happened
    """The engine no longer answers."""


class Scenario:
    """Plays the exchanges and keeps the file."""

    def __init__(self, url: str, out: Path) -> None:
        """Nothing has been played."""
        self.url, self.out = url, out
        self.record: dict[str, Json] = {"scenario": 1, "exchanges": {}}
        self._hung, self.model, self.most = 0, "", 0
        self.short, self.long = Told(), Told()

    def save(self) -> None:
        """Write what there is."""
        self.out.write_text(json.dumps(self.record, indent=1) + "\n")

    def note(self, name: str, row: dict[str, Json]) -> None:
        """Keep one row."""
        assert name not in self.record["exchanges"], name
        self.record["exchanges"][name] = row
        self.save()
        self._hung = self._hung + 1 if row.get("end") in {"no answer", "refused"} else 0
        if self._hung >= HUNG_IN_A_ROW:
            raise Stopped(name)

    def begin(self, ask: str, body: Json = None, *, raw: bytes | None = None, within_s: float = USUAL_S) -> Exchange:
        """Start an exchange that others will overlap."""
        return Exchange(self.url, ask, body, raw=raw, within_s=within_s)

    def ask(  # one exchange
        self,
        name: str,
        ask: str,
        body: Json = None,
        *,
        raw: bytes | None = None,
        within_s: float = USUAL_S,
        **more: Json,
    ) -> Exchange:
        """One exchange from its beginning to its end."""
        done = self.begin(ask, body, raw=raw, within_s=within_s)
        row = done.told_end() | more
        if ask == "GET /metrics":
            row["sleep_state"] = slept(done.body.decode("utf-8", "replace"))
        self.note(name, row)
        return done

    def asked(self, prompt: Json = PROMPT, tokens: int = SHORT, *, stream: bool = False, **more: Json) -> Json:
        """The body of a request for a completion."""
        greedy = {"temperature": 0, "logprobs": 1, "return_tokens_as_token_ids": True, "ignore_eos": True}
        return {"model": self.model, "prompt": prompt, "max_tokens": tokens, "stream": stream, **greedy, **more}

    def complete(self, name: str) -> Exchange:
        """A completion, compared with the first of all."""
        done = self.begin("POST /v1/completions", self.asked(), within_s=LONG_S)
        row = done.told_end()
        self.note(name, row | (done.told.against(self.short) if self.short.tokens else {}))
        return done

    def state(self, when: str) -> None:
        """What the engine says of itself, in one row an endpoint."""
        for path in ("/health", "/is_sleeping", "/metrics"):
            self.ask(f"{when}: {path[1:]}", f"GET {path}")


def opening(play: Scenario) -> None:
    """Awake: every endpoint once, and bad requests."""
    play.ask("version", "GET /version")
    models = play.ask("models", "GET /v1/models")
    found = parsed(models.body)["data"][0]
    play.model, play.most = found["id"], found.get("max_model_len") or 2 * LONG
    play.state("awake")
    for path in ("/ping", "/load", "/is_paused"):
        play.ask(f"awake: {path[1:]}", f"GET {path}")
    play.ask("awake: tokenize", "POST /tokenize", {"model": play.model, "prompt": "The engine sleeps."})
    play.ask("awake: tokenize without model", "POST /tokenize", {"prompt": "The engine sleeps."})
    play.short = play.complete("awake: completion").told
    play.complete("awake: the same again")
    play.ask("awake: reset_prefix_cache", "POST /reset_prefix_cache")
    play.complete("awake: after reset_prefix_cache")
    tokens = min(LONG, play.most - len(PROMPT) - 8)
    stream = play.begin("POST /v1/completions", play.asked(tokens=tokens, stream=True), within_s=LONG_S)
    row = stream.told_end()
    play.long = stream.told
    play.note("awake: stream", row | {"finish_reason": stream.told.finish, "many_pieces": stream.pieces > tokens // 4})
    play.ask("bad: another model", "POST /v1/completions", play.asked() | {"model": "no such model"})
    play.ask("bad: no JSON", "POST /v1/completions", raw=b"{")
    play.ask("bad: no prompt", "POST /v1/completions", {"model": play.model, "max_tokens": 1})
    play.ask("bad: too long", "POST /v1/completions", play.asked([21] * (play.most + 1)))
    play.ask("bad: no such token", "POST /v1/completions", play.asked([10**7]))
    play.ask("bad: no such path", "GET /no_such_path")
    play.ask("bad: GET sleep", "GET /sleep")
    play.ask("bad: rpc without method", "POST /collective_rpc", {})
    play.ask("bad: rpc without JSON", "POST /collective_rpc", raw=b"{")


def harmless(play: Scenario) -> None:
    """What should change nothing in an engine that is awake."""
    play.ask("awake: wake", "POST /wake_up")
    play.ask("awake: wake bad tag", "POST /wake_up?tags=nonsense")
    play.ask("awake: wake scheduling", "POST /wake_up?tags=scheduling")
    play.ask("awake: sleep level x", "POST /sleep?level=x")
    play.ask("awake: sleep mode nonsense", "POST /sleep?mode=nonsense")
    play.state("after nonsense")
    play.ask("awake: rpc check_health", "POST /collective_rpc", {"method": "check_health"})
    play.complete("after nonsense: completion")


def level_1(play: Scenario) -> None:
    """Asleep at level 1, partly awake, awake."""
    play.ask("1: sleep", "POST /sleep?level=1", within_s=LONG_S)
    play.state("asleep 1")
    for path in ("/version", "/v1/models", "/is_paused", "/load"):
        play.ask(f"asleep 1: {path[1:]}", f"GET {path}")
    play.ask("asleep 1: tokenize", "POST /tokenize", {"model": play.model, "prompt": "The engine sleeps."})
    play.ask("asleep 1: reset_prefix_cache", "POST /reset_prefix_cache")
    play.ask("asleep 1: rpc check_health", "POST /collective_rpc", {"method": "check_health"})
    play.ask("asleep 1: sleep again", "POST /sleep?level=1")
    play.ask("asleep 1: sleep deeper", "POST /sleep?level=2")
    play.state("asleep 1, asked deeper")
    play.ask("asleep 1: wake bad tag", "POST /wake_up?tags=nonsense")
    play.state("asleep 1, bad tag")
    play.ask("asleep 1: wake a good and a bad tag", "POST /wake_up?tags=weights&tags=nonsense")
    play.ask("asleep 1: wake scheduling", "POST /wake_up?tags=scheduling")
    play.state("asleep 1, scheduling")
    play.ask("asleep 1: wake weights", "POST /wake_up?tags=weights", within_s=LONG_S)
    play.state("partly awake")
    play.ask("partly awake: wake weights again", "POST /wake_up?tags=weights")
    play.ask("partly awake: wake kv_cache", "POST /wake_up?tags=kv_cache", within_s=LONG_S)
    play.state("awake again")
    play.complete("awake again: completion")
    play.ask("1: sleep by a body", "POST /sleep", {"level": 2, "mode": "wait"}, within_s=LONG_S)
    play.state("asleep by a body")
    play.ask("1: wake by a body", "POST /wake_up", {"tags": ["weights"]}, within_s=LONG_S)
    play.state("awake by a body")
    play.complete("awake by a body: completion")


def while_asleep(play: Scenario) -> None:
    """Requests that come while it sleeps."""
    play.ask("parked: sleep", "POST /sleep", within_s=LONG_S)
    plain = play.begin("POST /v1/completions", play.asked(), within_s=LONG_S)
    stream = play.begin("POST /v1/completions", play.asked(stream=True), within_s=LONG_S)
    gone = play.begin("POST /v1/completions", play.asked(), within_s=LONG_S)
    asleep = not plain.finished(PARKED_S), not stream.waited_for(lambda one: bool(one.last), 0.1)
    headers = stream.status
    gone.drop()
    play.ask("parked: is_sleeping", "GET /is_sleeping")
    play.ask("parked: load", "GET /load")
    play.ask("parked: wake weights", "POST /wake_up?tags=weights", within_s=LONG_S)
    partly = not plain.finished(PARKED_S), not stream.waited_for(lambda one: bool(one.last), 0.1)
    play.ask("parked: wake the rest", "POST /wake_up?tags=kv_cache", within_s=LONG_S)
    parked: dict[str, Json] = {"parked_asleep": asleep[0], "parked_partly_awake": partly[0]}
    play.note("parked: request", plain.told_end() | parked | plain.told.against(play.short))
    parked = {"parked_asleep": asleep[1], "parked_partly_awake": partly[1], "headers_while_asleep": headers}
    play.note("parked: stream", stream.told_end() | parked | stream.told.against(play.short))
    play.complete("parked: completion after")
    play.ask("parked again: sleep", "POST /sleep", within_s=LONG_S)
    plain = play.begin("POST /v1/completions", play.asked(), within_s=LONG_S)
    parked = {"parked_asleep": not plain.finished(PARKED_S)}
    play.ask("parked again: sleep again", "POST /sleep", within_s=LONG_S)
    parked["ended_by_second_sleep"] = plain.finished(PARKED_S)
    play.ask("parked again: wake", "POST /wake_up", within_s=LONG_S)
    play.note("parked again: request", plain.told_end() | parked | plain.told.against(play.short))


def in_flight(play: Scenario, mode: str) -> None:
    """A stream that a sleep comes between."""
    asked = play.asked(tokens=len(play.long.tokens), stream=True)
    stream = play.begin("POST /v1/completions", asked, within_s=LONG_S)
    plain = play.begin("POST /v1/completions", asked | {"stream": False}, within_s=LONG_S)
    started = stream.waited_for(lambda one: one.pieces >= 3, USUAL_S)  # a few
    sleep = play.begin(f"POST /sleep?level=1&mode={mode}", within_s=LONG_S)
    sleep.finished()
    stream.finished(PARKED_S)
    before: dict[str, Json] = {
        "started": started,
        "ended_before_wake": stream.end is not None,
        "pieces_before": stream.pieces > 0,
    }
    play.note(f"{mode}: sleep", sleep.told_end())
    play.ask(f"{mode}: is_sleeping", "GET /is_sleeping")
    play.ask(f"{mode}: wake", "POST /wake_up", within_s=LONG_S)
    play.note(f"{mode}: stream", stream.told_end() | before | stream.told.against(play.long))
    play.note(f"{mode}: request", plain.told_end() | plain.told.against(play.long))
    play.complete(f"{mode}: completion after")


def level_0(play: Scenario) -> None:
    """Level 0 and /pause: nothing leaves the GPU."""
    play.ask("0: sleep", "POST /sleep?level=0")
    play.state("asleep 0")
    parked = play.begin("POST /v1/completions", play.asked(), within_s=LONG_S)
    waits = not parked.finished(PARKED_S)
    play.ask("0: wake scheduling", "POST /wake_up?tags=scheduling")
    play.note("0: request", parked.told_end() | {"parked_asleep": waits} | parked.told.against(play.short))
    play.state("awake after 0")
    play.ask("pause", "POST /pause")
    play.state("paused")
    play.ask("paused: is_paused", "GET /is_paused")
    play.ask("resume", "POST /resume")
    play.complete("resumed: completion")


def level_2(play: Scenario) -> None:
    """Level 2 without and with the weights read anew."""
    play.ask("2: sleep", "POST /sleep?level=2", within_s=LONG_S)
    play.state("asleep 2")
    play.ask("2: wake", "POST /wake_up", within_s=LONG_S)
    play.state("awake after 2")
    play.complete("2: completion without reload")
    play.ask("2: reload", "POST /collective_rpc", {"method": "reload_weights"}, within_s=LONG_S)
    play.ask("2: reset", "POST /reset_prefix_cache")
    play.complete("2: completion after reload")
    play.ask("2 by the book: sleep", "POST /sleep?level=2", within_s=LONG_S)
    play.ask("2 by the book: weights", "POST /wake_up?tags=weights", within_s=LONG_S)
    play.ask("2 by the book: reload", "POST /collective_rpc", {"method": "reload_weights"}, within_s=LONG_S)
    play.ask("2 by the book: kv_cache", "POST /wake_up?tags=kv_cache", within_s=LONG_S)
    play.ask("2 by the book: reset", "POST /reset_prefix_cache")
    play.complete("2 by the book: completion")


def risky(play: Scenario) -> None:
    """What may leave it in a state of its own."""
    play.ask("risky: rpc of no such method", "POST /collective_rpc", {"method": "no_such_method"})
    play.complete("risky: completion after no such method")
    play.ask("risky: sleep level -1", "POST /sleep?level=-1", within_s=LONG_S)
    play.state("asleep -1")
    play.ask("risky: wake from -1", "POST /wake_up", within_s=LONG_S)
    play.ask("risky: sleep level 3", "POST /sleep?level=3", within_s=LONG_S)
    play.state("asleep 3")
    play.ask("risky: wake from 3", "POST /wake_up", within_s=LONG_S)
    play.complete("risky: completion after 3")
    play.ask("risky: reload after 3", "POST /collective_rpc", {"method": "reload_weights"}, within_s=LONG_S)
    play.complete("risky: completion after 3 and reload")


def all_after_a_part(play: Scenario) -> None:
    """A wake of all that follows a wake of the weights: 0.26.0 maps them again and does not get over it."""
    name = "all after a part"
    play.ask(f"{name}: sleep", "POST /sleep", within_s=WEDGED_S)
    play.ask(f"{name}: wake weights", "POST /wake_up?tags=weights", within_s=WEDGED_S)
    play.ask(f"{name}: wake all", "POST /wake_up", within_s=WEDGED_S)
    play.ask(f"{name}: is_sleeping", "GET /is_sleeping", within_s=WEDGED_S)
    play.ask(f"{name}: health", "GET /health", within_s=WEDGED_S)
    play.ask(f"{name}: wake kv_cache", "POST /wake_up?tags=kv_cache", within_s=WEDGED_S)
    play.ask(f"{name}: metrics", "GET /metrics", within_s=WEDGED_S)
    asked = play.begin("POST /v1/completions", play.asked(), within_s=WEDGED_S)
    play.note(f"{name}: completion", asked.told_end() | asked.told.against(play.short))


def death(play: Scenario, pid: int | None) -> None:
    """The engine's core is killed while requests wait for the wedged one (or are answered): what a death looks like."""
    core = [one for one, title in descendants(pid).items() if "EngineCore" in title] if pid else []
    if not core:
        return
    stream = play.begin("POST /v1/completions", play.asked(tokens=len(play.long.tokens), stream=True), within_s=LONG_S)
    plain = play.begin("POST /v1/completions", play.asked(tokens=len(play.long.tokens)), within_s=LONG_S)
    stream.waited_for(lambda one: one.pieces >= 3, WEDGED_S)  # a few
    os.kill(core[0], signal.SIGKILL)
    stream.finished(USUAL_S)
    rows = {"health": play.begin("GET /health"), "is_sleeping": play.begin("GET /is_sleeping")}
    rows["completion"] = play.begin("POST /v1/completions", play.asked())
    play.note("dead: stream", stream.told_end() | {"finish_reason": stream.told.finish})
    play.note("dead: request", plain.told_end())
    for name, exchange in rows.items():
        play.note(f"dead: {name}", exchange.told_end())


def asleep_reload(play: Scenario) -> None:
    """Weights written where no memory is: in the wrong order, it may kill the engine."""
    play.ask("wrong order: sleep", "POST /sleep?level=2", within_s=LONG_S)
    play.ask("wrong order: reload", "POST /collective_rpc", {"method": "reload_weights"}, within_s=LONG_S)
    play.ask("wrong order: health", "GET /health")
    play.ask("wrong order: wake", "POST /wake_up", within_s=LONG_S)
    play.complete("wrong order: completion")


def descendants(pid: int) -> dict[int, str]:
    """The processes under one, by the title that they gave themselves, or else their short name."""
    parents: dict[int, int] = {}
    titles: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError, IndexError):
            number = int(entry.name)
            parents[number] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            title = (entry / "cmdline").read_bytes().partition(b"\0")[0].decode("utf-8", "replace").strip()
            own = re.fullmatch(r"VLLM::[\w:]+", title)
            titles[number] = title if own else (entry / "comm").read_text().strip()
    found, new = set[int](), {pid}
    while new:
        found |= new
        new = {one for one, parent in parents.items() if parent in new} - found
    return {one: titles.get(one, "?") for one in sorted(found - {pid})}


@contextlib.contextmanager
def started(python: str, model: str, flags: list[str], record: dict[str, Json]) -> Iterator[tuple[str, int]]:
    """An engine of our own, its address and its process; it is gone afterwards, and the log with it."""
    with tempfile.TemporaryDirectory(prefix="scenario-") as folder, Path(folder, "log").open("wb") as log:
        address = f"{folder}/s"
        command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", model, "--enable-sleep-mode"]
        command += ["--uds", address, *flags]
        more = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
        engine = subprocess.Popen(  # the command is ours
            command,
            env={**os.environ, **more},
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            record["start"] = until_ready(f"unix:{address}", engine)
            record["start"]["processes"] = sorted(descendants(engine.pid).values())
            yield f"unix:{address}", engine.pid
        finally:
            record["stop"] = stopped(engine)
            text = Path(folder, "log").read_text(errors="replace")
            record["log"] = [phrase for phrase in PHRASES if phrase in text]
            if engine.returncode and record["start"].get("ready_s") is None:
                sys.stderr.write(text[-8000:])


def until_ready(url: str, engine: subprocess.Popen[bytes]) -> dict[str, Json]:
    """Wait until it is healthy; which answers it gave before."""
    began, before = time.monotonic(), list[Json]()
    while time.monotonic() - began < READY_S and engine.poll() is None:
        asked = Exchange(url, "GET /health", within_s=USUAL_S)
        row = asked.told_end()
        said = row.get("status", row["end"])
        if said == http.client.OK:
            return {"ready_s": round(time.monotonic() - began, 1), "before": before}
        if said not in before:
            before.append(said)
        time.sleep(0.2)
    return {"ready_s": None, "before": before, "exit": engine.poll()}


def stopped(engine: subprocess.Popen[bytes]) -> dict[str, Json]:
    """Stop it as one stops a service, then by force."""
    began, under = time.monotonic(), descendants(engine.pid)
    had_ended = engine.poll() is not None
    engine.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        engine.wait(20)
    row = {"had_ended": had_ended, "exit": engine.returncode, "took_s": round(time.monotonic() - began, 1)}
    left = [title for one, title in under.items() if Path(f"/proc/{one}/exe").exists()]
    with contextlib.suppress(ProcessLookupError):
        os.killpg(engine.pid, signal.SIGKILL)
    for one in under:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)
    engine.wait()
    return row | {"left_after_sigterm": left}


def play_all(play: Scenario, pid: int | None, *, wrong_order: bool) -> None:
    """The scenario; where the engine is ours, its core is killed at the end."""
    parts: list[Callable[[], None]] = [lambda: opening(play)]
    if wrong_order:
        parts += [lambda: asleep_reload(play)]
    else:
        parts += [lambda: harmless(play), lambda: level_1(play), lambda: while_asleep(play)]
        parts += [functools.partial(in_flight, play, mode) for mode in ("abort", "wait", "keep")]
        parts += [lambda: level_0(play), lambda: level_2(play), lambda: risky(play)]
        parts += [lambda: all_after_a_part(play), lambda: death(play, pid)]
    try:
        for part in parts:
            part()
    except Stopped as stop:
        play.record["stopped_at"] = str(stop)
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        play.record["stopped_at"] = f"an answer was not as expected: {type(error).__name__}"
    play.save()


def main(words: list[str]) -> int:
    """Read the words, play, and say where the file is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="?")
    parser.add_argument("--start", nargs=2, metavar=("PYTHON", "MODEL_DIR"))
    parser.add_argument("--wrong-order", action="store_true", help="play only a reload while asleep at level 2")
    parser.add_argument("-o", dest="out", type=Path, required=True)
    end = words.index("--") if "--" in words else len(words)
    asked, flags = parser.parse_args(words[:end]), words[end + 1 :]
    if bool(asked.url) == bool(asked.start):
        parser.error("a URL or --start, and not both")
    play = Scenario(asked.url or "", asked.out)
    play.record["flags"] = [scrubbed(flag) for flag in flags]
    if asked.url:
        play_all(play, None, wrong_order=asked.wrong_order)
    else:
        with started(asked.start[0], asked.start[1], flags, play.record) as (play.url, pid):
            if play.record["start"]["ready_s"] is not None:
                play_all(play, pid, wrong_order=asked.wrong_order)
        play.save()
    sys.stdout.write(f"{asked.out}: {len(play.record['exchanges'])} exchanges\n")
    return 0 if play.record["exchanges"] and "stopped_at" not in play.record else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
