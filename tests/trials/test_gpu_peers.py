"""Local-HA's trials on real GPUs: bytes at the links' speed, steady, and nothing left behind by a tool killed -9.

Last run: tests/hosts/README.md. `pytest -s` shows the figures.
"""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any, Final

import pynvml
import pytest
from test_gpu_trials import every, readings, used

from leftovers import Corner, until
from warmspare import catalogue
from warmspare.model.facts import HOST, Known, Outcome, Readings, known
from warmspare.probes.gpu import GpuIdentity
from warmspare.probes.gpus import PAIR
from warmspare.trials.given import Pair, Peers
from warmspare.trials.run import run
from worlds import TOOL

__all__ = ["readings"]

pytestmark = pytest.mark.gpu
TRIALS: Final = {trial.name: trial for trial in catalogue.trials()}
DONE: Final = Outcome(kind="done")
RUNS: Final = 5
SPREAD: Final = 0.02


def pairs(readings: Readings) -> tuple[str, ...]:
    found = PAIR.subjects(readings)
    if not found:
        pytest.skip("needs two GPUs")
    return found


def is_h200(readings: Readings) -> bool:
    return all("H200" in (known(readings, GpuIdentity, subject).name or "") for subject in every(readings))


def tried(name: str, given: object) -> Any:  # noqa: ANN401 # whichever proof
    before = used()
    ended = run(TRIALS[name], lambda _: None, given)
    assert (ended.left, used()) == ((), before)
    assert isinstance(ended.reading, Known), ended.reading
    print(f"\n{name}: {ended.reading.value}")  # noqa: T201 # figures to record
    assert ended.reading.value.outcome == DONE
    return ended.reading.value


def is_steady(speeds: list[float]) -> bool:
    print(f"spread of {speeds}: {(max(speeds) - min(speeds)) / max(speeds):.4f}")  # noqa: T201 # figures to record
    return (max(speeds) - min(speeds)) / max(speeds) < SPREAD


def test_every_pair_copies_at_the_speed_of_its_links_and_steadily(readings: Readings) -> None:
    for subject in pairs(readings):
        copies = [tried("peer_copy", Pair.of(readings, subject)) for _ in range(RUNS)]
        assert is_steady([copy.gb_per_s for copy in copies])
        for copy in copies:
            assert (copy.peer_access, copy.path, copy.path_by) == (True, "nvlink", "counters")
            assert copy.both_ways_gb_per_s > 1.5 * copy.gb_per_s
            assert copy.counted == pytest.approx(1, abs=0.02)
            if is_h200(readings):
                assert copy.gb_per_s >= 390


def test_the_all_reduce_is_right_and_steady(readings: Readings) -> None:
    pairs(readings)
    sums = [tried("nccl_allreduce", Peers.of(readings, HOST)) for _ in range(RUNS)]
    assert is_steady([one.busbw_gb_per_s for one in sums])
    for one in sums:
        assert one.transport.startswith("P2P")
        assert one.contrast_transport.startswith("SHM")
        assert one.busbw_gb_per_s > 5 * one.contrast_busbw_gb_per_s
        if is_h200(readings) and one.ranks == 2:
            assert one.busbw_gb_per_s >= 0.97 * 326


def at_work() -> list[int]:
    """Every process that NVML shows on a GPU."""
    pynvml.nvmlInit()
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(n) for n in range(pynvml.nvmlDeviceGetCount())]
        return [one.pid for handle in handles for one in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)]
    finally:
        pynvml.nvmlShutdown()


@pytest.mark.parametrize(
    ("track", "step"),
    [
        ("baseline", "gpu0: sleep"),
        ("baseline", "pin"),
        ("local-ha", "gpu0→gpu1: measure one way"),
        ("local-ha", "all-reduce 1024 MiB, as it is"),
        ("local-ha", "write 1"),
        ("local-ha", "kill and take over 1"),
    ],
)
def test_a_tool_that_is_killed_leaves_nothing_on_a_gpu(
    readings: Readings, tmp_path: Path, track: str, step: str
) -> None:
    if track == "local-ha":
        pairs(readings)
    before, corner = used(), Corner(tmp_path / "scratch")
    env = {**os.environ, **corner.env, "WARMSPARE_STATE_DIR": str(tmp_path / "state")}
    command = [*TOOL, "check", track, "-v"]
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as tool:
        assert tool.stderr
        reached = any(line.strip() == step for line in tool.stderr)
        tool.send_signal(signal.SIGKILL)
    assert reached
    assert until(lambda: used() == before)
    assert at_work() == []
    assert corner.left_in_the_end() == {}
