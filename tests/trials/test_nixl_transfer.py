"""NIXL's transfer between two GPUs of the stand-in driver, by a NIXL that is one only by name, with faults planted."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from leftovers import Corner
from standins import Drivers
from warmspare.control import engine_python
from warmspare.model.facts import Absent, Cause, Known, Outcome
from warmspare.trials.api import at_place
from warmspare.trials.best_pair import BestPair
from warmspare.trials.given import Gpu
from warmspare.trials.nixl_transfer import NAMED, NixlTransfer
from warmspare.trials.run import run

TRIAL = at_place("warmspare.trials.nixl_transfer:nixl_transfer")
FAKE = Path(__file__).parent.parent / "fake_nixl"
IN_VAIN_S = 8.0
"""A deadline for trials in which something is waited for that never comes."""
IDS = ("GPU-731c59fc-2d85-9cee-6153-7dcdc0cf21fa", "GPU-e9c863cf-f5c9-64e3-7d6a-b0470575a7aa")
SMALL = "memory gpu?: gives 128"
"""Of the driver's plan: so many MiB, a tenth of which is soon written and checked."""
MIB = 12
Reading = Known[NixlTransfer] | Absent
Try = Callable[..., Reading]


def gpu(number: int, pcie_gb_per_s: float | None = 1e-6) -> Gpu:
    return Gpu(
        subject=f"gpu{number}", id=IDS[number], nvml=number, pcie_gb_per_s=pcie_gb_per_s, nvlink_gb_per_s=None,
        numa_nodes=(), memory_mib=1024,
    )  # fmt: skip


PAIR = BestPair(source=gpu(0), target=gpu(1), nvlinks=None)


@pytest.fixture(scope="session")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> Drivers:
    return Drivers(tmp_path_factory.mktemp("drivers"))


@pytest.fixture
def attempt(drivers: Drivers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Try:
    """Try NIXL with a fate, on a driver with a plan; what is left behind fails the test."""
    corner = Corner(tmp_path / "scratch")
    for name, value in {**corner.env, "WARMSPARE_PYTHON": sys.executable}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(tempfile, "tempdir", str(corner.scratch))

    def tried(
        fate: str = "", *plan: str, given: BestPair = PAIR, deadline_s: float = 60, folder: Path = FAKE
    ) -> Reading:
        for name, value in drivers.world(tmp_path.name, *plan, SMALL).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("FAKE_NIXL", fate)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH")))))
        ended = run(msgspec.structs.replace(TRIAL, deadline_s=deadline_s), lambda _: None, given)
        assert not ended.left
        assert not list(corner.scratch.iterdir())
        return ended.reading  # type: ignore[return-value]

    return tried


def proof(reading: Reading) -> NixlTransfer:
    assert isinstance(reading, Known), reading
    return reading.value


def outcome(reading: Reading) -> tuple[str, str | None, str | None]:
    found = proof(reading).outcome
    return found.kind, found.step, found.code


def test_an_honest_nixl_moves_it_both_ways_and_its_transport_is_named(attempt: Try) -> None:
    found = proof(attempt())
    assert found.outcome == Outcome(kind="done")
    assert (found.pair, found.package, found.version, found.backend) == ("gpu0→gpu1", "nixl", "9.8.7", "UCX")
    assert (found.transport_write, found.transport_read) == ("zero-copy over cuda_ipc",) * 2
    assert found.write_gb_per_s
    assert found.read_gb_per_s
    assert found.beyond_pcie is True
    assert found.size_mib == MIB


def test_each_operation_has_its_own_transport(attempt: Try) -> None:
    found = proof(attempt("READ emulated"))
    assert found.transport_write == "zero-copy over cuda_ipc"
    assert found.transport_read == "software emulation over sysv"


def test_without_a_word_of_ucx_no_transport_is_named_and_without_a_limit_no_way(attempt: Try) -> None:
    found = proof(attempt("silent", given=BestPair(source=gpu(0, None), target=gpu(1, None), nvlinks=None)))
    assert (found.outcome.kind, found.transport_write, found.transport_read) == ("done", None, None)
    assert found.beyond_pcie is None


def test_what_pcie_can_carry_is_not_said_to_be_beyond_it(attempt: Try) -> None:
    assert proof(attempt(given=BestPair(source=gpu(0, 1e6), target=gpu(1, 1e6), nvlinks=None))).beyond_pcie is False


@pytest.mark.parametrize("operation", ["WRITE", "READ"])
def test_a_transfer_that_arrives_nowhere_is_wrong(attempt: Try, operation: str) -> None:
    found = attempt(f"{operation} nowhere")
    assert outcome(found) == ("wrong", f"check the {operation} on the second GPU", None)
    assert proof(found).outcome.detail == "NIXL said DONE, and no byte arrived, the first at byte 0"


def test_a_page_that_is_lost_is_wrong(attempt: Try) -> None:
    found = attempt("WRITE loses a page")
    assert outcome(found) == ("wrong", "check the WRITE on the second GPU", None)
    words = MIB * 2**20 // 8
    assert proof(found).outcome.detail.startswith(f"512 of {words} words never arrived, the first at byte ")


def test_a_page_that_the_driver_garbles_is_wrong(attempt: Try) -> None:
    found = attempt("", "wrong word of copy gpu0 gpu1 *: gives 3")
    assert outcome(found) == ("wrong", "check the WRITE on the second GPU", None)
    assert "words are wrong, the first at byte" in proof(found).outcome.detail


@pytest.mark.parametrize("fate", ["WRITE hangs", "READ never ends"])
def test_a_transfer_without_end_hung(attempt: Try, fate: str) -> None:
    assert outcome(attempt(fate, deadline_s=IN_VAIN_S)) == ("hung", fate.split(maxsplit=1)[0], None)


@pytest.mark.parametrize(
    ("fate", "step", "code", "detail"),
    [
        ("raises", "make agents", "nixlBackendError", "source: NIXL_ERR_BACKEND"),
        ("refuses to load", "load NIXL", "ImportError", "source: libucp.so.0: cannot open shared object file"),
        ("READ gives up", "READ", "ERR", "target: NIXL gave the transfer up"),
    ],
)
def test_what_nixl_refuses_goes_by_its_own_name(attempt: Try, fate: str, step: str, code: str, detail: str) -> None:
    found = attempt(fate)
    assert outcome(found) == ("refused", step, code)
    assert proof(found).outcome.detail == detail


def test_an_agent_that_dies_died_with_its_last_words(attempt: Try) -> None:
    found = attempt("WRITE dies")
    assert outcome(found) == ("died", "WRITE", "AgentDied")
    assert proof(found).outcome.detail == "source ended with signal 6: ucp_worker.c: Assertion failed"


def test_a_refusal_of_cuda_keeps_its_result(attempt: Try) -> None:
    found = attempt("", "cuIpcGetMemHandle*: returns 801")
    assert outcome(found) == ("refused", "make agents", "801 CUDA_ERROR_NOT_SUPPORTED")


def absence(reading: Reading) -> tuple[Cause, str]:
    assert isinstance(reading, Absent), reading
    return reading.cause, reading.detail


def test_without_nixl_it_is_not_tried_and_says_where_to_put_it(attempt: Try, tmp_path: Path) -> None:
    cause, detail = absence(attempt(folder=tmp_path / "nothing"))
    assert cause is Cause.SKIPPED
    assert detail == "NIXL is not installed in the engine's Python, named by WARMSPARE_PYTHON: pip install nixl there"


def test_each_way_to_find_the_engines_python_has_its_words() -> None:
    ways = engine_python._programs({"WARMSPARE_PYTHON": "x", "VIRTUAL_ENV": "x"})  # noqa: SLF001
    assert {named_by for named_by, _ in ways} == set(NAMED)


def test_a_check_that_is_blind_proves_nothing(attempt: Try) -> None:
    cause, detail = absence(attempt("", "result of check gpu1: gives 0"))
    assert (cause, detail) == (Cause.INVALID, "the check kernel did not see a planted fault")


def test_a_gpu_with_hardly_any_free_memory_is_left_alone(attempt: Try) -> None:
    assert absence(attempt("", "memory gpu1: gives 8"))[0] is Cause.SKIPPED


def test_a_python_that_is_not_there_is_not_tried(attempt: Try, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARMSPARE_PYTHON", "/nowhere/python3")
    assert absence(attempt()) == (Cause.SKIPPED, "there is no Python where WARMSPARE_PYTHON says")
