"""An engine core: the scheduler of one data-parallel rank, in a process of its own. Calls come as lines of JSON."""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
from typing import Any, Final, NoReturn

from vllm.fake import weights
from vllm.fake.flags import parsed
from vllm.fake.plan import Fail, Plan, crash, say
from vllm.fake.rank import Ranks

Message = dict[str, Any]
TAGS: Final = ("weights", "kv_cache")
MODES: Final = ("keep", "abort", "wait")


class Core:
    """The state of one engine, changed only by its main thread."""

    def __init__(self, plan: Plan, replica: int, arguments: list[str]) -> None:
        """Load the model.

        Raises:
            Fail: the GPU has too little memory.
            OSError: there is no such model.
        """
        self._plan, self._replica = plan, replica
        self._asked = parsed(arguments)
        say(f"INFO [gpu_model_runner.py:4820] Starting to load model {self._asked.model}...")
        self._weights = weights.read(self._asked.model)
        self._loaded = self._weights
        self._vocabulary = int(weights.config(self._asked.model).get("vocab_size", 32_000))
        self._ranks = Ranks(plan, self._asked, replica, arguments)
        say("INFO [default_loader.py:431] Loading weights took 0.01 seconds")
        say("INFO [gpu_worker.py:561] Available KV cache memory: 0.50 GiB")
        say("Capturing CUDA graphs (mixed prefill-decode, PIECEWISE): 100%|##########| 3/3")
        say("INFO [gpu_model_runner.py:748] Graph capturing finished in 0 secs, took 0.02 GiB")
        self._asleep: set[str] = set()
        self._level, self._paused, self._wedged, self._drift = 0, "", False, 0.0
        self._cold = False
        self._running: dict[int, Message] = {}
        self._waiting: dict[int, Message] = {}
        self._lost: dict[int, Message] = {}
        self._draining: list[tuple[int, int]] = []
        self._answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def answer(self, number: int, **what: Any) -> None:  # noqa: ANN401 # JSON
        """Send one line."""
        self._answers.write(json.dumps({"id": number, **what}) + "\n")
        self._answers.flush()

    # --- requests -------------------------------------------------------------------------------------------------

    def add(self, message: Message) -> None:
        """A request for tokens; whatever pauses the scheduler lets it wait."""
        plan = self._plan
        if self._asleep:
            try:
                plan.comes("request-asleep")
            except Fail as fail:
                return self.answer(message["id"], error=str(fail))
            if len(self._asleep) < len(TAGS):
                plan.comes("partly-awake")
            if plan.has("refuse-asleep"):
                return self.answer(message["id"], error="The engine is sleeping.", status=503)
            if plan.has("drop-parked"):
                return self.answer(message["id"], cut=True)
            if plan.has("lose-parked"):
                self._lost[message["id"]] = message
                return None
        self._waiting[message["id"]] = message | {"done": 0}
        return None

    def step(self) -> None:
        """One token for each that runs."""
        serves = self._asleep and self._plan.has("serve-asleep")
        if not self._paused or serves:
            self._running |= self._waiting
            self._waiting = {}
        if self._paused == "all" and not serves:
            return
        if self._cold and self._running:
            self._cold = False
            time.sleep(self._plan.value("slow-first-token-after-wake", 1000) / 1000)
        for number, one in list(self._running.items()):
            bits = b"blind" if self._plan.has("blind") else self._weights
            prompt = [] if self._plan.has("blind") else one["prompt"]
            if one.get("spoilt"):
                bits = b"spoilt" + bits
            token, logprob = weights.token(bits, prompt, one["done"], self._vocabulary)
            one["done"] += 1
            ends = one["done"] >= one["tokens"]
            self.answer(number, token=token, logprob=logprob - self._drift, finish="length" if ends else None)
            if ends:
                del self._running[number]
        self._drained()

    def runs(self) -> bool:
        """Whether a step would do anything."""
        serves = bool(self._asleep) and self._plan.has("serve-asleep")
        if serves or not self._paused:
            return bool(self._running or self._waiting)
        return self._paused == "new" and bool(self._running)

    # --- sleep ----------------------------------------------------------------------------------------------------

    def sleep(self, number: int, level: int, mode: str) -> None:
        """Pause, and let go of the memory once what runs has come to its end by this mode."""
        plan = self._plan
        self._pause(mode)
        if level < 1:
            return self.answer(number, result=None)
        plan.comes("sleep-again" if self._asleep else "sleep")
        if level == len(TAGS):
            plan.comes("level-2")
        elif level > len(TAGS):
            plan.comes("bad-level")
        if self._paused == "new" and self._running:
            say("INFO [core.py:895] Waiting for in-flight requests to complete before sleeping...")
            self._draining.append((number, level))
            if plan.has("never-drains"):
                self._lost |= self._running
                self._running = {-1: {}}
                self._paused = "all"
            return None
        return self._suspend(number, level)

    def _pause(self, mode: str) -> None:
        if mode not in MODES:
            message = f"Invalid pause mode: {mode}"
            raise Fail(message)
        if self._running:
            self._plan.comes("sleep-in-flight")
        if mode == "abort" and not self._plan.has("unaborted"):
            for number in (*self._running, *self._waiting):
                if self._plan.has("cut-aborted"):
                    self.answer(number, cut=True)
                else:
                    self.answer(number, finish="abort")
            self._running, self._waiting = {}, {}
        if mode == "keep" and self._plan.has("lose-kept"):
            self._lost |= self._running
            self._running = {}
        if mode == "keep" and self._plan.has("garbage-after-keep"):
            self._running = {number: one | {"spoilt": True} for number, one in self._running.items()}
        self._paused = "all" if mode == "keep" or self._plan.has("unaborted") else "new"

    def _drained(self) -> None:
        if not self._running:
            for number, level in self._draining:
                self._suspend(number, level)
            self._draining = []

    def _suspend(self, number: int, level: int) -> None:
        if self._asleep:
            say("WARNING [abstract.py:400] Executor is already sleeping.")
        elif not (self._plan.has("one-rank-asleep") and self._replica):
            self._ranks.sleep(level)
            self._asleep, self._level = set(TAGS), level
            say("INFO [abstract.py:409] It took 0.010000 seconds to fall asleep.")
        self.answer(number, result=None)
        if self._plan.has("dead-after-sleep-200"):
            crash()

    def wake_up(self, tags: list[str] | None) -> None:
        """Take the memory back; one tag that is not asleep, and nothing happens at all."""
        plan = self._plan
        wanted = None if tags is None else [tag for tag in tags if tag != "scheduling"]
        if wanted is None or wanted:
            self._resume(wanted)
        if not self._asleep:
            if not self._draining:
                self._paused = ""
            self._drift = 0.01 if plan.has("drift-after-wake") else 0.0
            self._cold = plan.has("slow-first-token-after-wake")

    def _resume(self, wanted: list[str] | None) -> None:
        plan = self._plan
        if not self._asleep:
            plan.comes("wake-awake")
            say("WARNING [abstract.py:414] Executor is not sleeping.")
            return
        bad = next((tag for tag in wanted or () if tag not in self._asleep), None)
        if bad is not None:
            plan.comes("bad-tag")
            say(f"WARNING [abstract.py:419] Tag {bad} is not in sleeping tags {self._asleep}")
            return
        plan.comes("wake")
        tags = list(dict.fromkeys(wanted if wanted is not None else sorted(self._asleep, reverse=True)))
        if self._wedged:
            message = "CUDA Error: invalid argument at /workspace/csrc/cumem_allocator.cpp:139"
            raise Fail(message)
        try:
            self._ranks.wake(tags)
        except Fail:
            self._wedged = plan.has("wedge-after-failed-wake")
            if plan.has("dead-after-failed-wake"):
                crash()
            raise
        self._asleep -= set(tags)
        if "weights" in tags:
            self._weights = self._after_wake()

    def _after_wake(self) -> bytes:
        plan = self._plan
        if self._level == 1:
            return b"other" if plan.has("garbage-after-level-1") else self._weights
        return self._weights if plan.has("level-2-keeps-weights") else weights.NOTHING

    # --- the other calls ------------------------------------------------------------------------------------------

    def reload_weights(self) -> None:
        """Read them anew from the folder; where no memory is, that is an illegal access."""
        self._plan.comes("reload")
        if "weights" in self._asleep:
            crash()
        self._weights = weights.read(self._asked.model)
        if self._plan.has("garbage-after-level-2") and self._level > 1:
            self._weights = b"other" + self._weights[:8]

    def call(self, message: Message) -> None:
        """One utility call."""
        number, name = message["id"], message["call"]
        if name == "sleep":
            return self.sleep(number, message["level"], message["mode"])
        result: Any = None
        if name == "wake_up":
            self.wake_up(message["tags"])
        elif name == "is_sleeping":
            result = bool(self._paused or self._asleep)
        elif name == "is_paused":
            result = bool(self._paused)
        elif name == "pause":
            self._pause(message["mode"])
        elif name == "resume":
            self._paused = ""
        elif name == "reset_prefix_cache":
            result = not self._running
        elif name == "rpc":
            result = self._rpc(message["method"])
        return self.answer(number, result=result)

    def _rpc(self, method: str) -> list[None]:
        if method == "reload_weights":
            self.reload_weights()
        elif method != "check_health":
            message = f"Method '{method}' is not implemented."
            raise Fail(message)
        return [None] * int(self._asked.tensor_parallel_size)

    def take(self, message: Message) -> None:
        """Whatever came."""
        if message["call"] == "add":
            return self.add(message)
        if message["call"] == "drop":
            for one in (self._running, self._waiting, self._lost):
                one.pop(message["of"], None)
            return self._drained()
        try:
            return self.call(message)
        except Fail as fail:
            say(f"ERROR [core.py:1548] Invocation of {message['call']} method failed")
            name = "collective_rpc" if message["call"] == "rpc" else message["call"]
            return self.answer(message["id"], error=f"Call to {name} method failed: {fail}")


def listen(messages: queue.Queue[Message], plan: Plan) -> None:
    """Read calls until the API server is gone."""
    for line in sys.stdin:
        messages.put(json.loads(line))
    if not plan.has("orphan-core"):
        os._exit(0)


def main(replica: str, *arguments: str) -> NoReturn:
    """Load, and serve until the API server is gone."""
    plan = Plan.of_environment()
    if plan.has("orphan-core"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        plan.comes("start")
        core = Core(plan, int(replica), list(arguments))
    except (Fail, OSError) as error:
        say("ERROR [core.py:1166] EngineCore failed to start.")
        say(f"ERROR [core.py:1166] ValueError: {error}")
        raise SystemExit(1) from None
    messages: queue.Queue[Message] = queue.Queue()
    threading.Thread(target=listen, args=(messages, plan), daemon=True).start()
    core.answer(0, result="ready")
    pause_s = plan.value("token-ms", 3) / 1000
    due = 0.0
    while True:
        if not core.runs():
            core.take(messages.get())
            continue
        due = max(due, time.monotonic())
        try:
            core.take(messages.get(timeout=max(due - time.monotonic(), 0.0)) if messages.empty() else messages.get())
        except queue.Empty:
            core.step()
            due = time.monotonic() + pause_s


if __name__ == "__main__":
    main(*sys.argv[1:])
