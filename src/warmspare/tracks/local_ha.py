"""Can one GPU take over another's state over NVLink?"""

from __future__ import annotations

from warmspare.model.facts import Both
from warmspare.model.findings import Finding, met, undecided, unmet
from warmspare.model.requirements import Each, Some
from warmspare.model.tracks import Layer, Track
from warmspare.probes.gpus import Gpus
from warmspare.probes.platform import Platform
from warmspare.tracks.cuda_requirements import gpu_lets_network_cards_in
from warmspare.tracks.driver_requirements import cuda_initialises
from warmspare.tracks.engine_requirements import (
    engine_python_is_known,
    nccl_copies_are_known,
    nccl_fits_torch,
    nccl_is_there,
    nixl_is_there,
    ucx_is_known,
)
from warmspare.tracks.gpu_requirements import (
    a_whole_gpu_is_left,
    every_gpu_answers,
    gpu_access_is_known,
    gpu_is_whole,
)
from warmspare.tracks.host_requirements import (
    bridges_let_peers_talk,
    gpudirect_is_possible,
    iommu_lets_peers_talk,
    rdma_is_known,
    shared_memory_is_roomy,
)
from warmspare.tracks.peer_requirements import (
    a_pair_is_joined_by_nvlink,
    driver_grants_peer_access,
    every_pair_is_granted,
    fabric_is_ready,
    nvlink_is_described,
    nvlink_speed_is_known,
    nvlinks_are_up,
    switches_are_known,
    way_between_gpus_is_known,
)
from warmspare.tracks.shared import broken, driver_is_there, gpu_is_there, not_under_wsl2, platform_is_named
from warmspare.trials.awaited import NcclAllreduce, PeerCopy
from warmspare.trials.takeover import Takeover

TWO = "{count} GPUs: {pairs} pairs"
ONE_ONLY = "a peer that takes over is a second GPU, and this machine has {count}"


def two_gpus_are_there(gpus: Gpus) -> Finding:
    """State is kept on a second GPU of the same host; with one there is no peer.

    Remedy: get-a-second-gpu
    Source: counted by PCI, NVML and CUDA.
    """
    if gpus.count < 2:  # noqa: PLR2004 # a pair
        return unmet(ONE_ONLY, count=gpus.count, remedy="get-a-second-gpu")
    return met(TWO, count=gpus.count, pairs=gpus.count * (gpus.count - 1) // 2)


ARRIVED = "bytes arrived both ways by peer access ({path}, {gb_per_s:.0f} GB/s)"
STAGED = "bytes arrived only staged through the host: multi-GPU works, taking over at link speed does not"


def _not_by_peer_access(copies: Both[PeerCopy]) -> Finding | None:
    for copy in (copies.there, copies.back):
        if failed := broken(copy):
            return failed
        if not copy.peer_access or copy.path == "staged":
            return unmet(STAGED, remedy="allow-p2p")
    return None


def peer_copy_arrives(copies: Some[Both[PeerCopy]]) -> Finding:
    """A copy that "succeeds" may be staged through the host, or not arrive at all: the destination checks.

    Remedy: allow-p2p
    Source: NVIDIA/nccl#2335 (mirror), NVIDIA/open-gpu-kernel-modules#1257 (silent corruption).
    """
    if failed := _not_by_peer_access(copies):
        return failed
    slowest = min(copies.there.gb_per_s or 0.0, copies.back.gb_per_s or 0.0)
    return met(ARRIVED, path=copies.there.path, gb_per_s=slowest)


TAKEN_OVER = "a whole version was read {takeover_s:.3f} s after the owner was killed"


def takeover_is_whole(proof: Takeover) -> Finding:
    """The point of it all: the owner dies in mid-write, and the peer serves a whole, verified version.

    Source: the trial kills the owner and checks every byte on the peer.
    """
    return broken(proof) or met(TAKEN_OVER, takeover_s=proof.takeover_s)


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
    if other := next((c.path for c in (copies.there, copies.back) if c.path != "nvlink"), None):
        return unmet(BY_OTHER, path=other, remedy="add-nvlink-bridge")
    if slower.path is None:
        return undecided(NO_PATH)
    return met(BY_NVLINK, gb_per_s=slower.gb_per_s)


EVERY = "every pair copies"


def every_pair_copies(copies: Each[Both[PeerCopy]]) -> Finding:
    """One bad pair is a peer that must not be chosen: per-port state lies, so each pair is tried.

    Remedy: allow-p2p
    Source: ggml-org/llama.cpp#2470; leptonai/gpud asks pair by pair for the same reason.
    """
    if failed := _not_by_peer_access(copies):
        return failed
    return met(EVERY)


RIGHT = "all-reduce right, {busbw:.0f} GB/s busbw"


def allreduce_is_right(proof: NcclAllreduce) -> Finding:
    """An engine spread over GPUs talks through NCCL; its sums are checked, not only its speed.

    Source: NVIDIA/nccl-tests counts wrong values likewise; measured: 329 GB/s busbw on two H200s.
    """
    return broken(proof) or met(RIGHT, busbw=proof.busbw_gb_per_s)


WSL2_P2P = "no published run shows peer access inside WSL2 (an unproven negative: a trial may overturn it)"
WSL2_NVLINK = "no published run shows NVLink inside WSL2, and two owners of working bridges see none there"


def peer_access_is_documented(platform: Platform) -> Finding:
    """Paper: GPU-PV is not known to give one card access to another.

    Remedy: native-linux
    Source: microsoft/WSL#6587; vllm-project/vllm#5161 (the P2P check hangs there).
    """
    return not_under_wsl2(platform, WSL2_P2P)


def nvlink_is_documented(platform: Platform) -> Finding:
    """Paper: neither vendor mentions NVLink under WSL2; silence alone would prove nothing.

    Remedy: native-linux
    Source: microsoft/WSL#6587; weicj/vLLM-2080Ti-Definitive#114.
    """
    return not_under_wsl2(platform, WSL2_NVLINK)


TRACK = Track(
    needs={
        Layer.HARDWARE: [gpu_is_there, two_gpus_are_there],
        Layer.PROOF: [peer_copy_arrives, takeover_is_whole],
    },
    wants={
        Layer.HARDWARE: [every_gpu_answers, nvlinks_are_up],
        Layer.PROOF: [path_is_nvlink, every_pair_copies, allreduce_is_right],
    },
    notes={
        Layer.HARDWARE: [
            way_between_gpus_is_known,
            nvlink_speed_is_known,
            nvlink_is_described,
            switches_are_known,
            rdma_is_known,
        ],
        Layer.PLATFORM: [platform_is_named, gpu_access_is_known],
        Layer.KERNEL: [gpudirect_is_possible],
        Layer.DRIVER: [gpu_lets_network_cards_in],
        Layer.ENGINE: [engine_python_is_known, nccl_copies_are_known, nixl_is_there, ucx_is_known],
    },
    expects={
        peer_copy_arrives: {
            Layer.PLATFORM: [peer_access_is_documented, iommu_lets_peers_talk, bridges_let_peers_talk],
            Layer.DRIVER: [driver_is_there, cuda_initialises, a_whole_gpu_is_left, driver_grants_peer_access],
        },
        path_is_nvlink: {
            Layer.PLATFORM: [nvlink_is_documented],
            Layer.HARDWARE: [a_pair_is_joined_by_nvlink],
        },
        every_pair_copies: {Layer.DRIVER: [fabric_is_ready, every_pair_is_granted], Layer.HARDWARE: [gpu_is_whole]},
        allreduce_is_right: {
            Layer.PRIVILEGES: [shared_memory_is_roomy],
            Layer.ENGINE: [nccl_is_there, nccl_fits_torch],
        },
    },
    gates={
        gpu_is_there: [Layer.DRIVER, Layer.ENGINE, Layer.PROOF],
        two_gpus_are_there: [Layer.PROOF],
    },
)
