"""The requests of one engine core: what runs, what waits, and what a pause does to them."""

from __future__ import annotations

import json
import os
import time
from typing import Any, Final

from vllm.fake import weights
from vllm.fake.plan import Fail, Plan

Message = dict[str, Any]
TAGS: Final = ("weights", "kv_cache")
MODES: Final = ("keep", "abort", "wait")


class Scheduler:
    """Requests, and whether they may run; `loaded` is what stands for the weights."""

    def __init__(self, plan: Plan, vocabulary: int, loaded: bytes, *, blind: bool = False) -> None:
        """Nothing runs, and answers go where this process's standard output went."""
        self._blind = blind
        self._plan, self._vocabulary, self._weights = plan, vocabulary, loaded
        self._asleep: set[str] = set()
        self._paused, self._drift, self._cold = "", 0.0, False
        self._running: dict[int, Message] = {}
        self._waiting: dict[int, Message] = {}
        self._lost: dict[int, Message] = {}
        self._answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def answer(self, number: int, **what: Any) -> None:  # noqa: ANN401 # JSON
        """Send one line."""
        self._answers.write(json.dumps({"id": number, **what}) + "\n")
        self._answers.flush()

    def add(self, message: Message) -> None:
        """A request for tokens; whatever pauses the scheduler lets it wait."""
        plan = self._plan
        if self._asleep:
            try:
                plan.comes("request-asleep")
                if len(self._asleep) < len(TAGS):
                    plan.comes("request-partly-awake")
            except Fail as fail:
                return self.answer(message["id"], error=str(fail))
            if plan.has("refuse-asleep"):
                return self.answer(message["id"], error="The engine is sleeping.", status=503)
            if plan.has("drop-parked"):
                return self.answer(message["id"], cut=True)
            if plan.has("lose-parked"):
                self._lost[message["id"]] = message
                return None
        self._waiting[message["id"]] = message | {"done": 0, "fails": bool(self._asleep) and plan.has("fail-parked")}
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
            bits = b"blind" if self._blind else self._weights
            prompt = [] if self._blind else one["prompt"]
            if one.get("fails"):
                self.answer(number, error="CUDA error: an illegal memory access was encountered")
                del self._running[number]
                continue
            if one.get("spoilt"):
                bits = b"spoilt" + bits
            token, logprob = weights.token(bits, prompt, one["done"], self._vocabulary)
            one["done"] += 1
            ends = one["done"] >= one["tokens"]
            self.answer(number, token=token, logprob=logprob - self._drift, finish="length" if ends else None)
            if ends:
                del self._running[number]

    def runs(self) -> bool:
        """Whether a step would do anything."""
        serves = bool(self._asleep) and self._plan.has("serve-asleep")
        if serves or not self._paused:
            return bool(self._running or self._waiting)
        return self._paused == "new" and bool(self._running)

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
