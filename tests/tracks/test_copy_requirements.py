"""What the requirements on tried copies say, branch by branch."""

from __future__ import annotations

from typing import Final

from hand_made import Row, holds, not_shown, table
from msgspec.structs import replace

from warmspare.model.facts import Outcome
from warmspare.tracks import copy_requirements as copies
from warmspare.trials.peer_copy import PeerCopy
from warmspare.trials.peer_gather import PeerGather

MET, UNMET, UNDECIDED = "met", "unmet", "undecided"
DONE: Final = Outcome(kind="done")
NVLINK: Final = PeerCopy(
    outcome=DONE, peer_access=True, path="nvlink", path_by="counters", gb_per_s=394.4, both_ways_gb_per_s=740.1,
    store_gb_per_s=369.3, latency_s=8.52e-07, link_gb_per_s=478.1,
)  # fmt: skip
SLOWER: Final = replace(NVLINK, gb_per_s=394.1)
PCIE: Final = replace(NVLINK, path="pcie", path_by="stores", gb_per_s=26.0, link_gb_per_s=None)
STAGED: Final = PeerCopy(
    outcome=DONE, peer_access=False, path="staged", gb_per_s=11.3, refusal="217 CUDA_ERROR_PEER_ACCESS_UNSUPPORTED"
)
PRETENDED: Final = replace(PCIE, path="staged", gb_per_s=20.0)
PATHLESS: Final = replace(NVLINK, path=None, path_by=None)
LOST: Final = PeerCopy(
    outcome=Outcome(
        kind="wrong", step="check the copy on the second GPU", detail="no byte arrived, the first at byte 0"
    )
)
HUNG: Final = PeerCopy(outcome=Outcome(kind="hung", step="copy", detail="no end within 60 s"))

BOTH: Final = ("gpu0→gpu1", "gpu1→gpu0")
ROWS: Final = (
    Row(copies.peer_copy_arrives, ({BOTH[0]: NVLINK, BOTH[1]: SLOWER},), MET, None, "(nvlink, 394 GB/s)"),
    Row(copies.peer_copy_arrives, (PCIE,), MET, None, "(pcie, 26 GB/s)"),
    Row(copies.peer_copy_arrives, (STAGED,), UNMET, "allow-p2p", "(11 GB/s; 217 CUDA_ERROR_PEER_ACCESS_UNSUPPORTED)"),
    Row(copies.peer_copy_arrives, (PRETENDED,), UNMET, "allow-p2p", "only staged through the host (20 GB/s)"),
    Row(copies.peer_copy_arrives, ({BOTH[0]: NVLINK, BOTH[1]: LOST},), UNMET, None, "no byte arrived"),
    Row(copies.peer_copy_arrives, (HUNG,), UNMET, None, "hung at copy"),
    Row(copies.path_is_nvlink, ({BOTH[0]: NVLINK, BOTH[1]: SLOWER},), MET, None, "NVLink, 394 GB/s one way"),
    Row(copies.path_is_nvlink, (PCIE,), UNMET, "add-nvlink-bridge", "the path is pcie"),
    Row(copies.path_is_nvlink, (PATHLESS,), UNDECIDED, None, "does not say by which path"),
    Row(copies.path_is_nvlink, (LOST,), UNMET, None, "no byte arrived"),
    Row(copies.peer_speed_is_known, (NVLINK,), MET, None, "394 and 394 GB/s one way, of 478 raw, 740 GB/s both ways"),
    Row(copies.peer_speed_is_known, (PCIE,), MET, None, "26 and 26 GB/s one way, 740 GB/s both ways at once, 369"),
    Row(copies.peer_speed_is_known, (LOST,), UNMET, None, "no byte arrived"),
    Row(copies.peers_write_at_once, (PeerGather(outcome=DONE, gb_per_s=392.7, peers=3),), MET, None, "3 peers write"),
    Row(copies.peers_write_at_once, (PeerGather(outcome=HUNG.outcome),), UNMET, None, "hung at copy"),
    Row(copies.every_pair_copies, (NVLINK,), MET, None, "every pair copies"),
    Row(copies.every_pair_copies, (STAGED,), UNMET, "allow-p2p", "only staged"),
    Row(copies.every_pair_copies, ({BOTH[0]: LOST, BOTH[1]: NVLINK},), UNMET, None, "no byte arrived"),
)  # fmt: skip


@table(*ROWS)
def test_a_requirement_says(row: Row) -> None:
    assert holds(row)


def test_every_requirement_and_remedy_is_shown() -> None:
    assert not_shown(ROWS, copies) == {}
