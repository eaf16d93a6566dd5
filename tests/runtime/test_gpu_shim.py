"""CRIU's own CUDA plugin with our cuda-checkpoint, on a real GPU.

WARMSPARE_CRIU names the CRIU, WARMSPARE_CRIU_PLUGIN the folder that scripts/fetch-criu-plugin made, where they are not
in this checkout or on PATH.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from plugin_cycle import Cycle, orphans_are_ours

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.root,
    pytest.mark.criu,
    pytest.mark.plugin,
    pytest.mark.skipif(not Path("/proc/driver/nvidia/gpus").is_dir(), reason="the plugin sees no GPU here"),
]


@pytest.fixture
def cycle(tmp_path: Path) -> Iterator[Cycle]:
    with orphans_are_ours():
        one = Cycle(tmp_path, {})
        one.gently = True
        try:
            one.begin()
            yield one
        finally:
            one.end()


def test_a_process_with_gpu_memory_survives_dump_and_restore(cycle: Cycle) -> None:
    status, log = cycle.dump()
    assert status == 0, log[-4000:]
    assert f"cuda_plugin: Checkpointing CUDA devices on pid {cycle.pid}" in log
    called = cycle.called()
    assert called[0] == "-h"
    assert called[-3:] == [
        "--action lock --pid PID --timeout 10000",
        "--get-restore-tid --pid PID",
        "--action checkpoint --pid PID",
    ]
    status, log = cycle.restore()
    assert status == 0, log[-4000:]
    assert cycle.called()[-2:] == ["--action restore --pid PID", "--action unlock --pid PID"]
    assert cycle.ask("--get-state") == "running"
    assert [cycle.turn(), cycle.turn()] == ["turn 1 right", "turn 2 right"]


def test_one_that_is_left_running_runs_on(cycle: Cycle) -> None:
    status, log = cycle.dump("--leave-running")
    assert status == 0, log[-4000:]
    assert cycle.ask("--get-state") == "running"
    assert cycle.turn() == "turn 1 right"


def test_toggle_suspends_and_resumes(cycle: Cycle) -> None:
    cycle.ask("--toggle")
    assert cycle.ask("--get-state") == "checkpointed"
    cycle.ask("--toggle")
    assert [cycle.ask("--get-state"), cycle.turn()] == ["running", "turn 1 right"]
