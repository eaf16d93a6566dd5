"""Baseline's trials on the stand-in driver: an honest one passes, and every way to fail has its own outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest
from msgspec.structs import replace

from leftovers import Corner
from standins import Drivers
from warmspare import catalogue
from warmspare.control.cuda import CudaError
from warmspare.model.facts import Absent, Cause, Known, Outcome, Proof
from warmspare.trials import pinned_memory
from warmspare.trials.api import Trial
from warmspare.trials.cuda_compute import CudaCompute
from warmspare.trials.cuda_vmm import CudaVmm
from warmspare.trials.given import Gpu, Gpus
from warmspare.trials.host_copy import HostCopy
from warmspare.trials.managed_memory import ManagedMemory
from warmspare.trials.on_gpu import MIB, NO_ORACLE
from warmspare.trials.pinned_memory import PinnedMemory
from warmspare.trials.run import run

GPU: Final = Gpu(
    subject="gpu1", id="GPU-e9c863cf-f5c9-64e3-7d6a-b0470575a7aa", nvml=1, pcie_gb_per_s=63.0, nvlink_gb_per_s=None,
    numa_nodes=(), memory_mib=143771,
)  # fmt: skip
TRIALS: Final = {trial.name: trial for trial in catalogue.trials() if trial.given in (Gpu, Gpus)}
ON_GPU: Final = ("cuda_compute", "cuda_vmm", "host_copy", "managed_memory")
ALL: Final = (*ON_GPU, "pinned_memory")
HURRY_S: Final = 8.0
"""A deadline for what never ends."""
Try = Callable[..., Any]


@pytest.fixture(scope="module")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> Drivers:
    return Drivers(tmp_path_factory.mktemp("standins"))


@pytest.fixture
def tried(drivers: Drivers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Try]:
    """Run a trial on the second of the stand-in's GPUs, under a plan; nothing of it may be left."""
    corner = Corner(tmp_path / "scratch")

    def run_it(name: str, *plan: str, deadline_s: float | None = None, lacks: tuple[str, ...] = ()) -> Proof | Absent:
        for variable, value in {**corner.env, **drivers.world(tmp_path.name, *plan, lacks=lacks)}.items():
            monkeypatch.setenv(variable, value)
        trial: Trial = TRIALS[name]
        if deadline_s:
            trial = replace(trial, deadline_s=deadline_s)
        ended = run(trial, lambda _: None, Gpus(gpus=(GPU,)) if trial.given is Gpus else GPU)
        assert ended.left == ()
        return ended.reading.value if isinstance(ended.reading, Known) else ended.reading

    yield run_it
    assert corner.left_in_the_end() == {}


def ended(proof: Proof | Absent) -> tuple[str, str | None, str | None]:
    assert isinstance(proof, Proof), proof
    return proof.outcome.kind, proof.outcome.step, proof.outcome.code


DONE: Final = Outcome(kind="done")


def test_all_of_them_are_here() -> None:
    assert set(ALL) <= set(TRIALS)
    assert all(TRIALS[name].quick for name in ALL)


def test_an_honest_driver_computes(tried: Try) -> None:
    proof = tried("cuda_compute")
    assert isinstance(proof, CudaCompute)
    assert proof.outcome == DONE
    assert min(proof.init_s or 0, proof.context_s or 0, proof.compile_s or 0) >= 0


def test_an_honest_driver_copies_at_its_speed(tried: Try) -> None:
    proof = tried("host_copy")
    assert isinstance(proof, HostCopy)
    assert proof.outcome == DONE
    pinned = (proof.pinned_h2d_gb_per_s or 0, proof.pinned_d2h_gb_per_s or 0)
    pageable = (proof.pageable_h2d_gb_per_s or 0, proof.pageable_d2h_gb_per_s or 0)
    assert all(54 < speed <= 55 for speed in pinned)
    assert all(9.9 < speed <= 10 for speed in pageable)
    assert (proof.link_gb_per_s, proof.block_mib, proof.near) == (63.0, 102, None)


def test_an_honest_driver_manages_memory_for_both_at_once(tried: Try) -> None:
    assert tried("managed_memory") == ManagedMemory(outcome=DONE, concurrent=True, pageable=False, size_mib=50)


def test_an_honest_driver_gives_addresses_and_takes_memory_back(tried: Try) -> None:
    proof = tried("cuda_vmm")
    assert isinstance(proof, CudaVmm)
    assert (proof.outcome, proof.reserved_gib, proof.reserve_refusal, proof.mib_freed) == (DONE, 140, None, 96)
    assert proof.freed_by == "nvml"
    assert min(proof.sleep_s_per_gib or 0, proof.wake_s_per_gib or 0) > 0


def test_an_honest_driver_pins_as_much_as_is_tried(tried: Try) -> None:
    proof = tried("pinned_memory")
    assert isinstance(proof, PinnedMemory)
    assert (proof.outcome, proof.bounded, proof.refusal) == (DONE, True, None)
    assert proof.budget_mib


OOM: Final = "2 CUDA_ERROR_OUT_OF_MEMORY"
FAILS: Final[dict[tuple[str, str], tuple[str, str, str | None]]] = {
    ("cuda_compute", "cuInit: returns 802"): ("refused", "start CUDA", "802 CUDA_ERROR_SYSTEM_NOT_READY"),
    ("cuda_compute", "cuInit: returns 304"): ("refused", "start CUDA", "304 CUDA_ERROR_OPERATING_SYSTEM"),
    ("cuda_compute", "cuInit: returns 100"): ("refused", "start CUDA", "100 CUDA_ERROR_NO_DEVICE"),
    ("cuda_compute", "cuInit: hangs"): ("hung", "start CUDA", None),
    ("cuda_compute", "cuInit: crashes"): ("died", "start CUDA", "signal 11"),
    ("cuda_compute", "cuDevicePrimaryCtxRetain gpu1 *: returns 2"): ("refused", "open a context", OOM),
    ("cuda_compute", "cuModuleLoadData *: returns 221"): (
        "refused", "compile the kernels", "221 CUDA_ERROR_JIT_COMPILER_NOT_FOUND",
    ),
    ("cuda_compute", "cuMemAlloc_v2 gpu1 nth2: returns 2"): ("refused", "allocate", OOM),
    ("cuda_compute", "kernel fill gpu1 nth1: returns 700"): ("refused", "compute", "700 CUDA_ERROR_ILLEGAL_ADDRESS"),
    ("cuda_compute", "wrong word of copy gpu1 pageable nth2: gives 1500"): ("wrong", "compute", None),
    ("cuda_compute", "wrong word of copy gpu1 pageable nth6: gives 1000"): ("wrong", "compute floats", None),
    ("cuda_compute", "result of check gpu1: gives 0"): ("wrong", "check", None),
    ("cuda_compute", "result of check gpu1: gives 1"): ("wrong", "check", None),
    ("cuda_compute", "kernel check gpu1 nth2: hangs"): ("hung", "check", None),
    ("host_copy", "wrong page of copy gpu1 host nth1: gives 77"): ("wrong", "copy out, pinned", None),
    ("host_copy", "wrong word of copy host gpu1 nth1: gives 7777"): ("wrong", "copy in, pinned", None),
    ("host_copy", "wrong page of copy gpu1 pageable nth4: gives 78"): ("wrong", "copy out, pageable", None),
    ("host_copy", "wrong word of copy pageable gpu1 nth2: gives 1"): ("wrong", "copy in, pageable", None),
    ("host_copy", "lost copy gpu1 host nth1: gives 1"): ("wrong", "copy out, pinned", None),
    ("host_copy", "lost copy host gpu1 nth1: gives 1"): ("wrong", "copy in, pinned", None),
    ("host_copy", "lost copy gpu1 pageable nth4: gives 1"): ("wrong", "copy out, pageable", None),
    ("host_copy", "lost copy pageable gpu1 nth2: gives 1"): ("wrong", "copy in, pageable", None),
    ("host_copy", "copy gpu1 host nth1: hangs"): ("hung", "copy out, pinned", None),
    ("host_copy", "copy host gpu1 nth4: returns 719"): ("refused", "time in, pinned", "719 CUDA_ERROR_LAUNCH_FAILED"),
    ("managed_memory", "cuMemAllocManaged *: returns 801"): ("refused", "allocate", "801 CUDA_ERROR_NOT_SUPPORTED"),
    ("managed_memory", "wrong word of copy gpu1 pageable nth3: gives 99"): ("wrong", "GPU writes, CPU reads", None),
    ("managed_memory", "wrong word of copy gpu1 pageable nth4: gives 99"): ("wrong", "CPU writes, GPU reads", None),
    ("managed_memory", "kernel hold gpu1 nth1: crashes"): ("died", "both at once", "signal 11"),
    ("managed_memory", "kernel hold gpu1 nth1: hangs"): ("hung", "both at once", None),
    ("cuda_vmm", "cuMemAddressReserve gpu1 nth1: returns 2"): ("refused", "reserve 32 GiB", OOM),
    ("cuda_vmm", "cuMemCreate gpu1 nth3: returns 2"): ("refused", "create, map and fill", OOM),
    ("cuda_vmm", "cuMemCreate gpu1 nth12: returns 2"): ("refused", "map again", OOM),
    ("cuda_vmm", "cuMemMap gpu1 nth9: returns 1"): ("refused", "map again", "1 CUDA_ERROR_INVALID_VALUE"),
    ("cuda_vmm", "cuMemUnmap gpu1 nth1: hangs"): ("hung", "sleep", None),
    ("cuda_vmm", "leak gpu1: gives 1"): ("wrong", "see what came back", None),
    ("cuda_vmm", "wrong page of copy gpu1 host nth2: gives 5"): ("wrong", "check what came back", None),
    ("cuda_vmm", "wrong word of copy host gpu1 nth8: gives 5"): ("wrong", "check what came back", None),
    ("cuda_vmm", "lost copy host gpu1 nth8: gives 1"): ("wrong", "check what came back", None),
    ("pinned_memory", "pinned memory: gives 10"): ("refused", "pin", OOM),
    ("pinned_memory", "cuMemHostAlloc gpu1 nth3: crashes"): ("died", "pin", "signal 11"),
    ("pinned_memory", "cuMemHostAlloc gpu1 nth3: hangs"): ("hung", "pin", None),
}  # fmt: skip


@pytest.mark.parametrize(("name", "fate"), FAILS, ids=[" - ".join(key) for key in FAILS])
def test_a_failing_lever_is_an_outcome_at_its_step(tried: Try, name: str, fate: str) -> None:
    proof = tried(name, fate, deadline_s=HURRY_S if fate.endswith("hangs") else None)
    assert ended(proof) == FAILS[name, fate], proof


@pytest.mark.parametrize("name", [name for name in ALL if name != "cuda_compute"])
@pytest.mark.parametrize("code", ["802 CUDA_ERROR_SYSTEM_NOT_READY", "304 CUDA_ERROR_OPERATING_SYSTEM"])
def test_where_cuda_does_not_start_the_others_say_nothing_of_the_machine(tried: Try, name: str, code: str) -> None:
    absent = tried(name, f"cuInit: returns {code.partition(' ')[0]}")
    assert isinstance(absent, Absent)
    assert absent.cause in (Cause.DENIED, Cause.CRASHED)  # pinned_memory asks in a process of its own
    assert code in absent.detail


@pytest.mark.parametrize("name", [name for name in ON_GPU if name != "cuda_compute"])
@pytest.mark.parametrize("says", [0, 1])
def test_a_check_that_cannot_fail_or_cannot_pass_is_no_oracle(tried: Try, name: str, says: int) -> None:
    assert tried(name, f"result of check gpu1: gives {says}") == Absent(cause=Cause.INVALID, detail=NO_ORACLE)


@pytest.mark.parametrize(
    ("call", "step"),
    [("cuMemGetAllocationGranularity", "ask for the granularity"), ("cuMemSetAccess", "create, map and fill")],
)
def test_a_driver_that_lacks_a_call_refuses_where_it_is_needed(tried: Try, call: str, step: str) -> None:
    proof = tried("cuda_vmm", lacks=(call,))
    assert ended(proof) == ("refused", step, "MISSING_SYMBOL")
    assert isinstance(proof, CudaVmm)
    assert call in proof.outcome.detail


def test_a_range_as_large_as_the_gpu_may_be_refused_beside_one_that_is_not(tried: Try) -> None:
    proof = tried("cuda_vmm", "cuMemAddressReserve gpu1 nth2: returns 2")
    assert isinstance(proof, CudaVmm)
    assert (proof.outcome, proof.reserved_gib, proof.reserve_refusal) == (DONE, 32, OOM)


def test_a_wall_of_pinned_memory_is_no_fault_of_virtual_memory(tried: Try) -> None:
    proof = tried("cuda_vmm", "pinned memory: gives 50")
    assert isinstance(proof, CudaVmm)
    assert (proof.outcome, proof.mib_freed) == (DONE, 48)


def test_without_any_pinned_memory_nothing_is_said_of_virtual_memory(tried: Try) -> None:
    absent = tried("cuda_vmm", "cuMemHostAlloc *: returns 2")
    assert isinstance(absent, Absent)
    assert absent.cause is Cause.SKIPPED


def test_under_a_wall_of_pinned_memory_less_is_copied(tried: Try) -> None:
    proof = tried("host_copy", "pinned memory: gives 20")
    assert isinstance(proof, HostCopy)
    assert (proof.outcome, proof.pinned_refusal) == (DONE, None)
    assert 10 <= (proof.block_mib or 0) <= 20
    assert proof.pinned_h2d_gb_per_s
    assert proof.pageable_d2h_gb_per_s


def test_without_any_pinned_memory_the_pageable_figures_stand_alone(tried: Try) -> None:
    proof = tried("host_copy", "cuMemHostAlloc *: returns 2")
    assert isinstance(proof, HostCopy)
    assert (proof.outcome, proof.pinned_refusal, proof.nodes, proof.near) == (DONE, OOM, (), None)
    assert proof.pinned_h2d_gb_per_s is proof.pinned_d2h_gb_per_s is None
    assert proof.pageable_h2d_gb_per_s
    assert proof.pageable_d2h_gb_per_s


def test_that_memory_came_back_is_not_taken_from_cuda_alone(tried: Try) -> None:
    proof = tried("cuda_vmm", "leak gpu1: gives 1", "told free gpu1 nth4: gives 2000")
    assert ended(proof) == ("wrong", "see what came back", None)


def test_what_nvml_sees_come_back_has_come_back(tried: Try) -> None:
    seen = tried("cuda_vmm", "told free gpu1 nth[34]: gives 900")
    assert isinstance(seen, CudaVmm)
    assert (seen.outcome, seen.freed_by) == (DONE, "nvml")


def test_where_nvml_is_silent_the_proof_says_that_cuda_vouches_for_itself(tried: Try) -> None:
    proof = tried("cuda_vmm", "nvmlDeviceGetMemoryInfo*: returns 3")
    assert isinstance(proof, CudaVmm)
    assert (proof.outcome, proof.freed_by) == (DONE, "cuda")


def test_where_they_may_only_take_turns_the_cpu_does_not_touch_what_the_gpu_uses(tried: Try) -> None:
    proof = tried("managed_memory", "cuDeviceGetAttribute gpu1 89: gives 0", "kernel hold gpu1 *: crashes")
    assert isinstance(proof, ManagedMemory)
    assert (proof.outcome, proof.concurrent) == (DONE, False)


def test_a_wall_of_pinned_memory_is_found_to_its_last_step(tried: Try) -> None:
    proof = tried("pinned_memory", "pinned memory: gives 125")
    assert isinstance(proof, PinnedMemory)
    assert (proof.outcome, proof.budget_mib, proof.bounded, proof.refusal) == (DONE, 112, False, OOM)


@pytest.mark.parametrize(("fate", "said"), [("crashes", "it died (signal 11)"), ("hangs", "it hung")])
def test_a_process_that_is_lost_before_it_pins_is_told(tried: Try, fate: str, said: str) -> None:
    absent = tried("pinned_memory", f"cuDevicePrimaryCtxRetain gpu1 *: {fate}", deadline_s=HURRY_S)
    assert absent == Absent(cause=Cause.CRASHED, detail=f"no GPU gave it a context: {said}")


@pytest.mark.parametrize("fate", ["crashes", "hangs"])
def test_a_process_that_is_lost_while_it_pins_has_come_so_far(tried: Try, fate: str) -> None:
    proof = tried("pinned_memory", f"cuMemHostAlloc gpu1 nth3: {fate}", deadline_s=HURRY_S)
    assert isinstance(proof, PinnedMemory)
    assert (proof.budget_mib, proof.outcome.detail) == (32, "after 32 MiB")


@pytest.mark.parametrize("name", [name for name in ON_GPU if name != "cuda_compute"])
def test_a_gpu_with_almost_nothing_free_is_left_alone_or_refuses(tried: Try, name: str) -> None:
    absent = tried(name, "memory gpu1: gives 9")
    assert isinstance(absent, Absent)
    assert absent.cause is Cause.SKIPPED


@pytest.mark.parametrize(
    ("told", "wall"), [((0, 0, 0, 0, 3), False), ((0,) * 20, True)], ids=["out of time", "narrowed"]
)
def test_a_wall_is_only_what_was_narrowed_to_the_least_step(
    monkeypatch: pytest.MonkeyPatch, told: tuple[float, ...], *, wall: bool
) -> None:
    """Pieces of 16, 16, 32 MiB; then 64 are refused once, and either the time is over or smaller ones follow."""
    held, call = list[int](), "cuMemHostAlloc"

    def pin(size: int) -> object:
        if sum(held) + size > 100 * MIB:
            raise CudaError(call, 2, "CUDA_ERROR_OUT_OF_MEMORY")
        held.append(size)
        return object()

    clock = iter((0.0, *told))
    monkeypatch.setattr(pinned_memory, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(pinned_memory, "opened", lambda _: SimpleNamespace(pin=pin))
    monkeypatch.setattr(pinned_memory, "keeps", lambda _: True)
    said: list[pinned_memory.Told] = []
    pinned_memory.grow((GPU,), 1024 * MIB, said.append)
    assert (said[-1].refusal, said[-1].wall) == (OOM, wall)
