"""Memory is only taken of a GPU on which the engine is seen to be alone."""

from __future__ import annotations

import pytest
from sleep_scene import gpu, host

from warmspare.control.vllm import Engine
from warmspare.host import nvml
from warmspare.trials.api import NotTried, Steps
from warmspare.trials.sleeping.bench import Bench
from warmspare.trials.sleeping.no_room import wake_without_room


def test_no_memory_is_taken_where_processes_are_not_seen(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setattr(nvml, "compute_pids", lambda _: frozenset())
    steps = Steps(lambda _: None, tmp_path_factory.mktemp("scratch"), 60.0)
    bench = Bench(steps, host(), (gpu(0),))
    bench.serve(Engine.at("http://127.0.0.1:1"), "m")
    with pytest.raises(NotTried, match="NVML does not tell who else is on gpu0"):
        wake_without_room(bench)
