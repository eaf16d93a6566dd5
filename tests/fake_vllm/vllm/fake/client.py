"""The API server's side of the engine cores: it starts them, hands calls on, and sees them die."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from typing import Any, Final

from vllm.fake.plan import Plan, say

Pieces = queue.Queue[dict[str, Any]]
DEAD: Final = "EngineCore encountered an issue. See stack trace (above) for the root cause."


class EngineDeadError(Exception):
    """A core has ended."""

    def __init__(self) -> None:
        """Say it as vLLM does."""
        super().__init__(DEAD)


class CallFailed(Exception):  # it says what happened
    """A core refused a call."""


class Core:
    """One engine core."""

    def __init__(self, plan: Plan, replica: int, replicas: int, arguments: list[str]) -> None:
        """Start it; its first answer says that it is ready."""
        self.dead = threading.Event()
        self.load = 0
        self._lock, self._open, self._next = threading.Lock(), dict[int, Pieces](), 1
        self._ready: Pieces = queue.Queue()
        self._open[0] = self._ready
        self._title = "VLLM::EngineCore" + (f"_DP{replica}" if replicas > 1 else "")
        self._process = subprocess.Popen(
            [self._title, "-S", "-m", "vllm.fake.core_process", str(replica), *arguments],
            executable=sys.executable,
            env={**os.environ, "PYTHONHOME": sys.base_prefix, "FAKE_VLLM_PYTHON": sys.executable},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=plan.has("orphan-core"),
        )
        threading.Thread(target=self._listen, daemon=True).start()

    def ready(self) -> bool:
        """Whether it came up."""
        return "dead" not in self._ready.get()

    def _listen(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            answer = json.loads(line)
            with self._lock:
                pieces = self._open.get(answer["id"])
            if pieces is not None:
                pieces.put(answer)
        with self._lock:
            self.dead.set()
            for pieces in self._open.values():
                pieces.put({"dead": True})
        say(f"ERROR [core_client.py:667] Engine core proc {self._title} died unexpectedly")

    def send(self, **call: Any) -> tuple[int, Pieces]:  # noqa: ANN401 # JSON
        """Send a call; what comes of it.

        Raises:
            EngineDeadError: it has ended.
        """
        pieces: Pieces = queue.Queue()
        with self._lock:
            if self.dead.is_set():
                raise EngineDeadError
            number, self._next = self._next, self._next + 1
            self._open[number] = pieces
            assert self._process.stdin
            try:
                self._process.stdin.write(json.dumps({"id": number, **call}).encode() + b"\n")
                self._process.stdin.flush()
            except OSError:
                raise EngineDeadError from None
        return number, pieces

    def forget(self, number: int, *, drop: bool) -> None:
        """No more answers to this call are wanted; `drop`: the request ends with it."""
        with self._lock:
            self._open.pop(number, None)
        if drop and not self.dead.is_set():
            other, _ = self.send(call="drop", of=number)
            with self._lock:
                self._open.pop(other, None)

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            say("WARNING a core does not end")


class Engine:
    """All cores. A call goes to each; the first one's answer counts, as in 0.26.0."""

    def __init__(self, plan: Plan, replicas: int, arguments: list[str]) -> None:
        """Start them all."""
        self.cores = [Core(plan, replica, replicas, arguments) for replica in range(replicas)]
        self.sleep_state: tuple[str, ...] = ("awake",)
        self.requests = 0

    def ready(self) -> bool:
        """Whether all came up."""
        came = [core.ready() for core in self.cores]
        return all(came)

    @property
    def dead(self) -> bool:
        """Whether one has ended."""
        return any(core.dead.is_set() for core in self.cores)

    def call(self, name: str, **arguments: Any) -> Any:  # noqa: ANN401 # JSON
        """Ask all, and wait for all.

        Raises:
            EngineDeadError: one has ended.
            CallFailed: one refused.
        """
        sent = [(core, *core.send(call=name, **arguments)) for core in self.cores]
        answers = []
        for core, number, pieces in sent:
            answers.append(pieces.get())
            core.forget(number, drop=False)
        for answer in answers:
            if "dead" in answer:
                raise EngineDeadError
            if "error" in answer:
                raise CallFailed(answer["error"])
        return answers[0]["result"]

    def add(self, prompt: list[int], tokens: int) -> tuple[Core, int, Pieces]:
        """A request, to the core with the fewest.

        Raises:
            EngineDeadError: it has ended.
        """
        core = min(self.cores, key=lambda one: one.load)
        core.load += 1
        self.requests += 1
        return (core, *core.send(call="add", prompt=prompt, tokens=tokens))

    def done(self, core: Core, number: int, *, drop: bool) -> None:
        """A request has ended, or its client is gone (`drop`)."""
        core.load -= 1
        self.requests -= 1
        try:
            core.forget(number, drop=drop)
        except EngineDeadError:
            say("a request was dropped that had lost its engine")

    def stop(self) -> None:
        """End all."""
        for core in self.cores:
            core.stop()
