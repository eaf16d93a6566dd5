"""Suspend and resume of a vLLM engine awake against asleep first, in turn.

    python benchmarks/sleep_first.py --engine http://127.0.0.1:8000 [--runs 3]
    python benchmarks/sleep_first.py --vllm PYTHON --model FOLDER [--gpus 1] [--runs 3] [-- FLAGS]

In each run the engine is suspended and resumed as `warmspare suspend PID` does it, awake, and as `warmspare suspend
--engine URL` does it. Down is wall seconds from the command's first look to its last word; up is the same until the
engine has answered with one token. Free GPU memory is NVML's. No proof is asked for.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from paired import summary

from warmspare.control.checkpointer import Checkpointer
from warmspare.control.vllm import Tcp
from warmspare.control.vllm_server import Asked, Server
from warmspare.runtime import cards as gpus
from warmspare.runtime import engines, resuming, sleeping_first, suspending, waking
from warmspare.runtime.cards import Card, Watch, cards
from warmspare.runtime.engines import Found
from warmspare.runtime.journal import Journal
from warmspare.runtime.suspending import Options
from warmspare.runtime.unit import Tools

LOCK_S = 60.0
START_S = 1200.0


class Cycle(NamedTuple):
    """Wall seconds of one cycle, what was freed, and what it answered after it."""

    down_s: float
    up_s: float
    freed_mib: int
    tokens: tuple[int, ...] | None


def cycle(tools: Tools, found: Found, down: Callable[[], str], up: Callable[[], str]) -> Cycle:
    """Down, up, and an answer."""
    free = total_free(tools)
    down_s = seconds(down)
    freed = total_free(tools) - free
    answers: list[tuple[int, ...] | None] = []
    up_s = seconds(up, lambda: answers.append(engines.answer(found.engine).tokens))
    return Cycle(down_s, up_s, freed, answers[0])


def awake(tools: Tools, found: Found, options: Options) -> Cycle:
    """The driver moves everything."""
    return cycle(
        tools,
        found,
        lambda: suspending.suspend(tools, found.pid, options),
        lambda: resuming.resume(tools, found.pid, options),
    )


def asleep(tools: Tools, found: Found, options: Options) -> Cycle:
    """The engine sleeps, and the driver moves the rest."""
    return cycle(
        tools,
        found,
        lambda: sleeping_first.suspend(tools, found, options),
        lambda: waking.resume(tools, found.pid, options, found),
    )


def total_free(tools: Tools) -> int:
    """MiB, of all GPUs."""
    return sum((gpus.free(tools.cards()) or {}).values())


def seconds(*acts: Callable[[], object]) -> float:
    """What they take, one after another."""
    begun = time.perf_counter()
    for act in acts:
        act()
    return time.perf_counter() - begun


@contextlib.contextmanager
def engine(named: argparse.Namespace, flags: list[str], shown: tuple[Card, ...], folder: Path) -> Iterator[str]:
    """The address of the engine that is there, or of one that is started and stopped."""
    if named.engine:
        yield named.engine
        return
    with Server(
        Asked(
            python=named.vllm,
            model=named.model,
            flags=tuple(flags),
            gpus=tuple(card.uuid for card in shown[: named.gpus]),
            folder=folder,
        )
    ) as server:
        took = server.ready(START_S, lambda word: print(f"  {word}", file=sys.stderr))
        print(f"started in {took:.1f} s")
        address = server.engine.address
        yield f"http://{address.host}:{address.port}" if isinstance(address, Tcp) else f"unix:{address.path}"


def main(named: argparse.Namespace, flags: list[str]) -> int:
    """Measure and print; 1 if an answer changed."""
    with tempfile.TemporaryDirectory() as state, tempfile.TemporaryDirectory() as folder, Watch() as host:
        started = engine(named, flags, cards(host), Path(folder))
        with started as url, Journal.opened(Path(state) / "state") as journal, Checkpointer() as levers:
            tools = Tools(journal, levers, lambda: cards(host), lambda line: print(line, file=sys.stderr), _quiet, host)
            found = engines.found(url)
            options = Options(force=True, lock_s=LOCK_S)
            before = engines.answer(found.engine).tokens
            rows = [(awake(tools, found, options), asleep(tools, found, options)) for _ in range(named.runs + 1)][1:]
    for n, name in enumerate(("awake", "asleep first")):
        print(summary(f"{name}: down", [row[n].down_s for row in rows], "s"))
        print(summary(f"{name}: up, to the first token", [row[n].up_s for row in rows], "s"))
        print(summary(f"{name}: freed", [row[n].freed_mib for row in rows], "MiB"))
    for name in ("down_s", "up_s"):
        ratios = [getattr(one, name) / getattr(other, name) for one, other in rows]
        print(summary(f"{name.removesuffix('_s')}, awake / asleep first", ratios, "x"))
    right = all(one.tokens == before for row in rows for one in row)
    print("the answers are the same" if right else "the answers CHANGED")
    return 0 if right else 1


def _quiet(*_: object) -> None:
    """No progress is shown."""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--engine", metavar="URL")
    which.add_argument("--vllm", metavar="PYTHON")
    parser.add_argument("--model", metavar="FOLDER")
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--runs", type=int, default=3)
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    sys.exit(main(parser.parse_args(sys.argv[1:end]), sys.argv[end + 1 :]))
