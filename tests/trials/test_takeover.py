"""The takeover trial against a stand-in driver: honest, and with each fault that it must not be fooled by."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import pytest
from msgspec.structs import replace

from standins import Drivers
from warmspare.model.facts import Absent, Fact, Key, Known, Outcome, Proof, Reading, Readings, Standing
from warmspare.probes import gpus
from warmspare.trials.api import NotTried, at_place
from warmspare.trials.best_pair import BestPair
from warmspare.trials.given import Gpu
from warmspare.trials.peer_copy import PeerCopy
from warmspare.trials.run import run
from warmspare.trials.takeover import KILLS, Takeover
from warmspare.trials.takeover_session import SLOTS

UUIDS: Final = (
    "GPU-731c59fc-2d85-9cee-6153-7dcdc0cf21fa",
    "GPU-e9c863cf-f5c9-64e3-7d6a-b0470575a7aa",
    "GPU-68e89171-7855-c8dd-f2d1-11797f77ab20",
)
SMALL: Final = "memory gpu*: gives 128"
OPEN: Final = "open the replica 1"
DONE: Final = Outcome(kind="done")
HURRY_S: Final = 16.0
F = TypeVar("F", bound=Fact)


def gpu(number: int) -> Gpu:
    return Gpu(
        subject=f"gpu{number}", id=UUIDS[number], nvml=number, pcie_gb_per_s=None, nvlink_gb_per_s=None,
        numa_nodes=(), memory_mib=None,
    )  # fmt: skip


@pytest.fixture(scope="module")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> Drivers:
    return Drivers(tmp_path_factory.mktemp("drivers"))


def tried(
    drivers: Drivers, monkeypatch: pytest.MonkeyPatch, *plan: str
) -> tuple[Reading[Proof], list[str], tuple[str, ...]]:
    steps: list[str] = []
    for variable, value in drivers.world(re.sub(r"\W+", "-", " ".join(plan) or "honest"), *plan, SMALL).items():
        monkeypatch.setenv(variable, value)
    trial = at_place("warmspare.trials.takeover:takeover")
    done = run(
        replace(trial, deadline_s=HURRY_S) if any("hangs" in fate for fate in plan) else trial,
        lambda event: steps.append(event.name),
        BestPair(source=gpu(0), target=gpu(1), nvlinks=None),
    )
    return done.reading, steps, done.left


def test_an_honest_driver_is_taken_over(drivers: Drivers, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, _, left = tried(drivers, monkeypatch)
    assert isinstance(reading, Known)
    proof = reading.value
    assert isinstance(proof, Takeover)
    assert (proof.outcome, proof.kills, proof.torn, proof.pair) == (DONE, KILLS, 0, "gpu0→gpu1")
    assert proof.state_mib == 128 // 10 // SLOTS
    assert 0 < (proof.takeover_s or 0) <= (proof.slowest_s or 0) < 5
    assert (proof.lost or 0) <= SLOTS
    assert (proof.taken_over or 0) <= (proof.published or 0) + KILLS
    assert left == ()


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("mirror gpu0 gpu1: gives 1", ("wrong", "write 1", None)),
        ("wrong page of copy gpu0 gpu1 nth3: gives 3", ("wrong", "write 1", None)),
        ("wrong word of copy gpu0 gpu1 nth2: gives 3", ("wrong", "write 1", None)),
        ("cuDeviceCanAccessPeer gpu0 gpu1: gives 0", ("refused", OPEN, "217 CUDA_ERROR_PEER_ACCESS_UNSUPPORTED")),
        ("cuIpcOpenMemHandle_v2 gpu0 nth1: returns 801", ("refused", OPEN, "801 CUDA_ERROR_NOT_SUPPORTED")),
        ("copy gpu0 gpu1 nth3: crashes", ("died", "write 1", "ChildProcessError")),
        ("copy gpu0 gpu1 nth9: hangs", ("hung", "write 1", None)),
        ("copy gpu0 gpu1 nth3: returns 700", ("refused", "write 1", "700 CUDA_ERROR_ILLEGAL_ADDRESS")),
    ],
)  # fmt: skip
def test_a_fault_is_an_outcome(
    drivers: Drivers, monkeypatch: pytest.MonkeyPatch, fault: str, expected: tuple[str, str, str | None]
) -> None:
    reading, _, left = tried(drivers, monkeypatch, fault)
    assert isinstance(reading, Known)
    outcome = reading.value.outcome
    assert (outcome.kind, outcome.step, outcome.code) == expected, outcome
    assert left == ()


@pytest.mark.parametrize(
    ("fault", "detail"),
    [
        ("result of checksum gpu*: gives 0", "torn"),
        ("result of checksum gpu1: gives 0", "torn"),
        ("result of check gpu0: gives 0", "planted fault"),
        ("result of check gpu1: gives 0", "planted fault"),
    ],
)
def test_a_blind_check_is_no_proof(drivers: Drivers, monkeypatch: pytest.MonkeyPatch, fault: str, detail: str) -> None:
    reading, steps, _ = tried(drivers, monkeypatch, fault)
    assert isinstance(reading, Absent)
    assert detail in reading.detail
    assert steps[-1] == "check the checks"


def copies(**speeds: float | None) -> Readings:
    """Three GPUs, and copies such as `a0b1=394.0`; None is one that went through the host."""
    found = gpus.Gpus(ids=UUIDS, seen={"nvml": 3}, nvml=(0, 1, 2), pci=(None,) * 3, silent={}, instead=())
    entries: dict[Key, Reading[Any]] = {("gpus", "host"): tried_fact(found)}
    for name, speed in speeds.items():
        proof = PeerCopy(outcome=DONE, peer_access=speed is not None, path="nvlink", gb_per_s=speed or 20.0)
        entries["peer_copy", f"gpu{name[1]}→gpu{name[3]}"] = tried_fact(proof)
    return Readings(entries)


def tried_fact(fact: F) -> Known[F]:
    return Known(value=fact, standing=Standing.TRIED, at=datetime(2026, 1, 1, tzinfo=UTC))


def test_the_fastest_direction_is_taken() -> None:
    readings = copies(a0b1=390.0, a1b0=394.0, a0b2=380.0, a2b0=381.0, a1b2=500.0)
    best = BestPair.of(readings, "host")
    assert (best.source.subject, best.target.subject) == ("gpu1", "gpu0")
    assert best.gpus == (best.source, best.target)


@pytest.mark.parametrize("speeds", [{}, {"a0b1": 390.0}, {"a0b1": 390.0, "a1b0": None}, {"a0b1": None, "a1b0": None}])
def test_without_a_copy_both_ways_nothing_is_tried(speeds: dict[str, float | None]) -> None:
    with pytest.raises(NotTried, match="no pair of GPUs has been seen to copy"):
        BestPair.of(copies(**speeds), "host")


def test_a_copy_that_failed_does_not_count() -> None:
    broken = tried_fact(PeerCopy(outcome=Outcome(kind="wrong"), peer_access=True, gb_per_s=394.0))
    readings = copies(a0b1=390.0, a1b0=394.0).plus({("peer_copy", "gpu0→gpu1"): broken})
    with pytest.raises(NotTried):
        BestPair.of(readings, "host")
