"""What the four tracks say of hosts that matter: paper, proofs, and paper refuted by a proof."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
from msgspec.structs import replace

from warmspare import catalogue
from warmspare.judge import judge
from warmspare.model.facts import Fact, Known, Outcome, Readings, Standing, fact_name
from warmspare.model.snapshot import Reader
from warmspare.model.verdicts import Check, State, TrackJudgement, Verdict
from warmspare.probes.cuda import CudaAttributes, CudaLibrary
from warmspare.probes.driver import NvmlLibrary
from warmspare.probes.fabric import Fabric
from warmspare.probes.gpu import ComputeMode, Mig
from warmspare.trials.criu_roundtrip import CriuRoundtrip
from warmspare.trials.gpu_suspend import GpuSuspend
from warmspare.trials.peer_copy import PeerCopy
from warmspare.trials.takeover import Takeover

HOSTS: Final = Path(__file__).parent.parent / "hosts"
TRACKS: Final = catalogue.tracks()
DONE: Final = Outcome(kind="done")


def host(name: str) -> Readings:
    return Reader(catalogue.facts()).read((HOSTS / f"{name}.json").read_bytes()).readings


def tried(fact: Fact, standing: Standing = Standing.TRIED) -> Known[Any]:
    return Known(value=fact, standing=standing, at=datetime(2026, 11, 22, tzinfo=UTC))


def with_proof(readings: Readings, fact: Fact, *subjects: str, standing: Standing = Standing.TRIED) -> Readings:
    return readings.plus({(fact_name(type(fact)), subject): tried(fact, standing) for subject in subjects or ("host",)})


def track(name: str, readings: Readings) -> TrackJudgement:
    return judge(readings, {name: TRACKS[name]}).tracks[0]


def check(judged: TrackJudgement, name: str) -> Check:
    return next(c for layer in judged.layers for c in layer.checks if c.id == name)


PEER: Final = PeerCopy(outcome=DONE, peer_access=True, path="pcie", gb_per_s=24.0)
BOTH_WAYS: Final = ("gpu0→gpu1", "gpu1→gpu0")
TWO_CARDS: Final = "synthetic-wsl2-mirrored-two-gpus"


def test_two_and_four_h200_are_go_and_one_h100_has_its_baseline_decided() -> None:
    two, one = host("h200-x2"), host("h100")
    for several in (two, host("h200-x4")):
        judged = track("local-ha", several)
        assert (judged.state, judged.unproven) == (State(Verdict.GO), ())
    assert (track("baseline", two).state, track("baseline", one).state) == (State(Verdict.GO), State(Verdict.GO))


def test_paper_alone_predicts_no_peer_access_under_wsl2() -> None:
    assert track("local-ha", host(TWO_CARDS)).state == State(Verdict.NO_GO, expected=True)


def test_a_passing_copy_refutes_the_paper_and_leaves_the_takeover_unproven() -> None:
    judged = track("local-ha", with_proof(host(TWO_CARDS), PEER, *BOTH_WAYS))
    assert judged.state == State(Verdict.UNKNOWN)
    assert check(judged, "peer_access_is_documented").role == "refuted"
    assert check(judged, "peer_access_is_documented").state is None


def test_with_the_takeover_too_only_the_missing_nvlink_degrades() -> None:
    readings = with_proof(with_proof(host(TWO_CARDS), PEER, *BOTH_WAYS), Takeover(outcome=DONE, takeover_s=0.02))
    assert track("local-ha", readings).state == State(Verdict.DEGRADED)


@pytest.mark.parametrize(
    ("torn", "unsealed", "verdict", "said"),
    [
        (0, 2, Verdict.DEGRADED, "was read 20.0 ms after the owner was killed"),
        (0, 0, Verdict.DEGRADED, "none of 3 kills came in mid-write"),
        (1, 2, Verdict.NO_GO, "1 versions were sealed on the peer without their bytes"),
    ],
)
def test_a_takeover_is_held_to_what_it_saw(torn: int, unsealed: int, verdict: Verdict, said: str) -> None:
    proof = Takeover(outcome=DONE, takeover_s=0.02, kills=3, unsealed=unsealed, torn=torn)
    judged = track("local-ha", with_proof(with_proof(host(TWO_CARDS), PEER, *BOTH_WAYS), proof))
    assert judged.state == State(verdict)
    text = check(judged, "takeover_is_whole").finding.text
    assert said in text
    assert ("mid-write" in text) == (unsealed == 0)


def test_a_copy_staged_through_the_host_is_no_go() -> None:
    staged = PeerCopy(outcome=DONE, peer_access=False, path="staged", gb_per_s=11.0)
    judged = track("local-ha", with_proof(host(TWO_CARDS), staged, *BOTH_WAYS))
    assert judged.state == State(Verdict.NO_GO)
    assert "multi-GPU works" in check(judged, "peer_copy_arrives").finding.text


def test_one_direction_alone_decides_nothing() -> None:
    judged = track("local-ha", with_proof(host(TWO_CARDS), PEER, BOTH_WAYS[0]))
    assert check(judged, "peer_copy_arrives").state == State(Verdict.NO_GO, expected=True)


def test_no_card_of_nvidias_under_wsl2_is_no_go_and_not_by_paper() -> None:
    assert track("local-ha", host("synthetic-wsl2-amd")).state == State(Verdict.NO_GO)


@pytest.mark.parametrize("name", ["synthetic-wsl2-nat-laptop", "synthetic-wsl2-docker-desktop", "h100"])
def test_one_card_is_no_go_for_want_of_a_second_and_not_by_paper(name: str) -> None:
    judged = track("local-ha", host(name))
    assert judged.state == State(Verdict.NO_GO)
    assert judged.decisive
    assert judged.decisive.id == "two_gpus_are_there"


def test_without_a_gpu_every_track_is_no_go_at_hardware_and_criu_is_still_tried() -> None:
    readings = host("vm-container-no-gpu")
    for name in TRACKS:
        judged = track(name, readings)
        assert (judged.state, judged.breaks_at) == (State(Verdict.NO_GO), "hardware")
    assert check(track("criugpu", readings), "process_survives_on_disk").is_tried


def test_a_gpu_suspend_that_passed_gives_degraded_until_the_disk_cycle_is_proven() -> None:
    proof = GpuSuspend(outcome=DONE, bytes_survived=True, mib_freed=256, suspend_s=0.2, resume_s=0.1)
    readings = host("h100").without(("criugpu_roundtrip", "host"))
    assert track("criugpu", with_proof(readings, proof, "gpu0")).state == State(Verdict.DEGRADED)


@pytest.mark.parametrize("name", ["h100", "h200-x2"])
def test_a_host_that_was_tried_is_go(name: str) -> None:
    judged = track("criugpu", host(name))
    assert judged.state == State(Verdict.GO)
    assert all(check(judged, proof).is_tried for proof in ("vram_survives", "gpu_process_survives_on_disk"))


def test_reported_success_is_no_proof_and_silences_the_paper() -> None:
    proof = GpuSuspend(outcome=DONE, bytes_survived=True, mib_freed=256, suspend_s=0.2, resume_s=0.1)
    judged = track("criugpu", with_proof(host("synthetic-wsl2-nat-laptop"), proof, "gpu0", standing=Standing.REPORTED))
    assert judged.state == State(Verdict.UNKNOWN)
    assert "reported to work" in check(judged, "vram_survives").finding.text


def test_a_restore_that_loses_the_process_is_unmet() -> None:
    lost = GpuSuspend(outcome=Outcome(kind="died", step="restore", code="signal 9"))
    assert track("criugpu", with_proof(host("h100"), lost, "gpu0")).state == State(Verdict.NO_GO)


def test_a_driver_without_the_calls_is_no_go_because_nothing_could_be_tried() -> None:
    judged = track("criugpu", host("synthetic-azure-h100"))
    assert judged.state == State(Verdict.NO_GO)
    assert judged.decisive
    assert judged.decisive.id == "checkpoint_calls_are_there"


def test_an_old_driver_by_its_version_alone_is_paper_against_the_suspend() -> None:
    judged = track("criugpu", host("synthetic-azure-h100").without(("cuda_library", "host")))
    assert judged.state == State(Verdict.NO_GO, expected=True)
    assert "driver_has_checkpoint_api" in [p.id for p in check(judged, "vram_survives").papers if p.role == "speaks"]


def test_a_filter_on_pid_1_is_paper_against_the_disk_cycle_and_a_passing_one_refutes_it() -> None:
    readings = host(TWO_CARDS)
    papers = {p.id: p.role for p in check(track("criugpu", readings), "process_survives_on_disk").papers}
    assert papers["pid1_has_no_filter"] == "speaks"
    passed = with_proof(readings, CriuRoundtrip(outcome=DONE, dump_s=0.1, restore_s=0.1, beats=(10, 20)))
    papers = {p.id: p.role for p in check(track("criugpu", passed), "process_survives_on_disk").papers}
    assert papers["pid1_has_no_filter"] == "refuted"


def test_a_roundtrip_refused_for_want_of_rights_is_undecided_with_the_remedy() -> None:
    refused = CriuRoundtrip(outcome=Outcome(kind="refused", step="dump", code="denied", detail="CRIU needs CAP_…"))
    found = check(track("criugpu", with_proof(host("h100"), refused)), "process_survives_on_disk")
    assert (found.finding.status, found.finding.remedy) == ("undecided", "run-as-root")


def changed(readings: Readings, fact: type[Fact], subject: str, **fields: Any) -> Readings:  # noqa: ANN401 # a fact's own
    """The same host with one fact otherwise."""
    reading = readings.get(fact, subject)
    assert isinstance(reading, Known)
    return readings.plus({(fact_name(fact), subject): tried(replace(reading.value, **fields), Standing.OBSERVED)})


SUSPECTS: Final[dict[str, tuple[type[Fact], str, dict[str, Any]]]] = {
    "one GPU's fabric is not healthy": (Fabric, "gpu3", {"faults": ("degraded bandwidth",)}),
    "one GPU has not joined the fabric": (Fabric, "gpu3", {"state": "in progress"}),
    "NVML is of another version": (NvmlLibrary, "host", {"version": "560.1", "code": "18", "refusal": "mismatch"}),
    "libcuda's name carries another version": (CudaLibrary, "host", {"version": "560.1"}),
    "one GPU may not be used": (ComputeMode, "gpu3", {"mode": "prohibited"}),
    "one GPU has no virtual memory": (CudaAttributes, "gpu3", {"vmm": False}),
}


@pytest.mark.parametrize("suspect", SUSPECTS)
def test_what_could_explain_a_failing_cuinit_predicts_nothing_where_it_succeeds(suspect: str) -> None:
    fact, subject, fields = SUSPECTS[suspect]
    for name in TRACKS:
        before = track(name, host("synthetic-b200-8")).state
        after = track(name, changed(host("synthetic-b200-8"), fact, subject, **fields)).state
        assert after == before == State(Verdict.UNKNOWN), name


def test_with_every_gpu_split_by_mig_neither_peers_nor_a_suspend_are_expected() -> None:
    readings = host("synthetic-b200-8")
    for n in range(8):
        readings = changed(readings, Mig, f"gpu{n}", current="on", pending="on")
    for name in ("local-ha", "criugpu"):
        judged = track(name, readings)
        assert judged.state == State(Verdict.NO_GO, expected=True)
        assert judged.decisive
        assert judged.decisive.finding.remedy == "turn-off-mig"
