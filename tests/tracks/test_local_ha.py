"""What is said of an all-reduce: right, wrong, and what peer-to-peer has to do with it."""

from __future__ import annotations

from msgspec.structs import replace

from warmspare.model.facts import Outcome
from warmspare.tracks.local_ha import allreduce_is_right
from warmspare.trials.nccl_allreduce import NcclAllreduce

DONE = Outcome(kind="done")
HUNG = Outcome(kind="hung", step="make communicators, as it is", detail="no answer within 20 s")
RIGHT = NcclAllreduce(
    outcome=DONE, ranks=2, busbw_gb_per_s=329.4, transport="P2P/CUMEM", version="2.28.9", contrast=DONE,
    contrast_busbw_gb_per_s=27.2, contrast_transport="SHM/direct",
)  # fmt: skip
SAID = "all-reduce right on 2 GPUs, 329 GB/s busbw by P2P/CUMEM (NCCL 2.28.9)"


def said(proof: NcclAllreduce) -> tuple[str, str | None, str]:
    finding = allreduce_is_right(proof)
    finding.check()
    return str(finding.status), finding.remedy, finding.text


def test_right_with_and_without_the_contrast() -> None:
    assert said(RIGHT) == ("met", None, f"{SAID}; 27 by SHM/direct with P2P off")
    assert said(replace(RIGHT, contrast=HUNG)) == ("met", None, f"{SAID}; with P2P off it does not work")
    assert said(replace(RIGHT, contrast=None)) == ("met", None, SAID)
    assert said(NcclAllreduce(outcome=DONE))[0] == "met"


def test_what_works_only_without_p2p_has_a_remedy() -> None:
    text = "hung at make communicators, as it is (no code): no answer within 20 s"
    broken = NcclAllreduce(outcome=HUNG, contrast=DONE, contrast_transport="SHM/direct")
    assert said(broken) == ("unmet", "nccl-without-p2p", f"{text}; with P2P off NCCL works, by SHM/direct")
    assert said(replace(broken, contrast=HUNG)) == ("unmet", None, text)
    assert said(replace(broken, contrast=None)) == ("unmet", None, text)
