"""Copies between GPUs that go wrong in every way that was seen in the field, planted in a stand-in driver."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest
from msgspec.structs import replace

from conftest import CI
from standins import NOW, Drivers, compilers, gpu_ids
from warmspare.model.facts import Absent, Cause, Known, Outcome, Proof, Reading
from warmspare.trials import cuda_compute, peer_copy, peer_gather
from warmspare.trials.api import Trial, at_place
from warmspare.trials.given import Gpu, Pair
from warmspare.trials.run import run

pytestmark = pytest.mark.skipif(not compilers() and not CI, reason="needs a C compiler, or the wheel ziglang")
DONE: Final = Outcome(kind="done")
COPY: Final = at_place(f"{peer_copy.__name__}:peer_copy")
COMPUTE: Final = at_place(f"{cuda_compute.__name__}:cuda_compute")
GATHER: Final = at_place(f"{peer_gather.__name__}:peer_gather")
GPUS: Final = tuple(
    Gpu(subject=f"gpu{n}", id=uuid, nvml=n, pcie_gb_per_s=63.0, nvlink_gb_per_s=478.1, numa_nodes=(0,), memory_mib=1024)
    for n, uuid in enumerate(gpu_ids())
)
PAIR: Final = Pair(source=GPUS[0], target=GPUS[1], nvlinks=18)


@pytest.fixture(scope="module")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> Drivers:
    return Drivers(tmp_path_factory.mktemp("drivers"))


SMALL: Final = "memory *: gives 30"
"""A tenth of so many MiB keeps the copies short: real time is what the stand-in's memory takes."""
Try = Callable[..., Reading[Proof]]


@pytest.fixture
def tried(drivers: Drivers, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Try:
    """Run a trial in a world of its own."""

    def run_in(trial: Trial, given: object, *plan: str, cuda: int = NOW, deadline_s: float = 60) -> Reading[Proof]:
        folder = "".join(c if c.isalnum() else "-" for c in request.node.name)
        for name, value in drivers.world(folder[:60], *plan, SMALL, cuda=cuda).items():
            monkeypatch.setenv(name, value)
        ended = run(replace(trial, deadline_s=deadline_s), lambda _: None, given)
        assert ended.left == ()
        return ended.reading

    return run_in


def known(reading: Reading[Proof]) -> Any:  # noqa: ANN401 # whichever proof
    assert isinstance(reading, Known), reading
    return reading.value


def test_an_honest_driver_passes(tried: Try) -> None:
    copy = known(tried(COPY, PAIR))
    assert (copy.outcome, copy.peer_access, copy.refusal) == (DONE, True, None)
    assert (copy.path, copy.path_by, copy.counted) == ("nvlink", "counters", pytest.approx(1.0, abs=0.02))
    assert copy.gb_per_s == pytest.approx(394, rel=0.1)
    assert copy.both_ways_gb_per_s == pytest.approx(2 * copy.gb_per_s, rel=0.2)
    assert copy.latency_s == pytest.approx(7e-7, rel=0.3)
    assert copy.spread < 0.02
    assert copy.size_mib == 3


def test_without_counters_the_speed_names_the_path(tried: Try) -> None:
    copy = known(tried(COPY, PAIR, "field 138 *: returns 3"))
    assert (copy.path, copy.path_by, copy.counted) == ("nvlink", "speed", None)


def test_an_nvml_that_hangs_is_none_of_the_copys_doing(tried: Try) -> None:
    copy = known(tried(COPY, PAIR, "field 13[89] *: hangs"))
    assert (copy.outcome, copy.path, copy.path_by, copy.counted) == (DONE, "nvlink", "speed", None)


def test_what_the_first_sends_elsewhere_is_not_counted_for_this_copy(tried: Try) -> None:
    copy = known(tried(COPY, PAIR, "field 139 gpu1 *: gives 0"))
    assert (copy.path, copy.path_by, copy.counted) == ("nvlink", "speed", 0.0)


REFUSED: Final = ("cuDeviceCanAccessPeer *: gives 0", "cuCtxEnablePeerAccess *: returns 217")


def test_a_copy_that_the_driver_stages_is_no_peer_copy(tried: Try) -> None:
    copy = known(tried(COPY, PAIR, *REFUSED))
    assert (copy.outcome, copy.peer_access, copy.path, copy.path_by) == (DONE, False, "staged", "refusal")
    assert copy.refusal == "217 CUDA_ERROR_PEER_ACCESS_UNSUPPORTED"
    assert copy.gb_per_s == pytest.approx(20, rel=0.1)
    assert copy.store_gb_per_s is None


def test_what_is_refused_one_way_only_is_not_fetched_the_other_way(tried: Try) -> None:
    copy = known(tried(COPY, PAIR, "cuCtxEnablePeerAccess gpu0 gpu1 *: returns 217"))
    assert (copy.peer_access, copy.path, copy.path_by, copy.counted) == (False, "staged", "refusal", 0.0)
    assert copy.gb_per_s == pytest.approx(20, rel=0.1)


def test_a_staged_copy_that_is_passed_off_as_peer_to_peer_is_seen_through(tried: Try) -> None:
    copy = known(tried(COPY, PAIR, "copy path *: gives 20", "nvlink counts copy *: gives 0"))
    assert (copy.outcome, copy.peer_access, copy.path, copy.path_by) == (DONE, True, "staged", "stores")


NOTHING: Final = "no byte arrived, the first at byte 0"
CHECK: Final = "check the copy on the second GPU"
BROKEN: Final = {
    "mirror": ("mirror gpu0 gpu1: gives 1", Outcome(kind="wrong", step=CHECK, detail=NOTHING)),
    "one page": (
        "wrong page of copy gpu0 gpu1 *: gives 3",
        Outcome(kind="wrong", step=CHECK, detail="512 of 393216 words are wrong, the first at byte 12288"),
    ),
    "one word": (
        "wrong word of copy gpu0 gpu1 *: gives 3",
        Outcome(kind="wrong", step=CHECK, detail="1 of 393216 words are wrong, the first at byte 24"),
    ),
    "a copy that hangs": (
        "copy gpu0 gpu1 *: hangs", Outcome(kind="hung", step="copy", detail="no end within 3 s")
    ),
    "a call that hangs": (
        "cuMemcpyPeerAsync *: hangs", Outcome(kind="hung", step="copy", detail="no end within 3 s")
    ),
    "an illegal access": (
        "kernel fill gpu0 nth3: returns 700",
        Outcome(kind="refused", step="store", code="700 CUDA_ERROR_ILLEGAL_ADDRESS", detail="cuStreamSynchronize"),
    ),
    "217 later than it should come": (
        "cuMemcpyPeerAsync *: returns 217",
        Outcome(kind="refused", step="copy", code="217 CUDA_ERROR_PEER_ACCESS_UNSUPPORTED", detail="cuMemcpyPeerAsync"),
    ),
    "a driver that dies": ("cuMemcpyPeerAsync *: crashes", Outcome(kind="died", step="copy", code="signal 11")),
    "a lost GPU": (
        "cuCtxEnablePeerAccess *: returns 999",
        Outcome(
            kind="refused", step="enable peer access", code="999 CUDA_ERROR_UNKNOWN", detail="cuCtxEnablePeerAccess"
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_copy_is_an_outcome_at_its_step(tried: Try, fault: str) -> None:
    plan, outcome = BROKEN[fault]
    found = known(tried(COPY, PAIR, plan, deadline_s=3 if outcome.kind == "hung" else 60)).outcome
    if fault == "an illegal access":  # an error in a stream is told by whichever call comes next
        found = replace(found, detail=outcome.detail)
    assert found == outcome


LATE: Final = {
    "one way": ("wrong page of copy gpu0 gpu1 *: gives 3", "check what was measured one way"),
    "back": ("wrong page of copy gpu1 gpu0 *: gives 3", "check what was measured back"),
}


@pytest.mark.parametrize("late", LATE)
def test_a_fault_that_comes_only_under_load_is_seen(tried: Try, late: str) -> None:
    plan, step = LATE[late]
    first_is_right = plan.replace("*: gives 3", "nth1: gives 4294967295") if late == "one way" else ""
    outcome = known(tried(COPY, PAIR, *filter(None, (first_is_right, plan)))).outcome
    assert (outcome.kind, outcome.step) == ("wrong", step)
    assert outcome.detail.startswith("512 of ")


ABSENT: Final = {
    "a check that sees nothing": (
        ("result of check gpu1: gives 0",), Cause.INVALID, "the check kernel did not see a planted fault"
    ),
    "a check that always sees something": (
        ("result of check gpu0: gives 5",), Cause.INVALID, "the check kernel did not see a planted fault"
    ),
    "out of memory": (
        ("cuMemAlloc_v2 gpu0 nth2: returns 2",), Cause.DENIED, "cuMemAlloc_v2: 2 CUDA_ERROR_OUT_OF_MEMORY"
    ),
    "no memory to speak of": (
        ("memory gpu1: gives 11",), Cause.SKIPPED, "a tenth of the free memory is 1 MiB: too little to try with"
    ),
    "no fabric manager": (("cuInit: returns 802",), Cause.DENIED, "cuInit: 802 CUDA_ERROR_SYSTEM_NOT_READY"),
    "a card in TCC mode": (("cuInit: returns 304",), Cause.DENIED, "cuInit: 304 CUDA_ERROR_OPERATING_SYSTEM"),
    "no context": (
        ("cuDevicePrimaryCtxRetain *: returns 46",), Cause.DENIED,
        "cuDevicePrimaryCtxRetain: 46 CUDA_ERROR_DEVICE_UNAVAILABLE",
    ),
    "hung before the first lever": (
        ("cuInit: hangs",), Cause.TIMEOUT, "hung at make contexts, before any lever was pulled"
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", ABSENT)
def test_before_the_first_lever_there_is_no_fact(tried: Try, fault: str) -> None:
    plan, cause, detail = ABSENT[fault]
    deadline_s = 3 if cause is Cause.TIMEOUT else 60
    assert tried(COPY, PAIR, *plan, deadline_s=deadline_s) == Absent(cause=cause, detail=detail)


@pytest.mark.parametrize(("trial", "given"), [(COPY, PAIR), (COMPUTE, GPUS[1])], ids=["peer_copy", "cuda_compute"])
def test_a_gpu_that_cuda_does_not_show_is_not_at_fault(tried: Try, trial: Trial, given: object) -> None:
    hidden = replace(GPUS[1], id="GPU-00000000-0000-0000-0000-000000000001")
    detail = "CUDA shows 4 devices here, and gpu1 is not among them (CUDA_VISIBLE_DEVICES, or MIG)"
    about = replace(PAIR, target=hidden) if given is PAIR else hidden
    assert tried(trial, about) == Absent(cause=Cause.SKIPPED, detail=detail)


HUB: Final = peer_gather.Hub(target=GPUS[0], peers=GPUS[1:])


def test_all_write_to_one(tried: Try) -> None:
    gather = known(tried(GATHER, HUB))
    assert (gather.outcome, gather.peers) == (DONE, 3)
    assert gather.gb_per_s > 300


def test_what_one_of_them_wrote_wrong_is_seen(tried: Try) -> None:
    outcome = known(tried(GATHER, HUB, "wrong word of copy gpu2 gpu0 *: gives 3")).outcome
    assert outcome == Outcome(
        kind="wrong", step="check what gpu2 sent", detail="1 words are wrong, the first at byte 24"
    )
