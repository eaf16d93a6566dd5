"""Memory is only taken of a GPU on which the engine is seen to be alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE, Popen
from types import SimpleNamespace
from typing import Any

import pytest
from sleep_scene import gpu, host

from warmspare.control.vllm import Engine
from warmspare.host import nvml
from warmspare.trials.api import NotTried, Steps
from warmspare.trials.sleeping.bench import Bench
from warmspare.trials.sleeping.no_room import wake_without_room

UNSEEN = "cannot see who else is on gpu{}: NVML lists no process of the engine"
FAILS = 999
"""NVML_ERROR_UNKNOWN."""


@pytest.fixture
def core() -> Iterator[int]:
    """A process below this one, which is the server here."""
    with Popen([sys.executable, "-c", "input()"], stdin=PIPE) as below:
        yield below.pid


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    found = Bench(Steps(lambda _: None, tmp_path, 60.0), host(), (gpu(0), gpu(1)))
    found.serve(Engine.at("http://127.0.0.1:1"), "m")
    stub: Any = SimpleNamespace(pid=os.getpid())
    found.server = stub
    return found


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        ([None, {"core"}], UNSEEN.format(0)),
        ([set(), {"core"}], UNSEEN.format(0)),
        ([{1}, {"core"}], UNSEEN.format(0)),
        ([{"core"}, {1}], UNSEEN.format(1)),
        ([{"core", 1}, {"core"}], "another process is on gpu0"),
        ([{"core"}, {"core", 1}], "another process is on gpu1"),
    ],
)
def test_no_memory_is_taken_where_the_engine_is_not_seen_to_be_alone(
    bench: Bench, core: int, monkeypatch: pytest.MonkeyPatch, listed: list[set[str | int] | None], said: str
) -> None:
    real = [one and {core if pid == "core" else pid for pid in one} for one in listed]
    monkeypatch.setattr(nvml, "all_pids", lambda index: real[index])
    with pytest.raises(NotTried, match=f"^{said}$"):
        wake_without_room(bench)


def test_those_that_draw_and_those_below_mps_count_too(monkeypatch: pytest.MonkeyPatch) -> None:
    import pynvml  # noqa: PLC0415 # as nvml does

    answers: dict[str, list[int] | int] = {"Compute": [1], "Graphics": [2], "MPSCompute": [3]}

    def told(kind: str) -> list[SimpleNamespace]:
        answer = answers[kind]
        if isinstance(answer, int):
            raise pynvml.NVMLError(answer)
        return [SimpleNamespace(pid=pid) for pid in answer]

    monkeypatch.setattr(nvml, "_load", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda index: index)
    for kind in answers:
        monkeypatch.setattr(pynvml, f"nvmlDeviceGet{kind}RunningProcesses", lambda _, kind=kind: told(kind))
    assert nvml.all_pids(0) == frozenset({1, 2, 3})
    answers |= {"Graphics": pynvml.NVML_ERROR_NOT_SUPPORTED, "MPSCompute": pynvml.NVML_ERROR_FUNCTION_NOT_FOUND}
    assert nvml.all_pids(0) == frozenset({1})
    answers["Graphics"] = FAILS
    assert nvml.all_pids(0) is None
