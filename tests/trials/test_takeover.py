"""The takeover trial against a stand-in driver: honest, and with each fault that it must not be fooled by."""

from __future__ import annotations

from typing import Final

import pytest
from standins import Drivers

from warmspare.model.facts import Absent, Known, Outcome, Proof, Reading, Readings, Standing, known
from warmspare.probes import gpus
from warmspare.trials.api import NotTried, at_place
from warmspare.trials.awaited import PeerCopy
from warmspare.trials.best_pair import BestPair
from warmspare.trials.given import Gpu
from warmspare.trials.run import run
from warmspare.trials.takeover import KILLS, Takeover
from warmspare.trials.takeover_session import SLOTS

UUIDS: Final = (
    "GPU-731c59fc-2d85-9cee-6153-7dcdc0cf21fa",
    "GPU-e9c863cf-f5c9-64e3-7d6a-b0470575a7aa",
    "GPU-68e89171-7855-c8dd-f2d1-11797f77ab20",
)
SMALL: Final = "memory gpu*: gives 128"
DONE: Final = Outcome(kind="done")


def gpu(number: int) -> Gpu:
    return Gpu(
        subject=f"gpu{number}", id=UUIDS[number], nvml=number, pcie_gb_per_s=None, nvlink_gb_per_s=None,
        numa_nodes=(), memory_mib=None,
    )  # fmt: skip


@pytest.fixture(scope="module")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> Drivers:
    return Drivers(tmp_path_factory.mktemp("drivers"))


def tried(
    drivers: Drivers, monkeypatch: pytest.MonkeyPatch, name: str, *plan: str
) -> tuple[Reading[Proof], list[str], tuple[str, ...]]:
    steps: list[str] = []
    for variable, value in drivers.world(name, *plan, SMALL).items():
        monkeypatch.setenv(variable, value)
    done = run(
        at_place("warmspare.trials.takeover:takeover"),
        lambda event: steps.append(event.name),
        BestPair(source=gpu(0), target=gpu(1)),
    )
    return done.reading, steps, done.left


def test_an_honest_driver_is_taken_over(drivers: Drivers, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, _, left = tried(drivers, monkeypatch, "honest")
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
    ("fault", "kind", "step", "code"),
    [
        ("mirror gpu0 gpu1: gives 1", "wrong", "write 1", None),
        ("wrong page of copy gpu0 gpu1 nth3: gives 3", "wrong", "write 1", None),
        ("wrong word of copy gpu0 gpu1 nth2: gives 3", "wrong", "write 1", None),
        ("result of checksum gpu0 : gives 0", None, None, None),
        ("cuDeviceCanAccessPeer gpu0 gpu1: gives 0", "refused", "open the replica 1",
         "217 CUDA_ERROR_PEER_ACCESS_UNSUPPORTED"),
        ("cuIpcOpenMemHandle_v2 gpu0 nth1: returns 801", "refused", "open the replica 1",
         "801 CUDA_ERROR_NOT_SUPPORTED"),
        ("copy gpu0 gpu1 nth2: crashes", "wrong", "write 1", None),
    ],
)  # fmt: skip
def test_a_fault_is_an_outcome(
    drivers: Drivers, monkeypatch: pytest.MonkeyPatch, fault: str, kind: str | None, step: str, code: str | None
) -> None:
    if kind is None:
        pytest.skip("see the next test")
    reading, _, left = tried(drivers, monkeypatch, fault.replace(" ", "-").replace("*", ""), fault)
    assert isinstance(reading, Known)
    outcome = reading.value.outcome
    assert (outcome.kind, outcome.step, outcome.code) == (kind, step, code), outcome
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
    reading, steps, _ = tried(drivers, monkeypatch, fault.replace(" ", "-").replace("*", "all"), fault)
    assert isinstance(reading, Absent)
    assert detail in reading.detail
    assert steps[-1] == "check the checks"


def copies(**speeds: float | None) -> Readings:
    """Three GPUs, and copies such as `a0b1=394.0`; None is one that went through the host."""
    found = gpus.Gpus(ids=UUIDS, seen={"nvml": 3}, nvml=(0, 1, 2), pci=(None,) * 3, silent={}, instead=())
    at = "2026-01-01T00:00:00Z"
    entries = {("gpus", "host"): found}
    for name, speed in speeds.items():
        proof = PeerCopy(outcome=DONE, peer_access=speed is not None, path="nvlink", gb_per_s=speed or 20.0)
        entries["peer_copy", f"gpu{name[1]}→gpu{name[3]}"] = proof  # type: ignore[assignment]
    del at
    return Readings({key: told(value) for key, value in entries.items()})
