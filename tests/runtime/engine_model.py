"""An engine that is not there, over the modelled driver: real HTTP, a real server process, ranks that hold GPU memory.

    engine_model.py PLACE FILE LIBRARY RANKS FLAWS

It serves what `warmspare suspend --engine` asks for, as vLLM 0.26.0 does it. A request to `/test/hold` leaves another
in flight, `/test/let_go` ends that. Asked for `mode=wait` at level 1 while one is, it sleeps once that has ended, even
if it was woken meanwhile.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import parse_qs, urlsplit

GPU: Final = "GPU-00000000-0000-0000-0000-000000000000"
TOTAL_MIB: Final = 1000
AWAKE_MIB: Final = 300
ASLEEP_MIB: Final = 20
Flaw = Literal[
    "",
    "not vllm",
    "no endpoints",
    "key",
    "old",
    "mixed",
    "frees nothing",
    "sleep fails",
    "wake fails",
    "garbage",
    "silent",
]
KEY: Final = "sesame"


class Ledger:
    """The modelled driver's file."""

    def __init__(self, file: Path) -> None:
        """It is there."""
        self._file = file

    @contextlib.contextmanager
    def known(self) -> Iterator[dict[str, dict[str, Any]]]:
        """All that it knows, written back."""
        with self._file.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            known = json.load(file)
            yield known
            file.seek(0)
            file.truncate()
            json.dump(known, file)

    def hold(self, pids: list[int], mib: int) -> bool:
        """Let each of them hold so much; False, and nothing changed, if that is more than there is."""
        with self.known() as known:
            others = [
                one["vram"].get(GPU, 0)
                for pid, one in known.items()
                if int(pid) not in pids and one["state"] in ("running", "locked") and lives(pid)
            ]
            if sum(others) + mib * len(pids) > TOTAL_MIB:
                return False
            for pid in pids:
                flaw = known.get(str(pid), {}).get("flaw", "")
                known[str(pid)] = {"state": "running", "vram": {GPU: mib}, "flaw": flaw, "stranded": False}
        return True

    def run(self, pids: list[int]) -> bool:
        """Whether none of them is suspended."""
        with self.known() as known:
            return all(known[str(pid)]["state"] == "running" for pid in pids)


def lives(pid: str) -> bool:
    """Whether a process is there, and no zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="latin-1")
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] not in "ZX"


class State:
    """The engine: paused, asleep, and who waits."""

    def __init__(self, ledger: Ledger, ranks: list[int], flaws: set[str]) -> None:
        """Awake."""
        self.changed = threading.Condition()
        self.ledger, self.ranks, self.flaws = ledger, ranks, flaws
        self.paused = self.asleep = self.slept = False
        self.in_flight = 0

    def sleep(self, level: int, mode: str) -> int:
        """The status of POST /sleep."""
        with self.changed:
            if "sleep fails" in self.flaws and level:
                return 500
            self.paused = True
            if mode == "wait":
                self.changed.wait_for(lambda: not self.in_flight)
            if level:
                self.asleep = self.slept = True
                self.ledger.hold(self.ranks, AWAKE_MIB if "frees nothing" in self.flaws else ASLEEP_MIB)
            return 200

    def wake(self) -> int:
        """The status of POST /wake_up."""
        with self.changed:
            if not self.ledger.run(self.ranks):
                return 500
            if self.asleep and ("wake fails" in self.flaws or not self.ledger.hold(self.ranks, AWAKE_MIB)):
                return 500
            self.asleep = self.paused = False
            self.changed.notify_all()
            return 200

    def answer(self, prompt: list[int]) -> int:
        """The token that follows, once it is awake."""
        with self.changed:
            self.changed.wait_for(lambda: not self.paused)
            return sum(prompt) + (7 if self.slept and "garbage" in self.flaws else 0)

    def flight(self, change: int) -> int:
        """A request more or less is in flight."""
        with self.changed:
            self.in_flight += change
            self.changed.notify_all()
            return 200


class Handler(BaseHTTPRequestHandler):
    """One request."""

    state: State
    protocol_version = "HTTP/1.1"

    def address_string(self) -> str:
        """A unix socket's client has none."""
        return "client"

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""

    def do_GET(self) -> None:
        """What it says of itself."""
        flaws, path = self.state.flaws, urlsplit(self.path).path
        if "not vllm" in flaws:
            self.give(404, {"error": "no such page"})
        elif path == "/version":
            self.give(200, {"version": "0.16.0" if "old" in flaws else "0.26.0"})
        elif path == "/health":
            self.give(200, None)
        elif path == "/v1/models" and self.may():
            self.give(200, {"object": "list", "data": [{"id": "model", "object": "model"}]})
        elif path == "/is_sleeping" and "no endpoints" not in flaws:
            self.give(200, {"is_sleeping": self.state.paused})
        elif path == "/metrics":
            self.metrics()
        else:
            self.give(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        """What it is asked to do."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        if url.path == "/sleep" and "no endpoints" not in self.state.flaws:
            self.give(self.state.sleep(int(query.get("level", ["1"])[0]), query.get("mode", ["abort"])[0]), None)
        elif url.path == "/wake_up" and "no endpoints" not in self.state.flaws:
            self.give(self.state.wake(), None)
        elif url.path == "/v1/completions":
            if self.may():
                self.stream(self.state.answer(json.loads(body)["prompt"]))
        elif url.path in ("/test/hold", "/test/let_go"):
            self.give(self.state.flight(1 if url.path == "/test/hold" else -1), None)
        else:
            self.give(404, {"detail": "Not Found"})

    def may(self) -> bool:
        """Whether the key is right; else it is said."""
        if "key" not in self.state.flaws or self.headers.get("Authorization") == f"Bearer {KEY}":
            return True
        self.give(401, {"error": "Unauthorized"})
        return False

    def metrics(self) -> None:
        """The gauge of its state, one for each rank."""
        lines = []
        for rank in range(len(self.state.ranks)):
            asleep = self.state.asleep or ("mixed" in self.state.flaws and rank == 0)
            now = "weights_offloaded" if asleep else "awake"
            lines += [
                f'vllm:engine_sleep_state{{engine="{rank}",model_name="model",sleep_state="{one}"}} {float(one == now)}'
                for one in ("awake", "weights_offloaded", "discard_all")
            ]
        self.whole(200, "text/plain", "".join(f"{line}\n" for line in lines).encode())

    def stream(self, token: int) -> None:
        """One token, as it streams."""
        piece = {
            "id": "cmpl-1", "object": "text_completion", "created": 1, "model": "model", "choices": [{
                "index": 0, "text": "x", "finish_reason": "length", "stop_reason": None, "logprobs": {
                    "text_offset": [0], "tokens": [f"token_id:{token}"], "token_logprobs": [-1.5],
                    "top_logprobs": [{f"token_id:{token}": -1.5}],
                },
            }],
        }  # fmt: skip
        self.whole(200, "text/event-stream", f"data: {json.dumps(piece)}\n\ndata: [DONE]\n\n".encode())

    def give(self, status: int, value: object) -> None:
        """JSON, or nothing."""
        self.whole(status, "application/json", b"" if value is None else json.dumps(value).encode())

    def whole(self, status: int, kind: str, body: bytes) -> None:
        """An answer of known length."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # who asked did not wait for it
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)


class TcpServer(socketserver.ThreadingTCPServer):
    """On 127.0.0.1."""

    allow_reuse_address, daemon_threads = True, True


class UnixServer(socketserver.ThreadingUnixStreamServer):
    """On a path."""

    daemon_threads = True


class Model(NamedTuple):
    """An engine as a test has it."""

    url: str
    pid: int
    ranks: tuple[int, ...]
    file: Path

    @property
    def mib(self) -> int:
        """What its ranks hold, or held when they were suspended."""
        known = json.loads(self.file.read_text())
        return sum(known[str(pid)]["vram"].get(GPU, 0) for pid in self.ranks)

    @property
    def states(self) -> set[str]:
        """The driver's states of its ranks."""
        known = json.loads(self.file.read_text())
        return {known[str(pid)]["state"] for pid in self.ranks}


@contextlib.contextmanager
def engine(file: Path, library: Path, *flaws: Flaw, ranks: int = 2, place: str = "0") -> Iterator[Model]:
    """An engine that serves."""
    command = [sys.executable, "-I", "-S", __file__, place, str(file), str(library), str(ranks), ",".join(flaws)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            url, *pids = process.stdout.readline().split()
            yield Model(url, process.pid, tuple(map(int, pids)), file)
        finally:
            process.kill()
            process.communicate()


def main(place: str, file: str, library: str, count: str, flaws: str) -> None:
    """Serve until the input ends."""
    with open(library, "rb") as opened:  # noqa: PTH123 # as plain as it gets
        mapped = mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ)
    hears, says = os.pipe()
    ranks: list[int] = []
    for _ in range(int(count)):
        pid = os.fork()
        if pid == 0:
            os.close(says)
            os.read(hears, 1)
            os._exit(0)
        ranks.append(pid)
    ledger = Ledger(Path(file))
    assert ledger.hold(ranks, AWAKE_MIB)
    Handler.state = State(ledger, ranks, set(flaws.split(",")))
    server: socketserver.BaseServer
    if place.isdigit():
        server = TcpServer(("127.0.0.1", int(place)), Handler)
        url = f"http://127.0.0.1:{server.server_address[1]}"
    else:
        server, url = UnixServer(place, Handler), f"unix:{place}"
    sys.stdout.write(f"{url} {' '.join(map(str, ranks))}\n")
    sys.stdout.flush()
    server.serve_forever()
    mapped.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
