"""An engine core: one data-parallel rank, asleep or awake."""

from __future__ import annotations

import argparse
from pathlib import PurePath
from typing import Any

from vllm.fake import weights
from vllm.fake.plan import Fail, Plan, crash, say
from vllm.fake.rank import Ranks
from vllm.fake.scheduler import TAGS, Message, Scheduler


class Core(Scheduler):
    """The state of one engine, changed only by its main thread."""

    def __init__(self, plan: Plan, asked: argparse.Namespace, replica: int, arguments: list[str]) -> None:
        """Load the model.

        Raises:
            Fail: the GPU has too little memory.
            OSError: there is no such model.
        """
        self._replica, self._asked = replica, asked
        say(f"INFO [gpu_model_runner.py:4820] Starting to load model {asked.model}...")
        loaded = weights.read(asked.model)
        self._ranks = Ranks(plan, asked, replica, arguments)
        blind = plan.text("blind") in ("", PurePath(asked.model).name)
        super().__init__(plan, int(weights.config(asked.model).get("vocab_size", 32_000)), loaded, blind=blind)
        say("INFO [default_loader.py:431] Loading weights took 0.01 seconds")
        say("INFO [gpu_worker.py:561] Available KV cache memory: 0.50 GiB")
        say("Capturing CUDA graphs (mixed prefill-decode, PIECEWISE): 100%|##########| 3/3")
        say("INFO [gpu_model_runner.py:748] Graph capturing finished in 0 secs, took 0.02 GiB")
        self._level, self._wakes, self._wedged = 0, 0, False
        self._draining: list[tuple[int, int]] = []

    def step(self) -> None:
        """One token for each that runs; what waited for their end goes on."""
        super().step()
        self._drained()

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
        self._wedged |= wanted is None and self._asleep != set(TAGS) and not plan.has("wakes-all-after-a-part")
        if self._wedged:  # what is mapped is mapped again, and the allocator remembers its first error for good
            message = "CUDA Error: invalid argument at /workspace/csrc/cumem_allocator.cpp:169"
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
            self._wakes += 1
            is_spoilt = plan.has("garbage-after-level-1") and self._wakes >= plan.value("garbage-after-level-1", 1)
            return b"other" if is_spoilt else self._weights
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
            result = bool(self._asleep)
            if self._plan.has("dead-after-wake-200") and not self._asleep:
                self.answer(number, result=False)
                crash()
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

    def _drained(self) -> None:
        if not self._running:
            for number, level in self._draining:
                self._suspend(number, level)
            self._draining = []
