"""The HTTP of an engine: what each path does."""

from __future__ import annotations

import argparse
import http.server
import json
import os
import threading
import time
import urllib.parse
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Final

from vllm.fake import answers
from vllm.fake.client import CallFailed, Engine, EngineDeadError
from vllm.fake.completing import Completing, Refused
from vllm.fake.plan import Plan
from vllm.fake.weights import config

GUARDED: Final = ("/v1", "/v2", "/inference")
DEV: Final = frozenset(
    "/sleep /wake_up /is_sleeping /is_paused /pause /resume /collective_rpc /reset_prefix_cache /server_info".split()  # noqa: SIM905 # words
)
POSTED: Final = frozenset(
    "/sleep /wake_up /pause /resume /collective_rpc /reset_prefix_cache /v1/completions /tokenize".split()  # noqa: SIM905 # words
)
GOT: Final = frozenset("/health /ping /load /version /v1/models /metrics /is_sleeping /is_paused /server_info".split())  # noqa: SIM905 # words


class Service:
    """What all connections share."""

    def __init__(self, plan: Plan, engine: Engine, asked: argparse.Namespace) -> None:
        """Serve this engine by these flags."""
        self.plan, self.engine, self.root = plan, engine, asked.model
        self.name = asked.served_model_name or asked.model
        self.length = asked.max_model_len or int(config(asked.model).get("max_position_embeddings", 4096))
        keys = asked.api_key or [key for key in (os.environ.get("VLLM_API_KEY"),) if key]
        own = plan.text("api-key")
        self.keys = [*keys, *([own or "secret"] if own is not None else [])]
        self.has_dev = bool(int(os.environ.get("VLLM_SERVER_DEV_MODE", "0"))) and not plan.has("no-dev-endpoints")
        self.died = threading.Event()
        self.asleep = False


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    service: Service
    timeout = 120

    def version_string(self) -> str:
        """As uvicorn."""
        return "uvicorn"

    def address_string(self) -> str:
        """There is none over a unix socket."""
        return "client"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401 # http.server's
        """Nothing."""

    def do_GET(self) -> None:
        """Any GET."""
        self._all()

    def do_POST(self) -> None:
        """Any POST."""
        self._all()

    # --- answers --------------------------------------------------------------------------------------------------

    def reply(self, status: int, body: bytes, kind: str | None, more: Iterable[tuple[str, str]] = ()) -> None:
        """A whole answer."""
        self.send_response(status)
        if kind:
            self.send_header("content-type", kind)
        for name, value in more:
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def json(self, value: Any, status: int = 200) -> None:  # noqa: ANN401 # JSON
        """JSON."""
        self.reply(status, json.dumps(value, separators=(",", ":")).encode(), "application/json")

    def error(self, status: int, message: str, kind: str | None = None, param: str | None = None) -> None:
        """An error."""
        self.json(answers.error(status, message, kind, param), status)

    def no_route(self, status: int) -> None:
        """What the framework says before vLLM is asked."""
        self.json({"detail": HTTPStatus(status).phrase}, status)

    def chunk(self, data: bytes) -> None:
        """A piece of a stream."""
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.flush()

    # --- paths ----------------------------------------------------------------------------------------------------

    def _all(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        parts = urllib.parse.urlsplit(self.path)
        if self._strange(parts.path):
            return
        try:
            self._route(parts.path, urllib.parse.parse_qs(parts.query), body)
        except EngineDeadError as error:
            self.error(500, str(error))
            self.service.died.set()
        except CallFailed as error:
            self.error(500, str(error))
        except Refused as error:
            self.error(error.status, str(error), error.kind, error.param)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _strange(self, path: str) -> bool:
        """What no engine should do; whether it was done."""
        plan = self.service.plan
        if plan.has("hang-http"):
            threading.Event().wait()
        if plan.has("slow-http"):
            time.sleep(plan.value("slow-http", 1))
        if plan.has("not-vllm"):
            self.reply(200 if path == "/" else 404, b"<html><body>It works!</body></html>", "text/html")
        elif plan.has("redirects"):
            self.reply(307, b"", None, [("location", f"http://127.0.0.1:9{path}")])
        elif plan.has("huge-body"):
            self.reply(200, b'"' + b"x" * (16 * 2**20) + b'"', "application/json")
        elif plan.has("bad-json"):
            self.reply(200, b"{", "application/json")
        elif plan.has("garbage-http"):
            self.wfile.write(b"\0\1\2 this is not HTTP\r\n\r\n")
            self.close_connection = True
        else:
            return False
        return True

    def _route(self, path: str, query: dict[str, list[str]], body: bytes) -> None:
        service, plan = self.service, self.service.plan
        key = self.headers.get("authorization", "").removeprefix("Bearer ")
        gone = {"/metrics": "no-metrics", "/tokenize": "no-tokenize", "/version": "no-version"}.get(path)
        if service.keys and path.startswith(GUARDED) and key not in service.keys:
            self.json({"error": "Unauthorized"}, 401)
        elif path not in POSTED | GOT or (path in DEV and not service.has_dev) or (gone and plan.has(gone)):
            self.no_route(404)
        elif path not in (POSTED if self.command == "POST" else GOT):
            self.no_route(405)
        elif path == "/v1/completions":
            Completing(self).run(body)
        else:
            {
                "/health": self._health, "/ping": self._health, "/metrics": self._metrics, "/version": self._version,
                "/v1/models": self._models, "/load": self._load, "/tokenize": lambda: self._tokenize(body),
                "/server_info": lambda: self.json({"vllm_config": "", "vllm_env": {}, "system_env": {}}),
                "/sleep": lambda: self._sleep(query), "/wake_up": lambda: self._wake(query),
                "/is_sleeping": self._is_sleeping, "/is_paused": self._is_paused,
                "/pause": lambda: self._pause(query), "/resume": self._resume,
                "/collective_rpc": lambda: self._rpc(body), "/reset_prefix_cache": self._reset,
            }[path]()  # fmt: skip

    def _health(self) -> None:
        service = self.service
        if service.plan.has("health-503-asleep") and service.asleep:
            return self.reply(503, b"", None)
        self.reply(503 if service.engine.dead else 200, b"", None)
        if service.engine.dead:
            service.died.set()
        return None

    def _metrics(self) -> None:
        service = self.service
        states = ("awake",) if service.plan.has("metrics-lie") else service.engine.sleep_state
        text = answers.metrics(states, len(service.engine.cores), service.name)
        self.reply(200, text.encode(), "text/plain; version=1.0.0; charset=utf-8")

    def _version(self) -> None:
        self.json({"version": self.service.plan.version})

    def _models(self) -> None:
        self.json(answers.models(self.service.name, self.service.root, self.service.length))

    def _load(self) -> None:
        self.json({"server_load": 0})

    def _tokenize(self, body: bytes) -> None:
        asked = self.read_json(body)
        self.wants_model(asked)
        tokens = [3 + letter for letter in str(asked.get("prompt", "")).encode()]
        self.json({"count": len(tokens), "max_model_len": self.service.length, "tokens": tokens, "token_strs": None})

    def _sleep(self, query: dict[str, list[str]]) -> None:
        said = query.get("level", ["1"])[-1]
        try:
            level = int(said)
        except ValueError as error:
            return self.error(400, str(error))
        self.service.engine.call("sleep", level=level, mode=query.get("mode", ["abort"])[-1])
        state = {1: "weights_offloaded", 2: "discard_all"}.get(level)
        self.service.engine.sleep_state = (state,) if state else ()
        self.service.asleep = True
        return self.reply(200, b"", None)

    def _wake(self, query: dict[str, list[str]]) -> None:
        self.service.asleep = self.service.engine.call("wake_up", tags=query.get("tags"))
        self.service.engine.sleep_state = ("awake",)
        self.reply(200, b"", None)

    def _is_sleeping(self) -> None:
        says = self.service.engine.call("is_sleeping")
        self.json({"is_sleeping": False if self.service.plan.has("is-sleeping-lies") else says})

    def _is_paused(self) -> None:
        self.json({"is_paused": self.service.engine.call("is_paused")})

    def _pause(self, query: dict[str, list[str]]) -> None:
        self.service.engine.call("pause", mode=query.get("mode", ["abort"])[-1])
        self.json({"status": "paused"})

    def _resume(self) -> None:
        self.service.engine.call("resume")
        self.json({"status": "resumed"})

    def _reset(self) -> None:
        self.json({"success": self.service.engine.call("reset_prefix_cache")})

    def _rpc(self, body: bytes) -> None:
        asked = self.read_json(body, "JSON decode error: ", HTTPStatus(400).phrase)
        if asked.get("method") is None:
            raise Refused(400, "Missing 'method' in request body", HTTPStatus(400).phrase)
        self.json({"results": self.service.engine.call("rpc", method=str(asked["method"]))})

    # --- what bodies must be --------------------------------------------------------------------------------------

    def read_json(self, body: bytes, before: str = "", kind: str | None = None) -> dict[str, Any]:
        """The body.

        Raises:
            Refused: it is no JSON.
        """
        try:
            found = json.loads(body or b"null")
        except ValueError as error:
            raise Refused(400, f"{before}{error}", kind) from None
        return found if isinstance(found, dict) else {}

    def wants_model(self, asked: dict[str, Any]) -> None:
        """Refuse another model than ours.

        Raises:
            Refused: it is another.
        """
        name = asked.get("model")
        if name not in {None, self.service.name}:
            raise Refused(404, f"The model `{name}` does not exist.", param="model")
