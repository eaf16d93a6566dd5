"""What the requirement on tried transfers by NIXL says, branch by branch."""

from __future__ import annotations

from typing import Final

from hand_made import Row, holds, not_shown, table
from msgspec.structs import replace

from warmspare.model.facts import Outcome
from warmspare.tracks import nixl_requirements as nixl
from warmspare.trials.nixl_transfer import NixlTransfer

MET, UNMET = "met", "unmet"
MOVED: Final = NixlTransfer(
    outcome=Outcome(kind="done"), pair="gpu0→gpu1", package="nixl", version="1.5.1", backend="UCX",
    write_gb_per_s=388.2, read_gb_per_s=387.6, transport_write="zero-copy over cuda_ipc",
    transport_read="zero-copy over cuda_ipc", beyond_pcie=True, size_mib=256,
)  # fmt: skip
BY_TCP: Final = replace(
    MOVED, read_gb_per_s=1.8, transport_read="software emulation over tcp", beyond_pcie=False, version=None
)
UNTOLD: Final = replace(MOVED, transport_write=None, transport_read=None, beyond_pcie=None)
NOWHERE: Final = NixlTransfer(
    outcome=Outcome(
        kind="wrong", step="check the WRITE on the second GPU", detail="NIXL said DONE, and no byte arrived"
    )
)
RAISED: Final = NixlTransfer(outcome=Outcome(kind="refused", step="make agents", code="nixlBackendError"))

ROWS: Final = (
    Row(nixl.nixl_moves_state, (MOVED,), MET, None, "NIXL 1.5.1 moved the bytes gpu0→gpu1 right: WRITE 388 GB/s (zero"),
    Row(nixl.nixl_moves_state, (MOVED,), MET, None, "READ 388 GB/s (zero-copy over cuda_ipc), faster than PCIe can"),
    Row(nixl.nixl_moves_state, (BY_TCP,), MET, None, "READ 2 GB/s (software emulation over tcp)"),
    Row(nixl.nixl_moves_state, (BY_TCP,), MET, None, "NIXL of unknown version"),
    Row(nixl.nixl_moves_state, (UNTOLD,), MET, None, "WRITE 388 GB/s (by what, UCX did not say)"),
    Row(nixl.nixl_moves_state, (NOWHERE,), UNMET, None, "wrong at check the WRITE on the second GPU"),
    Row(nixl.nixl_moves_state, (RAISED,), UNMET, None, "refused at make agents (nixlBackendError)"),
)


@table(*ROWS)
def test_a_requirement_says(row: Row) -> None:
    assert holds(row)


def test_only_what_is_beyond_pcie_is_said_to_be() -> None:
    assert not any(
        "faster" in nixl.nixl_moves_state(proof).text for proof in (BY_TCP, UNTOLD, replace(MOVED, beyond_pcie=False))
    )


def test_every_requirement_and_remedy_is_shown() -> None:
    assert not_shown(ROWS, nixl) == {}
