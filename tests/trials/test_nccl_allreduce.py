"""The all-reduce trial against a stand-in NCCL that sums, lies, hangs, dies, refuses and is slow."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from standins import NOW, Drivers
from warmspare.control import process
from warmspare.host import engine_nccl
from warmspare.model.facts import Absent, Cause, Known, Outcome
from warmspare.trials import nccl_allreduce as module
from warmspare.trials.api import NotTried, Steps, at_place
from warmspare.trials.given import Gpu, Peers
from warmspare.trials.nccl_allreduce import NcclAllreduce
from warmspare.trials.ranks import RanksProcess
from warmspare.trials.run import run

DONE = Outcome(kind="done")
UUIDS = (
    "GPU-731c59fc-2d85-9cee-6153-7dcdc0cf21fa",
    "GPU-e9c863cf-f5c9-64e3-7d6a-b0470575a7aa",
    "GPU-68e89171-7855-c8dd-f2d1-11797f77ab20",
    "GPU-fe9fe092-b6d9-30e0-f53e-c37d6660619d",
)
SMALL = "memory gpu*: gives 128"
"""A tenth of it, for two buffers: one size, so that a test takes a second."""
Try = Callable[..., NcclAllreduce | Absent]


def gpus(*numbers: int) -> Peers:
    return Peers(
        gpus=tuple(
            Gpu(
                subject=f"gpu{n}", id=UUIDS[n], nvml=n, pcie_gb_per_s=None, nvlink_gb_per_s=None, numa_nodes=(),
                memory_mib=None,
            )
            for n in numbers
        )
    )  # fmt: skip


TWO = gpus(0, 1)


@pytest.fixture(scope="module")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> Drivers:
    return Drivers(tmp_path_factory.mktemp("standins"))


@pytest.fixture
def tried(drivers: Drivers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Try:
    """Run the trial in a world of this plan, where no torch is."""
    monkeypatch.setenv("WARMSPARE_PYTHON", "/nowhere")
    monkeypatch.delenv("VLLM_NCCL_SO_PATH", raising=False)
    monkeypatch.delenv("NCCL_P2P_DISABLE", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def attempt(
        *plan: str, given: Peers = TWO, deadline_s: float = 100, nccl: int | None = NOW
    ) -> NcclAllreduce | Absent:
        for name, value in drivers.world(tmp_path.name, *plan, SMALL, nccl=nccl).items():
            monkeypatch.setenv(name, value)
        trial = at_place(f"{module.__name__}:nccl_allreduce")
        ended = run(msgspec.structs.replace(trial, deadline_s=deadline_s), lambda _: None, given)
        assert ended.left == ()
        assert list(tmp_path.iterdir()) == []
        if isinstance(ended.reading, Known):
            assert isinstance(ended.reading.value, NcclAllreduce)
            return ended.reading.value
        return ended.reading

    return attempt


def proof(found: NcclAllreduce | Absent) -> NcclAllreduce:
    assert isinstance(found, NcclAllreduce), found
    return found


def test_right_sums_are_timed_and_the_log_names_the_transports(tried: Try) -> None:
    found = proof(tried("memory gpu*: gives 1400", given=gpus(0, 1, 2)))
    assert (found.outcome, found.contrast) == (DONE, DONE)
    assert (found.ranks, found.version, found.library) == (3, "2.88.77", "…/libnccl.so.2")
    assert (found.transport, found.algorithm, found.contrast_transport) == ("P2P/CUMEM", "RING", "SHM/direct")
    assert [size.size_mib for size in found.by_size] == [1, 32]
    for size in found.by_size:
        expected = size.size_mib * 2**20 / size.time_us / 1e3 * 4 / 3
        assert size.busbw_gb_per_s == pytest.approx(expected, rel=1e-2)
    assert found.busbw_gb_per_s == found.by_size[-1].busbw_gb_per_s
    assert found.contrast_busbw_gb_per_s == found.contrast_by_size[-1].busbw_gb_per_s


@pytest.mark.parametrize(
    ("plan", "outcome"),
    [
        (
            "wrong sum p2p rank1: gives 17",
            Outcome(
                kind="wrong", step="all-reduce 1 MiB, as it is",
                detail="gpu1: 1 of 262144 sums are wrong, the first at 17",
            ),
        ),
        (
            "skipped p2p rank0: gives 1",
            Outcome(
                kind="wrong", step="all-reduce 1 MiB, as it is",
                detail="gpu0: 262144 of 262144 sums are wrong, the first at 0",
            ),
        ),
        (
            "async error p2p rank1: gives 6",
            Outcome(
                kind="refused", step="all-reduce 1 MiB, as it is", code="6 ncclRemoteError",
                detail="ncclCommGetAsyncError",
            ),
        ),
        (
            "ncclCommInitAll p2p: returns 2",
            Outcome(
                kind="refused", step="make communicators, as it is", code="2 ncclSystemError",
                detail="ncclCommInitAll",
            ),
        ),
        (
            "ncclGroupEnd p2p: crashes",
            Outcome(
                kind="died", step="all-reduce 1 MiB, as it is", code="signal 11",
                detail="the process that drives NCCL ended",
            ),
        ),
    ],
)  # fmt: skip
def test_what_breaks_with_p2p_is_told_and_that_it_works_without(tried: Try, plan: str, outcome: Outcome) -> None:
    found = proof(tried(plan))
    assert found.outcome == outcome
    assert (found.by_size, found.busbw_gb_per_s) == ((), None)
    assert (found.contrast, found.contrast_transport) == (DONE, "SHM/direct")


def test_nccls_own_words_are_kept(tried: Try) -> None:
    found = proof(tried("ncclCommInitAll *: returns 1", "said *: gives 217"))
    assert (found.outcome.code, found.outcome.detail) == (
        "1 ncclUnhandledCudaError", "ncclCommInitAll (Cuda failure 217 'peer access is not supported')",
    )  # fmt: skip
    assert found.contrast == msgspec.structs.replace(found.outcome, step="make communicators, P2P off")


def test_what_nccl_warned_of_in_its_log_is_kept(tried: Try) -> None:
    found = proof(tried("ncclCommInitAll p2p: returns 2", "warned *: gives 28"))
    assert found.outcome.detail == "ncclCommInitAll; NCCL warned: Error: failed to extend /dev/shm, error 28"
    assert found.contrast == DONE


@pytest.mark.parametrize("call", ["ncclCommInitAll", "ncclGroupEnd", "ncclCommDestroy"])
def test_a_hang_is_told_at_its_step_and_the_contrast_is_still_tried(tried: Try, call: str) -> None:
    found = proof(tried(f"{call} p2p: hangs", deadline_s=24))
    steps = {
        "ncclCommInitAll": "make communicators", "ncclGroupEnd": "all-reduce 1 MiB",
        "ncclCommDestroy": "free communicators",
    }  # fmt: skip
    assert found.outcome == Outcome(kind="hung", step=f"{steps[call]}, as it is", detail="no answer within 6 s")
    assert found.contrast == DONE


def test_with_p2p_off_it_may_be_the_one_that_breaks(tried: Try) -> None:
    found = proof(tried("wrong sum nop2p rank0: gives 3"))
    assert found.outcome == DONE
    assert found.busbw_gb_per_s
    assert found.contrast
    assert (found.contrast.kind, found.contrast_busbw_gb_per_s) == ("wrong", None)


def test_a_contrast_that_we_could_not_try_says_nothing_of_nccl(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def attempt(_steps: Steps, _given: Peers, _library: str, variant: module.Variant) -> None:
        if variant.added:
            raise NotTried(Cause.SKIPPED, "no more than 0 MiB may be taken of each GPU twice")

    monkeypatch.setattr(module, "_try", attempt)
    monkeypatch.setattr(engine_nccl, "find", lambda _: SimpleNamespace(path="/libnccl.so.2", shown="libnccl.so.2"))
    found = module.nccl_allreduce(Steps(lambda _: None, tmp_path, 80), TWO)
    assert (found.outcome, found.contrast) == (DONE, None)


def test_a_fault_of_the_gpu_in_the_collective_is_an_outcome(tried: Try) -> None:
    found = proof(tried("kernel check_floats gpu1 nth3: returns 700"))
    assert (found.outcome.kind, found.outcome.step, found.outcome.code) == (
        "refused", "all-reduce 1 MiB, as it is", "700 CUDA_ERROR_ILLEGAL_ADDRESS",
    )  # fmt: skip


def test_a_library_that_lacks_a_call(tried: Try) -> None:
    found = proof(tried(nccl=100))
    assert found.outcome == Outcome(
        kind="refused", step="load NCCL, as it is", code="MISSING_SYMBOL", detail="ncclCommGetAsyncError"
    )
    assert (found.version, found.transport, found.library) == (None, None, "…/libnccl.so.2")


def test_the_library_that_vllm_is_told_to_take_goes_first(
    tried: Try, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    broken = tmp_path_factory.mktemp("broken") / "libmine.so"
    broken.write_text("no library")
    monkeypatch.setenv("VLLM_NCCL_SO_PATH", str(broken))
    found = proof(tried())
    assert (found.library, found.outcome.kind, found.outcome.step) == ("…/libmine.so", "refused", "load NCCL, as it is")
    assert found.outcome.code
    assert found.outcome.code.startswith("NO_LIBRARY (")
    assert str(broken.parent) not in found.outcome.code


@pytest.mark.parametrize(
    ("plan", "cause", "detail"),
    [
        ("result of check_floats gpu1: gives 0", Cause.INVALID, "the check kernel of gpu1 did not see a planted fault"),
        ("result of check_floats gpu0: gives 5", Cause.INVALID, "the check kernel of gpu0 did not see a planted fault"),
        ("memory gpu1: gives 19", Cause.SKIPPED, "no more than 0 MiB may be taken of each GPU twice"),
        ("cuInit: returns 802", Cause.DENIED, "take buffers, as it is: 802 CUDA_ERROR_SYSTEM_NOT_READY cuInit"),
        ("cuInit: crashes", Cause.CRASHED, "take buffers, as it is: signal 11 the process that drives NCCL ended"),
        ("cuMemAlloc_v2 gpu1 nth2: returns 2", Cause.DENIED,
         "take buffers, as it is: 2 CUDA_ERROR_OUT_OF_MEMORY cuMemAlloc_v2"),
    ],
)  # fmt: skip
def test_before_nccl_nothing_is_a_fact(tried: Try, plan: str, cause: Cause, detail: str) -> None:
    assert tried(plan) == Absent(cause=cause, detail=detail)


def test_where_there_is_no_nccl_the_user_is_told_how_to_get_one(tried: Try) -> None:
    if engine_nccl.find({"PATH": "", "WARMSPARE_PYTHON": "/nowhere"}):
        pytest.skip("this machine has an NCCL of its own")
    assert tried(nccl=None) == Absent(cause=Cause.SKIPPED, detail=module.NO_LIBRARY)


def test_the_environment_is_handed_on_whole_and_only_added_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NCCL_NVLS_ENABLE", "0")
    before = set(process.children(os.getpid()))
    with RanksProcess(Steps(lambda _: None, tmp_path, 100), {"NCCL_P2P_DISABLE": "1"}):
        (child,) = set(process.children(os.getpid())) - before
        told = dict(entry.split(b"=", 1) for entry in Path(f"/proc/{child}/environ").read_bytes().split(b"\0") if entry)
    assert told == {**os.environb, b"NCCL_P2P_DISABLE": b"1"}
    assert child not in process.children(os.getpid())


def test_a_slow_transport_gets_fewer_rounds_and_no_larger_size(tried: Try) -> None:
    found = proof(tried("memory gpu*: gives 700", "slow *: gives 100"))
    assert found.outcome == DONE
    assert [size.size_mib for size in found.by_size] == [1]
    assert found.by_size[0].time_us > 100_000
