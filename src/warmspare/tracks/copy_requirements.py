"""What is asked of the copies between two GPUs once they were tried: that they arrive, by which way, how fast."""

from __future__ import annotations

from warmspare.model.facts import Both
from warmspare.model.findings import Finding, met, undecided, unmet
from warmspare.model.requirements import Each, Some
from warmspare.tracks.shared import broken
from warmspare.trials.peer_copy import PeerCopy
from warmspare.trials.peer_gather import PeerGather

ARRIVED = "bytes arrived both ways by peer access ({path}, {gb_per_s:.0f} GB/s)"
UNTOLD = "by which path, nothing tells"
STAGED = (
    "bytes arrived only staged through the host ({gb_per_s:.0f} GB/s{refusal}):"
    " multi-GPU works, taking over at link speed does not"
)


def _not_by_peer_access(copies: Both[PeerCopy]) -> Finding | None:
    for copy in (copies.there, copies.back):
        if failed := broken(copy):
            return failed
        if not copy.peer_access or copy.path == "staged":
            refusal = f"; {copy.refusal}" if copy.refusal else ""
            return unmet(STAGED, gb_per_s=copy.gb_per_s or 0.0, refusal=refusal, remedy="allow-p2p")
    return None


def peer_copy_arrives(copies: Some[Both[PeerCopy]]) -> Finding:
    """A copy that "succeeds" may be staged through the host, or not arrive at all: the destination checks.

    Remedy: allow-p2p
    Source: NVIDIA/nccl#2335 (mirror), NVIDIA/open-gpu-kernel-modules#1257 (silent corruption).
    """
    if failed := _not_by_peer_access(copies):
        return failed
    slowest = min(copies.there.gb_per_s or 0.0, copies.back.gb_per_s or 0.0)
    return met(ARRIVED, path=copies.there.path or UNTOLD, gb_per_s=slowest)


BY_NVLINK = "NVLink, {gb_per_s:.0f} GB/s one way"
BY_OTHER = "the path is {path}, not NVLink"
NO_PATH = "the copy does not say by which path it went"


def path_is_nvlink(copies: Some[Both[PeerCopy]]) -> Finding:
    """NVLink is what makes keeping a second copy cheap; PCIe peer access works, and is slower.

    Remedy: add-nvlink-bridge
    Source: measured: 394.6 GB/s one way between two H200s; PCIe 5 x16 can carry 63.
    """
    for copy in (copies.there, copies.back):
        if failed := broken(copy):
            return failed
    slower = min((copies.there, copies.back), key=lambda copy: copy.gb_per_s or 0.0)
    paths = (copies.there.path, copies.back.path)
    if other := next((path for path in paths if path not in ("nvlink", None)), None):
        return unmet(BY_OTHER, path=other, remedy="add-nvlink-bridge")
    if None in paths:
        return undecided(NO_PATH)
    return met(BY_NVLINK, gb_per_s=slower.gb_per_s)


SPEEDS = (
    "{there:.0f} and {back:.0f} GB/s one way{links}, {both_ways:.0f} GB/s both ways at once,"
    " {stores:.0f} GB/s by the GPU's own stores, {latency_us:.2f} us for one load"
)
OF_LINKS = ", of {link:.0f} raw"


def peer_speed_is_known(copies: Each[Both[PeerCopy]]) -> Finding:
    """What a second copy of the state costs: it is written at this speed, beside the engine's own traffic.

    Source: the trial; NVLink's raw speed is about 6 % above what data can use, and copies reach some 83 % of it.
    """
    there, back = copies.there, copies.back
    if failed := broken(there) or broken(back):
        return failed
    return met(
        SPEEDS,
        there=there.gb_per_s or 0.0,
        back=back.gb_per_s or 0.0,
        links=OF_LINKS.format(link=there.link_gb_per_s) if there.link_gb_per_s else "",
        both_ways=there.both_ways_gb_per_s or 0.0,
        stores=there.store_gb_per_s or 0.0,
        latency_us=(there.latency_s or 0.0) * 1e6,
    )


GATHERED = "{peers} peers write to it at once with {gb_per_s:.0f} GB/s together"


def peers_write_at_once(gather: Each[PeerGather]) -> Finding:
    """Several owners may keep their second copies on one spare GPU: what its links carry in all.

    Source: the trial; nvbandwidth measures the like as all_to_one.
    """
    return broken(gather) or met(GATHERED, peers=gather.peers, gb_per_s=gather.gb_per_s)


EVERY = "every pair copies"


def every_pair_copies(copies: Each[Both[PeerCopy]]) -> Finding:
    """One bad pair is a peer that must not be chosen: per-port state lies, so each pair is tried.

    Remedy: allow-p2p
    Source: ggml-org/llama.cpp#2470; leptonai/gpud asks pair by pair for the same reason.
    """
    if failed := _not_by_peer_access(copies):
        return failed
    return met(EVERY)
