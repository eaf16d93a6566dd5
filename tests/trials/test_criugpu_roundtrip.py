"""To disk and back with a real CRIU and the stand-in driver: it works, and what fails is told at its step."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Final

import pytest
from gpu_world import DONE, World, outcome, value
from test_criu_roundtrip import STOPPED, says

from leftovers import small_disk
from warmspare.control.criu import Criu
from warmspare.model.facts import Absent, Cause
from warmspare.trials import leftover
from warmspare.trials.criugpu_roundtrip import CriugpuRoundtrip

pytest_plugins = ("gpu_fixtures",)
HURRY_S: Final = 8.0
"""A deadline for trials in which something is waited for that never comes."""


def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Let `criu` be this script."""
    monkeypatch.setenv("REAL_CRIU", getattr(Criu.found(), "program", ""))
    program = tmp_path / "criu"
    program.write_text(f"#!/bin/sh\n{script}")
    program.chmod(0o755)
    monkeypatch.setenv("WARMSPARE_CRIU", str(program))


@pytest.mark.root
@pytest.mark.criu
@pytest.mark.parametrize("time", range(3))
def test_a_process_comes_back_from_the_disk(world: World, time: int) -> None:
    world.enter("cu*Synchronize*: crashes")
    ended = world.run("criugpu_roundtrip")
    proof = value(ended)
    assert isinstance(proof, CriugpuRoundtrip)
    assert (proof.outcome, proof.bytes_survived, proof.criu) == (DONE, True, getattr(Criu.found(), "program", None))
    assert min(proof.dump_s or 0, proof.restore_s or 0, proof.suspend_s or 0, proof.resume_s or 0) > 0
    assert 64 < (proof.image_mib or 0) < 1024
    assert (ended.left, world.corner.left()) == ((), {}), f"after round trip {time}"


@pytest.mark.root
@pytest.mark.criu
@pytest.mark.parametrize(
    ("plan", "ends"),
    [
        ("failed checkpoint nth1: returns 801", ("refused", "checkpoint", "801 CUDA_ERROR_NOT_SUPPORTED")),
        ("restore target nth1: returns 2", ("refused", "restore", "2 CUDA_ERROR_OUT_OF_MEMORY")),
        ("wrong page of restore gpu1: gives 5", ("wrong", "see it go on", None)),
        ("restore target nth1: crashes", ("died", "restore", "its pid is gone")),
        ("unlock target nth1: returns 401", ("refused", "unlock", "401 CUDA_ERROR_ILLEGAL_STATE")),
    ],
)
def test_a_hazard_of_the_driver_is_told_at_its_step(world: World, plan: str, ends: tuple[str, str, str | None]) -> None:
    world.enter(plan)
    ended = world.run("criugpu_roundtrip")
    assert outcome(ended) == ends
    assert (ended.left, world.corner.left()) == ((), {})


REAL: Final = 'exec "$REAL_CRIU" "$@"\n'
KEPT: Final = '"$REAL_CRIU" "$@" --leave-running\n'
AT_RESTORE: Final = f"[ $1 = dump ] && {REAL}"
DENIED: Final = (
    "(00.01) Error (criu/cr-service.c:1): CRIU needs to have the CAP_SYS_ADMIN or the CAP_CHECKPOINT_RESTORE"
)


@pytest.mark.root
@pytest.mark.criu
@pytest.mark.parametrize(
    ("script", "ends"),
    [
        (says(DENIED), ("refused", "dump", "denied")),
        (AT_RESTORE + says(DENIED), ("refused", "restore the process", "denied")),
        ("kill -9 $$\n", ("refused", "dump", "signal 9")),
        ("sleep 600\n", ("hung", "dump", None)),
        (KEPT, ("wrong", "see it gone", None)),
    ],
    ids=["denied at dump", "denied at restore", "killed", "hung", "left running"],
)
def test_a_criu_that_fails_is_told_at_its_step(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, ends: tuple[str, str, str | None]
) -> None:
    world.enter()
    plant(tmp_path, monkeypatch, script)
    ended = world.run("criugpu_roundtrip", HURRY_S)
    assert outcome(ended) == ends
    assert (ended.left, world.corner.left()) == ((), {})


@pytest.mark.root
@pytest.mark.criu
def test_a_process_that_is_stopped_by_its_restore_cannot_be_asked_and_is_left(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.enter()
    plant(tmp_path, monkeypatch, STOPPED)
    ended = world.run("criugpu_roundtrip", 2 * HURRY_S)
    assert outcome(ended)[:2] == ("hung", "restore")
    (pid,), (folder,) = world.corner.processes(), world.corner.scratch.iterdir()
    assert ended.left[0].startswith(f"pid {pid}, which the driver")
    os.utime(folder, (0, 0))
    os.kill(pid, signal.SIGCONT)  # now it answers
    assert leftover.sweep_stale() == []
    assert world.corner.processes() == []


@pytest.mark.root
def test_without_room_for_the_image_nothing_is_tried(world: World) -> None:
    world.enter()
    with small_disk(world.corner.scratch):
        absent = value(world.run("criugpu_roundtrip"))
    assert isinstance(absent, Absent)
    assert (absent.cause, absent.detail[:24]) == (Cause.SKIPPED, "the image takes up to 20")


def test_without_a_criu_nothing_is_tried(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.enter()
    monkeypatch.setenv("WARMSPARE_CRIU", "/nowhere/criu")
    assert value(world.run("criugpu_roundtrip")) == Absent(cause=Cause.SKIPPED, detail="no CRIU was found")
