"""What a container that went on, or did not, comes to in a report."""

from __future__ import annotations

import typing

import pytest

from warmspare.model.container_log import ContainerCause
from warmspare.model.facts import Outcome
from warmspare.tracks.container_proofs import REMEDIES, container_survives, container_with_gpu_survives
from warmspare.trials.container_roundtrip import ContainerGpuRoundtrip, ContainerRoundtrip

DONE = Outcome(kind="done")


def refused(code: str) -> ContainerRoundtrip:
    return ContainerRoundtrip(outcome=Outcome(kind="refused", step="checkpoint", code=code, detail="a line"))


def test_a_container_that_went_on_is_met() -> None:
    proof = ContainerRoundtrip(
        outcome=DONE, podman="5.4.2", crun="1.21", criu="4.1.1", checkpoint_s=0.3, restore_s=0.2, beats=(10, 15)
    )
    assert container_survives(proof).status == "met"


def test_one_with_a_gpu_says_that_it_held_no_context() -> None:
    proof = ContainerGpuRoundtrip(outcome=DONE, device="nvidia.com/gpu=0", checkpoint_s=0.3, restore_s=0.2)
    found = container_with_gpu_survives(proof)
    assert found.status == "met"
    assert "no CUDA context" in found.sentence


@pytest.mark.parametrize(
    ("code", "status", "remedy"),
    [
        ("driver_mounts", "unmet", "use-cdi"),
        ("cdi_mounts", "unmet", "external-mounts"),
        ("no_iptables", "unmet", "install-iptables"),
        ("denied", "undecided", "run-as-root"),
        ("see_criu_log", "unmet", None),
        ("status 125", "unmet", None),
    ],
)
def test_a_cause_has_its_remedy(code: str, status: str, remedy: str | None) -> None:
    found = container_survives(refused(code))
    assert (found.status, found.remedy) == (status, remedy)


def test_remedies_are_for_causes_that_there_are() -> None:
    ours = set(typing.get_args(ContainerCause))
    assert set(REMEDIES) - ours == {"too_old", "seccomp", "disk_full"}
