"""What trials on GPUs are given by the readings of a host, and which GPUs are left alone."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import pytest
from msgspec.structs import replace

from warmspare import catalogue
from warmspare.model.facts import Cause, Fact, Known, Outcome, Readings, Standing, fact_name
from warmspare.model.snapshot import Reader
from warmspare.probes.driver import Driver
from warmspare.probes.gpu import GpuIdentity, GpuMemory, GpuProcesses, PcieLink
from warmspare.probes.gpus import Gpus as Inventory
from warmspare.trials.api import NotTried
from warmspare.trials.best_pair import BestPair
from warmspare.trials.given import BUSY_MIB, Gpu, Gpus, May, Pair, Peers, in_the_way, too_risky
from warmspare.trials.gpu_suspend import GpuSuspend
from warmspare.trials.peer_copy import PeerCopy
from warmspare.trials.peer_gather import Hub
from warmspare.trials.suspendable import Move, Suspendable

HOSTS: Final = Path(__file__).parent.parent / "hosts"
READER: Final = Reader(catalogue.facts())
PAIR: Final = "gpu0→gpu1"
DONE: Final = Outcome(kind="done")
COPIED: Final = PeerCopy(outcome=DONE, peer_access=True, path="nvlink", gb_per_s=394.0)


def host(name: str) -> Readings:
    """A recorded host before any copy was tried on it."""
    recorded = READER.read((HOSTS / f"{name}.json").read_bytes()).readings
    return Readings({key: reading for key, reading in recorded.items() if key[0] != fact_name(PeerCopy)})


def plus(readings: Readings, fact: Fact, *subjects: str) -> Readings:
    known = Known(value=fact, standing=Standing.TRIED, at=datetime(2026, 11, 22, tzinfo=UTC))
    return readings.plus({(fact_name(type(fact)), subject): known for subject in subjects})


def changed(readings: Readings, fact: type[Fact], subject: str, **fields: Any) -> Readings:  # noqa: ANN401 # a fact's own
    reading = readings.get(fact, subject)
    assert isinstance(reading, Known)
    return plus(readings, replace(reading.value, **fields), subject)


def test_a_pair_comes_with_what_its_links_can_carry() -> None:
    pair = Pair.of(host("h200-x2"), PAIR)
    assert [gpu.subject for gpu in pair.gpus] == ["gpu0", "gpu1"]
    assert (pair.nvlinks, pair.nvlink_gb_per_s) == (18, 478.116)
    assert pair.pcie_gb_per_s == pytest.approx(63.0, abs=0.1)


def test_what_nobody_told_is_not_known() -> None:
    readings = host("h200-x2").without((fact_name(PcieLink), "gpu1")).without(("pair_topology", PAIR))
    pair = Pair.of(readings, PAIR)
    assert (pair.nvlinks, pair.nvlink_gb_per_s, pair.pcie_gb_per_s) == (None, None, None)
    without_links = Pair.of(host("synthetic-geforce-pair-gns"), PAIR)
    assert (without_links.nvlinks, without_links.nvlink_gb_per_s) == (0, None)


def test_all_gpus_of_a_host_or_the_reason_why_not() -> None:
    assert [gpu.subject for gpu in Gpus.of(host("h200-x4"), "host").gpus] == ["gpu0", "gpu1", "gpu2", "gpu3"]
    with pytest.raises(NotTried) as reason:
        Gpus.of(host("vm-container-no-gpu"), "host")
    assert reason.value.cause is Cause.SKIPPED


def test_what_takes_two_gpus_is_not_tried_with_one() -> None:
    assert len(Peers.of(host("h200-x2"), "host").gpus) == 2
    with pytest.raises(NotTried, match="it takes two GPUs"):
        Peers.of(host("h100"), "host")


def test_all_to_one_takes_those_that_were_seen_to_copy() -> None:
    readings = plus(host("h200-x4"), COPIED, "gpu1→gpu0", "gpu2→gpu0")
    readings = plus(readings, replace(COPIED, peer_access=False, path="staged"), "gpu3→gpu0")
    hub = Hub.of(readings, "gpu0")
    assert (hub.target.subject, [peer.subject for peer in hub.peers]) == ("gpu0", ["gpu1", "gpu2"])
    with pytest.raises(NotTried, match="0 of its peers"):
        Hub.of(readings, "gpu1")


@pytest.mark.parametrize(
    ("processes", "used_mib", "reason"),
    [
        ({"compute": 0, "graphics": 2, "mps": None}, 700, None),  # a desktop
        ({"compute": 1, "graphics": 0, "mps": None}, 0, "gpu1 is in use by 1 process"),
        ({"compute": 0, "graphics": 0, "mps": 3}, 0, "gpu1 is in use by 3 processes"),
        ({"compute": None, "graphics": None, "mps": None}, BUSY_MIB + 1, f"gpu1 has {BUSY_MIB + 1} MiB in use"),
        ({"compute": None, "graphics": None, "mps": None}, None, None),
    ],
)
def test_a_gpu_that_somebody_is_at_work_on_is_left_alone(
    processes: dict[str, Any], used_mib: int | None, reason: str | None
) -> None:
    readings = changed(host("h200-x2"), GpuProcesses, "gpu1", **processes)
    readings = changed(readings, GpuMemory, "gpu1", used_mib=used_mib)
    said = in_the_way(readings, Pair.of(readings, PAIR), May())
    assert said == (reason and f"{reason}: --busy-ok tries it all the same")
    assert in_the_way(readings, Pair.of(readings, PAIR), May(busy_ok=True)) is None
    assert in_the_way(readings, Gpu.of(readings, "gpu0"), May()) is None  # the other is not concerned


def test_what_hung_on_a_gpu_once_is_not_tried_there_again() -> None:
    class Stuck(PeerCopy, frozen=True, kw_only=True):
        """A proof about one GPU."""

    stuck = Stuck(outcome=Outcome(kind="hung", step="copy"))
    readings = plus(host("h200-x2"), stuck, "gpu1")
    assert in_the_way(readings, Pair.of(readings, PAIR), May(busy_ok=True)) == "stuck hung on gpu1"
    assert in_the_way(readings, Gpu.of(readings, "gpu0"), May(busy_ok=True)) is None


def test_state_goes_the_fastest_way_of_a_pair_that_copies_both_ways() -> None:
    readings = plus(host("h200-x4"), COPIED, "gpu1→gpu0", "gpu0→gpu1", "gpu2→gpu3", "gpu0→gpu2")
    readings = plus(readings, replace(COPIED, gb_per_s=395.0), "gpu3→gpu2")
    readings = plus(readings, replace(COPIED, gb_per_s=999.0, path="staged"), "gpu2→gpu0")
    best = BestPair.of(readings, "host")
    assert (best.source.subject, best.target.subject, best.nvlinks) == ("gpu3", "gpu2", 18)


def test_without_a_pair_that_was_seen_to_copy_there_is_none() -> None:
    for readings in (host("h100"), plus(host("h200-x4"), COPIED, PAIR)):  # one way is not enough
        with pytest.raises(NotTried, match="no pair of GPUs has been seen to copy"):
            BestPair.of(readings, "host")


SURVIVED: Final = GpuSuspend(outcome=DONE, bytes_survived=True, mib_freed=256)
LOST: Final = GpuSuspend(outcome=Outcome(kind="refused", step="restore", code="1 CUDA_ERROR_INVALID_VALUE"))


def test_what_is_suspended_further_is_on_a_gpu_where_it_survived() -> None:
    readings = plus(plus(host("h200-x4"), SURVIVED, "gpu1", "gpu3"), LOST, "gpu0")
    assert Suspendable.of(readings, "host").subject == "gpu1"
    for without in (host("h200-x4"), plus(host("h200-x4"), LOST, "gpu0")):
        with pytest.raises(NotTried, match="on no GPU has a process been seen to survive"):
            Suspendable.of(without, "host")


def test_a_process_is_moved_between_gpus_of_one_kind_and_all_are_named() -> None:
    readings = plus(host("h200-x4"), SURVIVED, "gpu0", "gpu1", "gpu3")
    readings = changed(readings, GpuIdentity, "gpu0", name="another kind")
    move = Move.of(readings, "host")
    ids = [Gpu.of(readings, f"gpu{n}").id for n in range(4)]
    assert [gpu.subject for gpu in move.gpus] == ["gpu1", "gpu3"]
    assert move.there == {ids[0]: ids[0], ids[1]: ids[3], ids[2]: ids[2], ids[3]: ids[1]}
    with pytest.raises(NotTried, match="no two GPUs of one kind"):
        Move.of(changed(readings, GpuIdentity, "gpu1", name="a third"), "host")


def test_a_gpu_that_is_known_by_its_address_alone_cannot_be_named_to_the_driver() -> None:
    readings = plus(host("h200-x4"), SURVIVED, "gpu0", "gpu1")
    found = readings.get(Inventory)
    assert isinstance(found, Known)
    readings = changed(readings, Inventory, "host", ids=(*found.value.ids[:3], "0000:04:00.0"))
    with pytest.raises(NotTried, match="the UUID of every GPU must be known"):
        Move.of(readings, "host")


@pytest.mark.parametrize(
    ("version", "module", "said"),
    [
        ("580.159.04", "open", None),
        ("595.71.05", "proprietary", None),
        ("595.71.05", None, "has hung a whole machine on the open kernel module 595.71.05"),
        ("610.1.2", None, None),
        ("595.71.05", "open", "has hung a whole machine on the open kernel module 595.71.05"),
        ("610.1.2", "open", "is not known to be safe on the open kernel module 610.1.2"),
    ],
)
def test_no_process_is_restored_where_its_end_may_hang_the_machine(
    version: str, module: Literal["open", "proprietary"] | None, said: str | None
) -> None:
    readings = plus(host("h100"), Driver(kernel_version=version, module=module), "host")
    why = too_risky(readings, May(busy_ok=True))
    assert why == (said and f"the end of a restored process {said}: --risk-restore tries it all the same")
    assert too_risky(readings, May(risk_restore=True)) is None


def test_what_restores_processes_says_so() -> None:
    """A trial that pulls the driver's restore lever must be marked."""
    for trial in catalogue.trials():
        module = sys.modules[trial.function.__module__]
        pulls = any(name in vars(module) for name in ("Checkpointer", "resume"))
        assert trial.restores == pulls, trial.name


def test_what_rests_on_an_earlier_proof_is_tried_after_it() -> None:
    trials = catalogue.trials()
    order = [proof for trial in trials for proof in trial.proofs]
    later = {trial.name: getattr(trial.given, "RESTS_ON", ()) for trial in trials}
    assert {name for name, rests_on in later.items() if rests_on} == {
        "criugpu_roundtrip", "gpu_move", "nixl_transfer", "peer_gather", "takeover", "workload_matrix",
    }  # fmt: skip
    for trial in trials:
        assert all(order.index(proof) < order.index(trial.proofs[0]) for proof in later[trial.name]), trial.name
