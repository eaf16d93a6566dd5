"""Suspend and resume on the stand-in driver: an honest one passes, and every hazard has its own outcome and end."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

import pytest
from gpu_world import DONE, World, outcome, value

from leftovers import until
from warmspare.control import process
from warmspare.model.facts import Absent, Cause
from warmspare.trials import gentle, gpu_canary, leftover
from warmspare.trials.api import StepEvent
from warmspare.trials.gpu_beats import Beat, fault
from warmspare.trials.gpu_move import GpuMove
from warmspare.trials.gpu_suspend import GpuSuspend
from warmspare.trials.on_gpu import NO_ORACLE

pytest_plugins = ("gpu_fixtures",)
PATIENT_S: Final = 24.0
"""A deadline for what waits in vain for a sign of life, a quarter of this."""


def test_a_process_survives_on_an_honest_driver(world: World) -> None:
    world.enter("cu*Synchronize*: crashes")  # the first call after a checkpoint may not be one: it makes none at all
    ended = world.run("gpu_suspend")
    proof = value(ended)
    assert isinstance(proof, GpuSuspend)
    assert (proof.outcome, proof.bytes_survived, proof.mib_freed, proof.freed_by) == (DONE, True, 102, "nvml")
    assert proof.unlisted
    assert min(proof.lock_s or 0, proof.resume_s or 0, proof.worker_start_s or 0, proof.init_s or 0) > 0
    assert (proof.suspend_s or 0) > (proof.lock_s or 0)
    assert min(proof.suspend_gib_per_s or 0, proof.resume_gib_per_s or 0) > 0
    assert (ended.left, world.corner.left()) == ((), {})


def test_a_process_is_moved_to_another_gpu_by_an_honest_driver(world: World) -> None:
    world.enter()
    proof = value(world.run("gpu_move"))
    assert isinstance(proof, GpuMove)
    assert (proof.outcome, proof.pair, proof.bytes_survived) == (DONE, "gpu1→gpu2", True)
    assert (proof.mib_freed, proof.mib_used) == (102, 102)


OOM: Final = "2 CUDA_ERROR_OUT_OF_MEMORY"
INVALID: Final = "1 CUDA_ERROR_INVALID_VALUE"
UNSUPPORTED: Final = "801 CUDA_ERROR_NOT_SUPPORTED"
ILLEGAL: Final = "401 CUDA_ERROR_ILLEGAL_STATE"
FAILS: Final[dict[tuple[str, str], tuple[str, str, str | None]]] = {
    ("gpu_suspend", "cuCheckpointProcessLock nth1: returns 600"): ("refused", "lock", "600 CUDA_ERROR_NOT_READY"),
    ("gpu_suspend", "cuCheckpointProcessLock nth1: crashes"): ("died", "lock", "signal 11"),
    ("gpu_suspend", "lock target nth1: hangs"): ("hung", "lock", None),
    ("gpu_suspend", "lock target nth1: crashes"): ("died", "lock", "signal 11"),
    ("gpu_suspend", "state locked nth1: gives 0"): ("wrong", "lock", None),
    ("gpu_suspend", "checkpoint target nth1: returns 801"): ("refused", "checkpoint", UNSUPPORTED),
    ("gpu_suspend", "checkpoint target nth1: hangs"): ("hung", "checkpoint", None),
    ("gpu_suspend", "checkpoint target nth1: crashes"): ("died", "checkpoint", "signal 11"),
    ("gpu_suspend", "state checkpointed nth1: gives 0"): ("wrong", "checkpoint", None),
    ("gpu_suspend", "kept vram gpu1: gives 1"): ("wrong", "see the memory freed", None),
    ("gpu_suspend", "restore target nth1: returns 2"): ("refused", "restore", OOM),
    ("gpu_suspend", "restore target nth1: crashes"): ("died", "restore", "signal 11"),
    ("gpu_suspend", "cuCheckpointProcessRestore nth1: hangs"): ("hung", "restore", None),
    ("gpu_suspend", "cuCheckpointProcessRestore nth1: crashes"): ("died", "restore", "signal 11"),
    ("gpu_suspend", "wrong page of restore gpu1: gives 5"): ("wrong", "see it go on", None),
    ("gpu_suspend", "unlock target nth1: returns 401"): ("refused", "unlock", ILLEGAL),
    ("gpu_suspend", "unlock target nth1: crashes"): ("died", "unlock", "signal 11"),
    ("gpu_move", "restore target nth1: returns 1"): ("refused", "restore", INVALID),
    ("gpu_move", "kind gpu2: gives 7"): ("refused", "restore", INVALID),
    ("gpu_move", "kept vram gpu1: gives 1"): ("wrong", "see the memory freed", None),
    ("gpu_move", "wrong page of restore gpu2: gives 5"): ("wrong", "see it go on", None),
}  # fmt: skip


@pytest.mark.parametrize(("name", "fate"), FAILS, ids=[" - ".join(key) for key in FAILS])
def test_a_hazard_is_an_outcome_at_its_step_and_leaves_nothing(world: World, name: str, fate: str) -> None:
    world.enter(fate)
    kind, step, _ = FAILS[name, fate]
    ended = world.run_to_hang(name, step) if kind == "hung" else world.run(name)
    assert outcome(ended) == FAILS[name, fate], value(ended)
    assert (ended.left, world.corner.left()) == ((), {})


def test_a_check_that_is_blind_after_the_resume_proves_nothing(world: World) -> None:
    world.enter()

    def blind(event: StepEvent) -> None:
        if event.name == "restore" and event.took_s is None:
            world.change("result of check gpu1: gives 0")

    assert outcome(world.run("gpu_suspend", progress=blind)) == ("wrong", "see it go on", None)


def test_memory_that_comes_to_no_gpu_was_not_moved(world: World) -> None:
    world.enter("nvmlDeviceGetMemoryInfo gpu2: returns 3", "told free gpu2 *: gives 900")
    assert outcome(world.run("gpu_move", PATIENT_S)) == ("wrong", "see its memory there", None)


def test_a_driver_without_the_calls_refuses_at_the_first(world: World) -> None:
    world.enter(lacks=("cuCheckpointProcessLock",))
    assert outcome(world.run("gpu_suspend")) == ("refused", "lock", "MISSING_SYMBOL")


def test_where_nvml_is_silent_another_process_s_cuda_tells_what_is_free(world: World) -> None:
    world.enter("nvmlDeviceGet*: returns 3")
    proof = value(world.run("gpu_suspend"))
    assert isinstance(proof, GpuSuspend)
    assert (proof.outcome, proof.freed_by, proof.unlisted, proof.mib_freed) == (DONE, "cuda", None, 102)


@pytest.mark.parametrize(
    ("plan", "absent"),
    [
        ("result of check gpu1: gives 0", Absent(cause=Cause.INVALID, detail=NO_ORACLE)),
        ("result of check gpu1: gives 1", Absent(cause=Cause.INVALID, detail=NO_ORACLE)),
        (
            "memory gpu1: gives 9",
            Absent(cause=Cause.SKIPPED, detail="a tenth of what is free on gpu1 is less than 1 MiB"),
        ),
        ("cuInit: returns 304", Absent(cause=Cause.DENIED, detail="cuInit: 304 CUDA_ERROR_OPERATING_SYSTEM")),
        ("cuInit: crashes", Absent(cause=Cause.CRASHED, detail="the canary did not start (signal 11)")),
        (
            "cuDeviceGetUuid_v2 gpu1: returns 999",
            Absent(cause=Cause.DENIED, detail="cuDeviceGetUuid_v2: 999 CUDA_ERROR_UNKNOWN"),
        ),
    ],
)
def test_a_canary_that_does_not_beat_says_nothing_of_suspending(world: World, plan: str, absent: Absent) -> None:
    world.enter(plan)
    assert value(world.run("gpu_suspend")) == absent


def left_alive(world: World, ended: tuple[str, ...]) -> int:
    """The one restored process that is left, with its folder."""
    (pid,), (folder,) = world.corner.processes(), world.corner.scratch.iterdir()
    assert len(ended) == 1
    assert ended[0].startswith(f"pid {pid}, which the driver ")
    assert f"kill -9 {pid}`" in ended[0]
    os.utime(folder, (0, 0))  # as if it were older than the grace in which a keeper may still lock it
    return pid


def test_a_restored_process_that_cannot_be_suspended_is_left_alive_and_the_next_run_ends_it(world: World) -> None:
    world.enter("checkpoint target nth2: returns 801")
    ended = world.run("gpu_suspend")
    assert outcome(ended) == ("done", None, None)
    pid = left_alive(world, ended.left)
    assert f"`warmspare suspend {pid} && kill -9 {pid}`" in ended.left[0]
    assert leftover.sweep_stale() == []
    assert world.corner.left() == {}


def test_one_that_the_driver_hangs_over_is_left_alive_and_named_again(world: World) -> None:
    world.enter("restore target nth1: hangs")
    ended = world.run_to_hang("gpu_suspend", "restore")
    assert outcome(ended) == ("hung", "restore", None)
    left_alive(world, ended.left)
    assert leftover.sweep_stale() == list(ended.left)
    world.clear()
    assert leftover.sweep_stale() == []


def test_one_that_was_lost_on_restore_is_left_alive_unless_its_end_is_known_to_be_safe(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.enter("failed restore nth1: returns 1")
    ended = world.run("gpu_suspend")
    assert outcome(ended) == ("refused", "restore", INVALID)
    left_alive(world, ended.left)
    assert "only `kill -9" in ended.left[0]
    version = tmp_path / "version"
    monkeypatch.setattr(gentle, "VERSION_FILE", version)
    version.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  595.71.05  Release Build\n")
    assert leftover.sweep_stale() == list(ended.left)
    version.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build\n")
    assert leftover.sweep_stale() == []
    assert world.corner.left() == {}


def test_a_record_is_believed_only_of_a_process_of_that_trial(tmp_path: Path) -> None:
    token = "7" * 16
    gentle.register(tmp_path, os.getpid())
    gentle.register(tmp_path, 2**22 + 1)
    assert gentle.is_registered(tmp_path, os.getpid())
    assert not gentle.is_registered(tmp_path, os.getpid() + 1)
    assert gentle.alive([tmp_path], token) == frozenset()
    (tmp_path / gentle.RECORD).write_text(f"{os.getpid()}\nnonsense\n{os.getppid()}")
    assert gentle.is_registered(tmp_path, os.getpid())
    assert not gentle.is_registered(tmp_path, os.getppid())  # that line was not written out
    shutil.rmtree(tmp_path)
    assert gentle.alive([tmp_path], token) == frozenset()


def test_the_keeper_s_end_ends_a_canary_that_was_never_restored(world: World) -> None:
    world.enter("lock target nth1: hangs")
    seen: list[int] = []
    before = set(process.children(os.getpid()))

    def kill_the_keeper(event: object) -> None:
        if not seen and getattr(event, "name", "") == "lock":
            (keeper,) = set(process.children(os.getpid())) - before
            seen.append(keeper)
            os.kill(keeper, 9)

    ended = world.run("gpu_suspend", progress=kill_the_keeper)
    assert isinstance(ended.reading, Absent)
    assert until(lambda: world.corner.left() == {})


@pytest.mark.parametrize(
    ("plan", "ends"),
    [
        ("cuGraphLaunch*: returns 700", ("refused", "700 CUDA_ERROR_ILLEGAL_ADDRESS")),
        ("cuGraphLaunch*: crashes", ("died", "signal 11")),
        ("cuGraphLaunch*: hangs", ("wrong", None)),
    ],
)
def test_one_that_is_resumed_and_does_not_work_did_not_survive(
    world: World, plan: str, ends: tuple[str, str | None]
) -> None:
    world.enter()

    def change(event: StepEvent) -> None:
        if event.name == "restore" and event.took_s is None:
            world.change(plan)

    ended = world.run("gpu_suspend", PATIENT_S, change)
    kind, step, code = outcome(ended)
    assert (kind, code) == ends
    assert step in ("unlock", "see it go on")  # it may die before its state is asked after the unlock
    if ended.left:  # its call never ends, and then it cannot be locked
        left_alive(world, ended.left)
        world.clear()
        assert leftover.sweep_stale() == []


SECRET: Final = b"nobody knows it"


def beat(beats: int, graph: int, wrong: int = 0, pid: int = 77, secret: bytes = SECRET) -> Beat:
    return Beat(gpu_canary.seal(secret, f"{beats} {graph} {wrong} {pid}"), beats, graph, wrong, pid)


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        (beat(3, 3), None),
        (beat(3, 3, secret=b"another"), "is another"),
        (beat(3, 3, wrong=8), "8 words on the GPU are wrong"),
        (beat(3, 1), "the graph on the GPU did not go on"),
        (beat(1, 1), "lines of its open file were lost"),
        (beat(3, 3, pid=78), "another pid"),
    ],
)
def test_every_line_of_the_canary_must_be_its_own_and_right(odd: Beat, said: str | None) -> None:
    found = fault([beat(1, 1), beat(2, 2), odd, beat(4, 4)], SECRET, 77)
    assert found is None if said is None else said in (found or "")
