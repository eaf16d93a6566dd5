"""Baseline's trials on real GPUs: their figures are plausible, they are quick, and they leave nothing behind.

`pytest -s` shows the figures.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, TypeVar

import pynvml
import pytest

from leftovers import until
from warmspare import catalogue
from warmspare.control import process
from warmspare.host.live import LiveHost
from warmspare.host.port import SLOW
from warmspare.model.facts import HOST, Known, Outcome, Proof, Readings, Standing, fact_name, known
from warmspare.probes.api import collect
from warmspare.probes.cuda import CudaAttributes
from warmspare.probes.gpu import GpuIdentity, GpuMemory, GpuNuma
from warmspare.probes.gpus import GPU
from warmspare.trials.api import StepEvent
from warmspare.trials.criugpu_roundtrip import CriugpuRoundtrip
from warmspare.trials.cuda_compute import CudaCompute
from warmspare.trials.cuda_vmm import CudaVmm
from warmspare.trials.given import Gpu, Gpus
from warmspare.trials.gpu_move import GpuMove
from warmspare.trials.gpu_suspend import GpuSuspend
from warmspare.trials.host_copy import HostCopy
from warmspare.trials.managed_memory import ManagedMemory
from warmspare.trials.pinned_memory import PinnedMemory
from warmspare.trials.run import run

pytestmark = pytest.mark.gpu
TRIALS: Final = {trial.name: trial for trial in catalogue.trials()}
OURS: Final = ("cuda_compute", "cuda_vmm", "host_copy", "managed_memory", "pinned_memory")
QUICK_S: Final = {"pinned_memory": 8.0, "criugpu_roundtrip": 15.0, "gpu_move": 10.0}
USUALLY_S: Final = 5.0
"""What one may take of the 60 s that the quick set has on two GPUs."""
RUNS: Final = 5
SUSPENDS: Final = 20
SPREAD: Final = 0.02
P = TypeVar("P", bound=Proof)


@pytest.fixture(scope="module")
def readings() -> Readings:
    with LiveHost(ahead=SLOW) as host:
        return Readings(collect(host, catalogue.probes()))


def used() -> list[int]:
    """Bytes in use on every GPU, by NVML."""
    pynvml.nvmlInit()
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(n) for n in range(pynvml.nvmlDeviceGetCount())]
        return [pynvml.nvmlDeviceGetMemoryInfo(handle, pynvml.nvmlMemory_v2).used for handle in handles]
    finally:
        pynvml.nvmlShutdown()


def tried(
    readings: Readings, name: str, subject: str, kind: type[P], progress: Callable[[StepEvent], None] = lambda _: None
) -> P:
    """The proof of one trial on one GPU, or on the host; the memory in use must be the same before and after."""
    given = getattr(TRIALS[name].given, "of", lambda *_: None)(readings, subject)
    before, started = used(), time.monotonic()
    ended = run(TRIALS[name], progress, given)
    took_s = time.monotonic() - started
    assert (ended.left, used()) == ((), before)
    assert isinstance(ended.reading, Known), ended.reading
    proof = ended.reading.value
    print(f"\n{name} {subject} {took_s:.2f} s: {proof}")  # noqa: T201 # figures to record
    assert isinstance(proof, kind)
    assert proof.outcome == Outcome(kind="done")
    assert took_s < QUICK_S.get(name, USUALLY_S)
    return proof


def every(readings: Readings) -> tuple[str, ...]:
    subjects = GPU.subjects(readings)
    assert subjects
    return subjects


def test_every_gpu_computes(readings: Readings) -> None:
    for subject in every(readings):
        proof = tried(readings, "cuda_compute", subject, CudaCompute)
        assert proof.init_s
        assert proof.context_s


def test_copies_are_as_fast_as_the_link_and_steady(readings: Readings) -> None:
    for subject in every(readings):
        proofs = [tried(readings, "host_copy", subject, HostCopy) for _ in range(RUNS)]
        for way in ("pinned_h2d_gb_per_s", "pinned_d2h_gb_per_s"):
            speeds = [getattr(proof, way) for proof in proofs]
            print(f"{subject} {way}: {speeds}")  # noqa: T201 # figures to record
            assert (max(speeds) - min(speeds)) / max(speeds) < SPREAD
        least = min(proof.pinned_h2d_gb_per_s or 0 for proof in proofs)
        if "H200" in (known(readings, GpuIdentity, subject).name or ""):
            assert least >= 54
        assert all((proof.pageable_h2d_gb_per_s or 0) < least for proof in proofs)
        near = known(readings, GpuNuma, subject).nodes
        assert all(proof.near in (True, None) or not near for proof in proofs), "memory was taken far from the GPU"


def test_managed_memory_is_concurrent_where_the_driver_says_so(readings: Readings) -> None:
    for subject in every(readings):
        said = known(readings, CudaAttributes, subject)
        proof = tried(readings, "managed_memory", subject, ManagedMemory)
        assert (proof.concurrent, proof.pageable) == (said.concurrent_managed_access, said.pageable_memory_access)
        assert proof.size_mib == 64


def test_addresses_for_the_whole_gpu_are_had_and_memory_comes_back(readings: Readings) -> None:
    for subject in every(readings):
        proof = tried(readings, "cuda_vmm", subject, CudaVmm)
        total_mib = known(readings, GpuMemory, subject).total_mib or 0
        assert proof.reserve_refusal is None
        assert proof.reserved_gib is not None
        assert proof.reserved_gib >= max(32, total_mib // 1024 - 4)
        assert 500 <= (proof.mib_freed or 0) <= 540
        assert proof.sleep_s_per_gib is not None
        assert 0 < proof.sleep_s_per_gib < 1


def test_gibibytes_can_be_pinned(readings: Readings) -> None:
    every(readings)
    proof = tried(readings, "pinned_memory", HOST, PinnedMemory)
    assert proof.bounded
    assert proof.budget_mib is not None
    assert proof.budget_mib >= 1024


def suspended(readings: Readings) -> Readings:
    """The same host with a proof of `gpu_suspend` for every GPU."""
    found = {}
    for subject in every(readings):
        proof = tried(readings, "gpu_suspend", subject, GpuSuspend)
        known_now = Known(value=proof, standing=Standing.TRIED, at=datetime.now(UTC))
        found[fact_name(GpuSuspend), subject] = known_now
    return readings.plus(found)


@pytest.mark.parametrize("time", range(SUSPENDS))
def test_a_process_survives_on_every_gpu(readings: Readings, time: int) -> None:
    for subject in every(readings):
        proof = tried(readings, "gpu_suspend", subject, GpuSuspend)
        assert proof.bytes_survived, time
        assert (proof.freed_by, proof.unlisted) in (("nvml", True), ("nvml", None))
        assert (proof.mib_freed or 0) >= 256
        assert (proof.lock_s or 1) < 0.5


@pytest.mark.root
@pytest.mark.criu
@pytest.mark.parametrize("time", range(SUSPENDS))
def test_a_process_comes_back_from_the_disk(readings: Readings, time: int) -> None:
    proof = tried(suspended(readings), "criugpu_roundtrip", HOST, CriugpuRoundtrip)
    assert proof.bytes_survived, time


def test_a_process_is_moved_to_another_gpu(readings: Readings) -> None:
    if len(every(readings)) == 1:
        pytest.skip("needs two GPUs")
    proof = tried(suspended(readings), "gpu_move", HOST, GpuMove)
    assert proof.bytes_survived
    assert (proof.mib_used or 0) >= 256


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("gpu_suspend", "lock"),
        ("gpu_suspend", "checkpoint"),
        ("gpu_suspend", "restore"),
        ("gpu_suspend", "see it go on"),
        ("cuda_vmm", "sleep"),
        ("managed_memory", "both at once"),
        ("host_copy", "copy in, pinned"),
        ("pinned_memory", "pin"),
    ],
)
def test_a_keeper_that_is_killed_leaves_nothing_on_a_gpu(readings: Readings, name: str, step: str) -> None:
    subject = HOST if name == "pinned_memory" else every(readings)[0]
    before, reached = used(), list[str]()

    def kill_the_keeper(event: StepEvent) -> None:
        if event.name == step and event.took_s is None:
            reached.append(step)
            for keeper in process.children(os.getpid()):
                os.kill(keeper, signal.SIGKILL)

    given = (Gpus if TRIALS[name].given is Gpus else Gpu).of(readings, subject)
    run(TRIALS[name], kill_the_keeper, given)
    assert reached == [step]
    assert until(lambda: used() == before)
