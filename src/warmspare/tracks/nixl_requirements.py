"""What is asked of NIXL once it was tried between two GPUs."""

from __future__ import annotations

from warmspare.model.findings import Finding, met
from warmspare.tracks.shared import broken
from warmspare.trials.nixl_transfer import NixlTransfer

MOVED = (
    "NIXL {version} moved the bytes {pair} right: WRITE {write_gb_per_s:.0f} GB/s ({transport_write}),"
    " READ {read_gb_per_s:.0f} GB/s ({transport_read}){way}"
)
BEYOND = ", faster than PCIe can carry"
UNNAMED = "by what, UCX did not say"
NO_VERSION = "of unknown version"


def nixl_moves_state(proof: NixlTransfer) -> Finding:
    """NIXL may say DONE of a transfer that went by TCP: the way is told by UCX's protocol tables and by the speed.

    Source: ai-dynamo/nixl#1097 (without NVLink UCX reads by TCP), #1195 (a network card taken within one host).
    """
    return broken(proof) or met(
        MOVED,
        version=proof.version or NO_VERSION,
        pair=proof.pair,
        write_gb_per_s=proof.write_gb_per_s,
        transport_write=proof.transport_write or UNNAMED,
        read_gb_per_s=proof.read_gb_per_s,
        transport_read=proof.transport_read or UNNAMED,
        way=BEYOND if proof.beyond_pcie else "",
    )
