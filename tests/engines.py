"""An engine that goes by vLLM's name, on the stand-in driver's GPUs; tests/fake_vllm/README.md says what it can do."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from standins import Drivers

FAKE: Final = Path(__file__).with_name("fake_vllm")
GPU_MIB: Final = 2048
"""What each GPU has, reserved memory included."""
FREE_MIB: Final = 1944
READY_S: Final = 30.0
ANSWER_S: Final = 30.0


class Fake:
    """A world with a driver and a vLLM: `env` is for a trial, a tool or an engine that runs in it."""

    def __init__(
        self,
        drivers: Drivers,
        folder: Path,
        *plan: str,
        vllm: str = "0.26.0",
        driver: tuple[str, ...] = (),
        python: str = sys.executable,
    ) -> None:
        """Make it under `folder`, whose name no other world of these drivers may have.

        `plan` are words of FAKE_VLLM, `driver` lines of the driver's own plan (tests/standins/README.md).
        """
        self.folder = folder
        lines = (f"total gpu?: gives {GPU_MIB}", f"memory gpu?: gives {FREE_MIB}", *driver)
        places = [str(packages(folder / "packages", vllm)), os.environ.get("PYTHONPATH", "")]
        self.env: dict[str, str] = {
            **drivers.world(f"{folder.parent.name}-{folder.name}", *lines),
            "WARMSPARE_PYTHON": python,
            "PYTHONPATH": os.pathsep.join(filter(None, places)),
            "FAKE_VLLM": " ".join(plan),
            "FAKE_VLLM_VERSION": vllm,
        }

    @property
    def whole_env(self) -> dict[str, str]:
        """The environment of this process with `env` in it."""
        return {**os.environ, **self.env}

    @contextlib.contextmanager
    def serving(self, model: Path, *flags: str, tcp: bool = False, ready: bool = True, **env: str) -> Iterator[Serving]:
        """An engine that somebody else has started, for `--engine URL`: gone afterwards, all of it."""
        with tempfile.TemporaryDirectory(prefix="engine-") as short:
            where = ["--host", "127.0.0.1", "--port", str(free_port())] if tcp else ["--uds", f"{short}/s"]
            url = f"http://127.0.0.1:{where[-1]}" if tcp else f"unix:{short}/s"
            command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
            command += ["--enable-sleep-mode", *where, *flags]
            said = Path(short, "log")
            with said.open("wb") as log:
                process = subprocess.Popen(
                    command, env={**self.whole_env, "VLLM_SERVER_DEV_MODE": "1", **env}, stdout=log, stderr=log
                )
            serving = Serving(url, process, said, self.whole_env)
            try:
                if ready:
                    serving.wait_ready()
                yield serving
            finally:
                serving.end()


class Answer(NamedTuple):
    """What came."""

    status: int
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401 # JSON
        """The body read."""
        return json.loads(self.body)


class Unix(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        """Keep the path."""
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Stream(NamedTuple):
    """An answer that comes in pieces."""

    wire: http.client.HTTPConnection
    reply: http.client.HTTPResponse

    def pieces(self) -> list[Any]:
        """What is left of it, read to its end.

        Raises:
            OSError: nothing came for long (TimeoutError), or the connection was lost.
            HTTPException: it was cut in the middle.
        """
        try:
            lines = [line[6:].strip() for line in self.reply.read().split(b"\n") if line.startswith(b"data: ")]
        finally:
            self.close()
        assert lines.pop() == b"[DONE]"
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        """Go away."""
        self.reply.close()
        self.wire.close()


class Serving(NamedTuple):
    """An engine that runs."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path
    env: Mapping[str, str]
    """Its world's, for another process there."""

    def connection(self, within_s: float = ANSWER_S) -> http.client.HTTPConnection:
        """A connection of its own."""
        if not self.url.startswith("unix:"):
            return http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=within_s)
        return Unix(self.url.removeprefix("unix:"), within_s)

    def ask(self, ask: str, body: object = None, within_s: float = ANSWER_S, **headers: str) -> Answer:
        """One exchange: `GET /health`.

        Raises:
            OSError: no answer in time (TimeoutError), or nobody there.
            HTTPException: the connection ended before the answer.
        """
        method, _, path = ask.partition(" ")
        with contextlib.closing(self.connection(within_s)) as wire:
            wire.request(method, path, None if body is None else json.dumps(body), headers)
            reply = wire.getresponse()
            return Answer(reply.status, reply.read())

    def ask_when_there(self, ask: str, within_s: float = ANSWER_S) -> Answer:
        """The same, once somebody listens.

        Raises:
            OSError: no answer in time.
            HTTPException: what came is no HTTP.
        """
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            with contextlib.suppress(ConnectionRefusedError, FileNotFoundError):
                return self.ask(ask, within_s=within_s)
            time.sleep(0.02)
        raise AssertionError(self.log.read_text())

    def request(self, tokens: int = 8, prompt: tuple[int, ...] = tuple(range(3, 23)), **more: object) -> dict[str, Any]:
        """The body of a request for a completion."""
        usual = {"temperature": 0, "logprobs": 1, "return_tokens_as_token_ids": True, "ignore_eos": True}
        return {"prompt": prompt, "max_tokens": tokens, **usual, **more}

    def complete(self, tokens: int = 8, within_s: float = ANSWER_S) -> tuple[list[str], list[float], str]:
        """Tokens, logprobs and the finish reason of a completion."""
        answer = self.ask("POST /v1/completions", self.request(tokens), within_s)
        assert answer.status == http.client.OK, answer
        choice = answer.json["choices"][0]
        return choice["logprobs"]["tokens"], choice["logprobs"]["token_logprobs"], choice["finish_reason"]

    def begin(self, tokens: int = 400) -> Stream:
        """A stream of which the first piece has come."""
        with contextlib.ExitStack() as stack:
            wire = stack.enter_context(contextlib.closing(self.connection()))
            wire.request("POST", "/v1/completions", json.dumps(self.request(tokens, stream=True)))
            reply = stack.enter_context(wire.getresponse())
            assert reply.readline().startswith(b"data: ")
            stack.pop_all()
        return Stream(wire, reply)

    def wait_ready(self) -> None:
        """Wait until it is healthy."""
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            with contextlib.suppress(ConnectionRefusedError, FileNotFoundError):
                self.ask("GET /health", within_s=READY_S)
                return
            time.sleep(0.02)
        raise AssertionError(self.log.read_text())

    def end(self) -> None:
        """End it and all that it has started."""
        started = descendants(self.process.pid)
        self.process.kill()
        for pid in started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
        self.process.wait()


def packages(folder: Path, version: str) -> Path:
    """A package folder in which vLLM has this version."""
    facts = folder / f"vllm-{version}.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")
    (folder / "vllm").symlink_to(FAKE / "vllm")
    return folder


def a_model(folder: Path, seed: int = 0) -> Path:
    """A model that only the fake engine can load: three shards, 300 kB."""
    folder.mkdir()
    facts = {"vocab_size": 2048, "max_position_embeddings": 4096, "architectures": ["Qwen3ForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(facts))
    for shard in range(3):
        (folder / f"layer-{shard}.safetensors").write_bytes(bytes([seed, shard]) * 50_000)
    return folder


def free_port() -> int:
    """A port that was free a moment ago."""
    with contextlib.closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def descendants(pid: int) -> list[int]:
    """The processes under one."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found, new = set[int](), {pid}
    while new:
        found |= new
        new = {one for one, parent in parents.items() if parent in new} - found
    return sorted(found - {pid})


def used_mib(env: Mapping[str, str], gpu: int) -> int:
    """MiB in use on a GPU, as NVML tells another process."""
    code = f"import pynvml as n; n.nvmlInit(); print(n.nvmlDeviceGetMemoryInfo(n.nvmlDeviceGetHandleByIndex({gpu}), n.nvmlMemory_v2).used >> 20)"  # noqa: E501 # one line of code
    done = subprocess.run([sys.executable, "-c", code], env={**env}, capture_output=True, text=True, check=True)
    return int(done.stdout)
