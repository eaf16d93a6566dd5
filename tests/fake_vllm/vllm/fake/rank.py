"""One rank: what it holds on its GPU, and on the host while it sleeps; under tensor parallelism, its own process."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from typing import Any, Final, NoReturn

from vllm.fake.flags import parsed
from vllm.fake.gpu import MIB, Gpu, GpuError
from vllm.fake.plan import Fail, Plan, crash, say
from vllm.fake.weights import size_of

GRAPHS: Final = 16 * MIB
"""What stays on the GPU whatever sleeps: captured graphs, NCCL's buffers."""
HALF: Final = 2


class Rank:
    """The memory of one rank."""

    def __init__(self, plan: Plan, asked: argparse.Namespace, replica: int, shard: int) -> None:
        """Take the memory of a start.

        Raises:
            Fail: there is too little.
        """
        self._plan = plan
        self._host: list[bytes] = []
        self._sleeps = not (plan.has("one-rank-asleep") and (replica or shard))
        try:
            self._gpu = Gpu(replica * asked.tensor_parallel_size + shard)
            free, total = self._gpu.memory()
        except GpuError as error:
            raise Fail(str(error)) from None
        self._weights = size_of(asked.model) // asked.tensor_parallel_size
        wanted = int(total * asked.gpu_memory_utilization)
        if asked.kv_cache_memory_bytes is None and free < wanted:
            message = (
                f"Free memory on device cuda:{shard} ({free / 2**30:.2f}/{total / 2**30:.2f} GiB) on startup is less "
                f"than desired GPU memory utilization ({asked.gpu_memory_utilization}, {wanted / 2**30:.2f} GiB). "
                "Decrease GPU memory utilization or reduce GPU memory used by other processes."
            )
            raise Fail(message)
        self._kv = asked.kv_cache_memory_bytes or wanted - self._weights - GRAPHS
        if self._kv <= 0:
            message = "No available memory for the cache blocks. Try increasing `gpu_memory_utilization`."
            raise Fail(message)
        self._backup = b""
        try:
            for tag, size in (("graphs", GRAPHS), ("weights", self._weights), ("kv_cache", self._kv)):
                self._gpu.take(tag, size)
        except GpuError as error:
            raise Fail(str(error)) from None

    def sleep(self, level: int) -> None:
        """Let go of weights and KV cache; at level 1 the weights get a place on the host, which stays taken."""
        if not self._sleeps:
            return
        time.sleep(self._plan.value("copy-ms", 0) / 1000)
        if level == 1 and not self._backup:
            self._backup = b"\1" * self._weights
        if self._plan.has("leak-host-each-cycle"):
            self._host.append(b"\1" * (int(self._plan.value("leak-host-each-cycle", 8)) * MIB))
        if not self._plan.has("memory-not-freed"):
            self._gpu.give_back("weights")
            self._gpu.give_back("kv_cache")
        if self._plan.has("memory-half-freed"):
            self._gpu.take("kept", (self._weights + self._kv) // HALF)
        if self._plan.has("leak-each-cycle"):
            self._gpu.take("leaked", int(self._plan.value("leak-each-cycle", 8)) * MIB)

    def wake(self, tags: list[str]) -> None:
        """Take back what has these tags; all of it or nothing.

        Raises:
            Fail: there is too little.
        """
        time.sleep(self._plan.value("copy-ms", 0) / 1000)
        self._gpu.give_back("kept")
        missing = [tag for tag in tags if not self._gpu.has(tag)]
        try:
            for tag in missing:
                self._gpu.take(tag, self._weights if tag == "weights" else self._kv)
        except GpuError as error:
            for tag in missing:
                self._gpu.give_back(tag)
            raise Fail(str(error)) from None


class Worker:
    """A rank in a process of its own, as tensor parallelism has them."""

    def __init__(self, replica: int, shard: int, arguments: list[str]) -> None:
        """Start it; `started` says how that went."""
        self._process = subprocess.Popen(
            [f"VLLM::Worker_TP{shard}", "-S", "-m", "vllm.fake.rank", str(replica), str(shard), *arguments],
            executable=os.environ["FAKE_VLLM_PYTHON"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def answer(self) -> None:
        """Wait for the answer to the last call; a worker that has ended takes the engine with it.

        Raises:
            Fail: the rank's own.
        """
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            say("ERROR [multiproc_executor.py:254] Worker proc died unexpectedly, shutting down executor.")
            crash()
        if said := json.loads(line):
            raise Fail(said)

    def ask(self, *call: Any) -> None:  # noqa: ANN401 # JSON
        """Send a call."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps(call).encode() + b"\n")
        self._process.stdin.flush()


class Ranks:
    """All ranks of one engine core."""

    def __init__(self, plan: Plan, asked: argparse.Namespace, replica: int, arguments: list[str]) -> None:
        """Start them.

        Raises:
            Fail: one has too little memory.
        """
        self._own: Rank | None = None
        self._workers: list[Worker] = []
        if asked.tensor_parallel_size == 1:
            self._own = Rank(plan, asked, replica, 0)
            return
        self._workers = [Worker(replica, shard, arguments) for shard in range(asked.tensor_parallel_size)]
        self._answers()

    def _answers(self) -> None:
        failed: Fail | None = None
        for worker in self._workers:
            try:
                worker.answer()
            except Fail as fail:
                failed = failed or fail
        if failed:
            raise failed

    def sleep(self, level: int) -> None:
        """All of them."""
        if self._own:
            self._own.sleep(level)
        for worker in self._workers:
            worker.ask("sleep", level)
        self._answers()

    def wake(self, tags: list[str]) -> None:
        """All of them.

        Raises:
            Fail: one has too little memory.
        """
        if self._own:
            self._own.wake(tags)
        for worker in self._workers:
            worker.ask("wake", tags)
        self._answers()


def main(replica: str, shard: str, *arguments: str) -> NoReturn:
    """A worker: calls come in as lines, and an answer goes out for each (null, or what failed)."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(what: str | None) -> None:
        answers.write(json.dumps(what) + "\n")
        answers.flush()

    try:
        rank = Rank(Plan.of_environment(), parsed(list(arguments)), int(replica), int(shard))
    except Fail as fail:
        answer(str(fail))
        raise SystemExit(1) from None
    answer(None)
    for line in sys.stdin:
        name, argument = json.loads(line)
        try:
            getattr(rank, name)(argument)
        except Fail as fail:
            answer(str(fail))
        else:
            answer(None)
    raise SystemExit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
