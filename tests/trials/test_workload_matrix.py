"""The workload matrix against a stand-in driver that suspends, refuses, loses, hangs, and brings back wrong bytes."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
import pytest

from standins import NOW, Drivers, gpu_ids
from warmspare import catalogue
from warmspare.control import process
from warmspare.control.checkpointer import Checkpointer
from warmspare.model.facts import HOST, Absent, Cause, Fact, Known, Outcome, Standing
from warmspare.model.snapshot import Reader
from warmspare.probes.gpu import Mig
from warmspare.probes.mps import Mps
from warmspare.trials import workload_cycle as cycle
from warmspare.trials import workload_matrix as module
from warmspare.trials.api import NotTried, Steps, at_place
from warmspare.trials.given import Gpu
from warmspare.trials.run import run
from warmspare.trials.workload_cells import Fate, MatrixCell
from warmspare.trials.workload_cycle import NO_TIME, About
from warmspare.trials.workload_matrix import AllGpus, WorkloadMatrix, fate_of
from warmspare.trials.workloads.api import ALONE, Host, Place, found, of_kind
from warmspare.trials.workloads.running import Running

HOSTS: Final = Path(__file__).parent.parent / "hosts"
SMALL: Final = "memory gpu*: gives 256"
"""A tenth of it, in parts: some MiB a program, so that a test takes seconds."""
HURRY_S: Final = 60.0
"""A deadline that leaves a cell 4.5 s, for those that hang."""
LOST: Final = "1 CUDA_ERROR_INVALID_VALUE"
NOTHING: Final = frozenset({"mps-client", "mig-slice"})
Tried = tuple[WorkloadMatrix | Absent, tuple[str, ...]]
Try = Callable[..., Tried]


def gpus(count: int) -> tuple[Gpu, ...]:
    return tuple(
        Gpu(
            subject=f"gpu{n}", id=gpu_ids()[n], nvml=n, pcie_gb_per_s=None, nvlink_gb_per_s=None, numa_nodes=(),
            memory_mib=None,
        )
        for n in range(count)
    )  # fmt: skip


@pytest.fixture(scope="module")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> Drivers:
    return Drivers(tmp_path_factory.mktemp("standins"))


@pytest.fixture
def world(drivers: Drivers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Path]:
    """Enter a world of this plan, where no torch is; gives the folder in which trials may write."""

    def enter(*plan: str, nccl: int | None = NOW, lacks: tuple[str, ...] = ()) -> Path:
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        added = drivers.world(tmp_path.name, *plan, SMALL, nccl=nccl, lacks=lacks)
        for name, value in {**added, "WARMSPARE_PYTHON": "/nowhere", "TMPDIR": str(scratch)}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("VLLM_NCCL_SO_PATH", raising=False)
        return scratch

    return enter


@pytest.fixture
def tried(world: Callable[..., Path]) -> Try:
    """Run the trial; what it leaves alive since the driver lost it is ended here, as nothing else may be left."""

    def attempt(
        *plan: str,
        kinds: tuple[str, ...] = (),
        count: int = 2,
        deadline_s: float = 300.0,
        nccl: int | None = NOW,
        lacks: tuple[str, ...] = (),
    ) -> Tried:
        scratch = world(*plan, nccl=nccl, lacks=lacks)
        trial = msgspec.structs.replace(at_place(f"{module.__name__}:workload_matrix"), deadline_s=deadline_s)
        ended = run(trial, lambda _: None, AllGpus(gpus=gpus(count), kinds=kinds))
        pids = [int(pid) for left in ended.left for pid in re.findall(r"^pid (\d+), which the driver ", left)]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        assert len(pids) == len(ended.left), ended.left
        assert bool(list(scratch.iterdir())) == bool(pids)
        reading = ended.reading
        if isinstance(reading, Known):
            assert isinstance(reading.value, WorkloadMatrix)
            return reading.value, ended.left
        return reading, ended.left

    return attempt


def cells(found: Tried) -> dict[tuple[str, str], MatrixCell]:
    proof, _ = found
    assert isinstance(proof, WorkloadMatrix), proof
    assert proof.outcome == Outcome(kind="done")
    return {(cell.kind, cell.variant): cell for cell in proof.cells}


def one(found: Tried) -> MatrixCell:
    (cell,) = cells(found).values()
    return cell


FATES: Final = {
    ("plain", "alone"): "survives",
    ("pinned-memory", "alone"): "survives",
    ("vmm", "alone"): "survives",
    ("nvml", "alone"): "survives",
    ("cuda-graph", "alone"): "survives",
    ("two-gpus", "alone"): "survives",
    ("child-context", "together"): "survives",
    ("nccl-one-gpu", "alone"): "survives",
    ("managed-memory", "alone"): "refused",
    ("cuda-ipc", "together"): "lost-on-restore",
    ("peer-access", "alone"): "lost-on-restore",
    ("peer-access-large", "alone"): "not-here",
    ("nccl", "together"): "lost-on-restore",
    ("nccl", "one by one"): "lost-on-restore",
    ("nccl", "together, P2P and SHM off"): "survives",
    ("nccl", "together, host cuMem off"): "lost-on-restore",
    ("nccl", "together, cuMem off"): "lost-on-restore",
    ("nccl", "together, P2P, SHM and cuMem off"): "survives",
    ("mps-client", "alone"): "not-here",
    ("mig-slice", "alone"): "not-here",
}
"""What the stand-in does with each: with P2P its NCCL opens the other ranks' memory, as the real one does."""


def test_every_kind_has_its_fate_and_nothing_is_left(tried: Try) -> None:
    ended = tried()
    seen = cells(ended)
    assert {key: cell.fate for key, cell in seen.items()} == FATES
    for cell in seen.values():
        match cell.fate:
            case "survives":
                assert cell.step is cell.code is None
                assert cell.suspend_s
                assert cell.resume_s
                assert cell.held_mib
                assert cell.freed_mib == cell.held_mib
            case "lost-on-restore":
                assert (cell.step, cell.code) == ("restore", LOST)
                assert "now checkpointed" in cell.detail
            case "refused":
                assert (cell.step, cell.code) == ("checkpoint", "801 CUDA_ERROR_NOT_SUPPORTED")
                assert cell.detail.endswith("now running")
    proof, left = ended
    assert isinstance(proof, WorkloadMatrix)
    assert proof.gpus == 2
    assert left == ()  # what was lost stays checkpointed, holds nothing of a GPU, and can be killed
    assert [seen["nccl", "together"].processes, seen["child-context", "together"].processes] == [2, 2]


def test_with_one_gpu_and_no_nccl_the_rest_is_tried(tried: Try) -> None:
    seen = cells(tried(kinds=("plain", "two-gpus", "peer-access", "nccl", "nccl-one-gpu"), count=1, nccl=None))
    assert seen["plain", "alone"].fate == "survives"
    assert {cell.detail for cell in seen.values() if cell.fate == "not-here"} == {
        "it takes two GPUs, and there is one", "no NCCL library was found",
    }  # fmt: skip
    assert {cell.fate for key, cell in seen.items() if key[0] != "plain"} == {"not-here"}


def test_one_whose_memory_was_not_freed_did_not_survive_well(tried: Try) -> None:
    cell = one(tried("kept vram gpu0: gives 1", kinds=("plain",)))
    assert (cell.fate, cell.step) == ("wrong", "checkpoint")
    assert re.fullmatch(r"NVML saw 0 of \d+ MiB freed", cell.detail)


@pytest.mark.parametrize(("mib", "fate"), [(4096, "not-here"), (8192, "lost-on-restore")])
def test_a_large_block_is_tried_where_it_is_within_the_share(tried: Try, mib: int, fate: Fate) -> None:
    assert one(tried(f"memory gpu*: gives {mib}", kinds=("peer-access-large",))).fate == fate


def test_no_peer_access_is_no_fate(tried: Try) -> None:
    cell = one(tried("cuCtxEnablePeerAccess *: returns 217", kinds=("peer-access",)))
    assert (cell.fate, cell.detail) == (
        "not-here", "the driver gives no peer access: 217 CUDA_ERROR_PEER_ACCESS_UNSUPPORTED",
    )  # fmt: skip


def test_a_program_that_hangs_after_its_resume_costs_the_others_nothing(tried: Try) -> None:
    ended = tried("kernel check gpu1 nth2: hangs", kinds=("plain", "two-gpus", "vmm"), deadline_s=HURRY_S)
    seen = cells(ended)
    assert {kind: cell.fate for (kind, _), cell in seen.items()} == {
        "plain": "survives", "two-gpus": "hung", "vmm": "survives",
    }  # fmt: skip
    assert seen["two-gpus", "alone"].step == "check"
    assert len(ended[1]) == 1  # it cannot be suspended again either


def test_a_driver_that_hangs_costs_the_others_nothing(tried: Try) -> None:
    """The second call of the same worker: it is killed, and the third cell gets a new one."""
    plan = "cuCheckpointProcessCheckpoint nth2: hangs"
    ended = tried(plan, kinds=("plain", "two-gpus", "vmm"), deadline_s=HURRY_S)
    seen = cells(ended)
    assert {kind: cell.fate for (kind, _), cell in seen.items()} == {
        "plain": "survives", "two-gpus": "hung", "vmm": "survives",
    }  # fmt: skip
    assert (seen["two-gpus", "alone"].step, seen["two-gpus", "alone"].code) == ("checkpoint", "hung")
    assert ended[1] == ()


def test_a_refusal_is_clean_only_if_the_process_is_seen_to_go_on(tried: Try) -> None:
    """Two checks before the suspend, the third after the refusal."""
    cell = one(tried("kernel check gpu0 nth3: crashes", kinds=("managed-memory",)))
    assert (cell.fate, cell.step, cell.code) == ("lost-on-suspend", "checkpoint", "801 CUDA_ERROR_NOT_SUPPORTED")
    assert cell.detail.endswith("now running; then check: signal 11")


def test_a_tree_whose_second_process_is_refused_goes_on_as_a_whole(tried: Try) -> None:
    """The first was checkpointed by then: it is restored, and is ended as a restored process is."""
    ended = tried("cuCheckpointProcessCheckpoint nth2: returns 801", kinds=("child-context",))
    cell = one(ended)
    assert (cell.fate, cell.step, cell.code) == ("refused", "checkpoint", "801 CUDA_ERROR_NOT_SUPPORTED")
    assert cell.detail == "process 2 of 2; cuCheckpointProcessCheckpoint; now running, running"
    assert ended[1] == ()


def test_a_child_that_has_died_is_told_as_its_end_and_not_as_a_fault_of_ours(world: Callable[..., Path]) -> None:
    world()
    tree = Running("child-context", {})
    ends = time.monotonic() + 30
    try:
        tree.order("begin", Place(gpus=gpus(1)))
        (_, child) = tree.answer(ends).result["pids"]
        tree.order("act", 7)
        assert tree.answer(ends).kind == "done"
        os.kill(child, signal.SIGKILL)
        tree.order("problem")
        answer = tree.answer(ends)
        assert (answer.kind, answer.code) == ("refused", "signal 9")
    finally:
        tree.kill()


def test_a_tree_that_comes_back_wrong_from_a_refusal_was_lost_by_it(tried: Try) -> None:
    plan = ("cuCheckpointProcessCheckpoint nth2: returns 801", "wrong page of restore gpu0: gives 0")
    cell = one(tried(*plan, kinds=("child-context",)))
    assert (cell.fate, cell.code) == ("lost-on-suspend", "801 CUDA_ERROR_NOT_SUPPORTED")
    assert "then check: " in cell.detail


def test_a_process_that_is_not_brought_back_by_an_undo_is_lost(tried: Try) -> None:
    cell = one(tried("failed checkpoint *: returns 999", kinds=("plain",)))
    assert (cell.fate, cell.step, cell.code) == ("lost-on-suspend", "checkpoint", "999 CUDA_ERROR_UNKNOWN")
    assert cell.detail.endswith("now failed")


def test_a_process_that_dies_in_its_restore_is_lost(tried: Try) -> None:
    ended = tried("restore target nth1: crashes", kinds=("plain",))
    assert (one(ended).fate, one(ended).step) == ("lost-on-restore", "restore")
    assert one(ended).detail.endswith("now untold")
    assert ended[1] == ()


def test_other_bytes_than_before_are_wrong(tried: Try) -> None:
    seen = cells(tried("wrong page of restore gpu1: gives 0", kinds=("plain", "two-gpus")))
    assert (seen["plain", "alone"].fate, seen["two-gpus", "alone"].fate) == ("survives", "wrong")
    assert (seen["two-gpus", "alone"].step, seen["two-gpus", "alone"].code) == ("check", None)
    assert "words are wrong, the first at 0" in seen["two-gpus", "alone"].detail


def test_a_check_that_cannot_fail_is_no_oracle(tried: Try) -> None:
    found, left = tried("result of check gpu0: gives 0")
    assert found == Absent(
        cause=Cause.INVALID,
        detail="a planted fault was not seen in child-context, together: nothing it said can be believed",
    )
    assert left == ()


def test_a_check_that_always_fails_says_nothing_of_the_driver(tried: Try) -> None:
    cell = one(tried("result of check gpu0: gives 1", kinds=("plain",)))
    assert (cell.fate, cell.step, cell.suspend_s) == ("not-tried", "begin", None)
    assert cell.detail.startswith("before it was suspended: ")


def test_one_that_can_be_suspended_at_the_second_try_is_ended_by_the_keeper(tried: Try) -> None:
    ended = tried("lock target nth2: returns 999", kinds=("plain",))
    assert (one(ended).fate, ended[1]) == ("survives", ())


def test_a_survivor_that_cannot_be_suspended_again_is_left_alive_and_named(tried: Try) -> None:
    ended = tried("lock target nth[2-9]: returns 999", kinds=("plain",))
    assert one(ended).fate == "survives"
    assert len(ended[1]) == 1


def test_a_driver_without_the_calls_is_not_tried(tried: Try) -> None:
    found, _ = tried(lacks=("cuCheckpointProcessRestore",))
    assert found == Absent(cause=Cause.SKIPPED, detail="this driver lacks cuCheckpointProcessRestore")


@pytest.mark.parametrize(
    ("plan", "code", "detail"),
    [
        ("ncclCommInitRank p2p: returns 1", "1 ncclUnhandledCudaError", "ncclUnhandledCudaError"),
        ("wrong sum p2p rank1: gives 17", None, "sums are wrong on rank 1, the first at 17"),
        ("ncclGroupEnd p2p: crashes", "signal 11", "signal 11"),
    ],
)
def test_ranks_that_fail_before_they_are_suspended_say_nothing_of_it(
    tried: Try, plan: str, code: str | None, detail: str
) -> None:
    seen = cells(tried(plan, kinds=("nccl",)))
    assert (seen["nccl", "together"].fate, seen["nccl", "together"].code) == ("not-tried", code)
    assert detail in seen["nccl", "together"].detail
    assert seen["nccl", "together, P2P and SHM off"].fate == "survives"


def test_what_is_suspended_one_by_one_is_undone_from_the_first_on(tried: Try, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second rank is refused: the first was checkpointed by then, and must come back for both to go on."""
    plan = ("cuCheckpointProcessCheckpoint nth4: returns 801", "cuIpcOpenMemHandle_v2 *: crashes")
    monkeypatch.setenv("NCCL_P2P_DISABLE", "1")
    seen = cells(tried(*plan, kinds=("nccl",)))
    assert (seen["nccl", "together"].fate, seen["nccl", "one by one"].fate) == ("survives", "refused")
    assert seen["nccl", "one by one"].detail.startswith("process 2 of 2; ")


def test_more_memory_than_the_host_can_take_is_not_moved_there(
    world: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = iter((2**30, 2**29))
    monkeypatch.setattr(cycle, "free_by_nvml", lambda _: next(told))
    monkeypatch.setattr("warmspare.control.host_memory.free_bytes", lambda: 2**30)
    steps = Steps(lambda _: None, world(), 100)
    with Checkpointer() as levers:
        cell = cycle.tried(steps, levers, About(of_kind("plain"), ALONE, Host(gpus=gpus(1)), 20))
    assert (cell.fate, cell.held_mib) == ("not-here", 512)
    assert cell.detail == "its 512 MiB of GPU memory are more than a tenth of the host's free memory"


def test_a_cell_that_there_is_no_time_for_is_said_to_be_untried(tried: Try) -> None:
    """Each that hangs takes a tenth of it: the last of many has no time left."""
    ended = tried("cuCtxSynchronize *: hangs", deadline_s=8.0)
    seen = cells(ended)
    assert seen["plain", "alone"].fate == "not-tried"
    assert seen["nccl", "together"].detail == NO_TIME


def test_a_program_ends_with_its_input_unless_it_was_told_to_stay(world: Callable[..., Path]) -> None:
    world()
    for stays in (False, True):
        program = Running("plain", {})
        program.order("begin", {"gpus": msgspec.to_builtins(gpus(1))})
        assert program.answer(time.monotonic() + 20).kind == "done"
        if stays:
            program.order("stay")
            assert program.answer(time.monotonic() + 20).kind == "done"
        program._process.stdin.close()  # type: ignore[union-attr] # noqa: SLF001 # as it is when its parent dies
        with process.holding(program.pid) as held:
            assert held is not None
            assert bool(process.ready([held], 0.5 if stays else 20.0)) is not stays
        program.kill()


def test_an_order_that_cannot_be_carried_out_ends_no_program(world: Callable[..., Path]) -> None:
    world()
    program = Running("plain", {})
    for order, said in (("problem", "told to problem before it began"), ("dance", "ValidationError")):
        program.order(order)
        answer = program.answer(time.monotonic() + 20)
        assert (answer.kind, answer.code) == ("absent", Cause.CRASHED)
        assert said in answer.detail
    program.kill()


def test_kinds_are_found_with_ids_of_their_own_and_the_worst_last() -> None:
    kinds = [workload.kind for workload in found()]
    assert len(set(kinds)) == len(kinds)
    assert {key[0] for key in FATES} == set(kinds)
    assert kinds[-1] == "nccl"
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", kind) for kind in kinds)


def test_no_variant_turns_multicast_on() -> None:
    added = [variant.added for workload in found() for variant in workload.variants]
    assert {one.get("NCCL_NVLS_ENABLE", "0") for one in added} == {"0"}
    assert all("NCCL_NVLS_ENABLE" in v.added for w in found() if w.kind.startswith("nccl") for v in w.variants)


def test_where_mps_and_mig_are_there_they_are_tried() -> None:
    host = Host(gpus=gpus(1), mps=True, mig=True)
    assert all(of_kind(kind).places(host) for kind in NOTHING)
    for kind in NOTHING:
        with pytest.raises(NotTried):
            of_kind(kind).places(Host(gpus=gpus(1)))


def test_the_facts_say_whether_mps_and_mig_are_there() -> None:
    recorded = Reader(catalogue.facts()).read((HOSTS / "h200-x2.json").read_bytes()).readings
    assert AllGpus.of(recorded, HOST) == AllGpus(gpus=AllGpus.of(recorded, HOST).gpus)

    def known(fact: Fact) -> Known[Fact]:
        return Known(value=fact, standing=Standing.OBSERVED, at=datetime(2026, 11, 22, tzinfo=UTC))

    split, daemon = Mig(current="on", pending="on"), Mps(daemon=True, own_directory=False)
    given = AllGpus.of(recorded.plus({("mig", "gpu1"): known(split), ("mps", HOST): known(daemon)}), HOST)
    assert (given.mps, given.mig, given.kinds) == (True, True, ())


def test_a_fate_is_that_of_the_kind_as_the_tool_suspends_it() -> None:
    def cell(variant: str, fate: Fate) -> MatrixCell:
        return MatrixCell(kind="nccl", variant=variant, fate=fate)

    told = (cell("one by one", "hung"), cell("together", "lost-on-restore"), cell("together, cuMem off", "survives"))
    proof = WorkloadMatrix(outcome=Outcome(kind="done"), cells=told)
    assert fate_of(proof, "nccl") == "lost-on-restore"
    assert fate_of(proof, "plain") is None
