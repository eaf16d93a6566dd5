"""Can one GPU take over another's state over NVLink?"""

from __future__ import annotations

from warmspare.model.findings import Finding, met, unmet
from warmspare.model.tracks import Layer, Track
from warmspare.probes.gpus import Gpus
from warmspare.probes.platform import Platform
from warmspare.tracks.copy_requirements import (
    every_pair_copies,
    path_is_nvlink,
    peer_copy_arrives,
    peer_speed_is_known,
    peers_write_at_once,
)
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
from warmspare.tracks.nixl_requirements import nixl_moves_state
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
from warmspare.trials.nccl_allreduce import NcclAllreduce
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


TAKEN_OVER = "a whole version ({state_mib} MiB) was read {takeover_ms:.1f} ms after the owner was killed"
NOT_IN_MID_WRITE = "; none of {kills} kills came in mid-write"
TORN = "{torn} versions were sealed on the peer without their bytes when the owner was killed"


def takeover_is_whole(proof: Takeover) -> Finding:
    """The point of it all: the owner dies in mid-write, and the peer serves a whole, verified version.

    Source: the trial kills the owner and checks every byte on the peer.
    """
    if failed := broken(proof):
        return failed
    if proof.torn:
        return unmet(TORN, torn=proof.torn)
    values = {"state_mib": proof.state_mib, "takeover_ms": (proof.takeover_s or 0.0) * 1e3}
    if proof.unsealed == 0:
        return met(TAKEN_OVER + NOT_IN_MID_WRITE, kills=proof.kills, **values)
    return met(TAKEN_OVER, **values)


RIGHT = "all-reduce right on {ranks} GPUs, {busbw} GB/s busbw by {transport} (NCCL {version})"
CONTRAST = "; {contrast} by {contrast_transport} with P2P off"
ONLY_P2P = "; with P2P off it does not work"
ONLY_WITHOUT = "{kind} at {step} ({code}): {detail}; with P2P off NCCL works, by {contrast_transport}"


def allreduce_is_right(proof: NcclAllreduce) -> Finding:
    """An engine spread over GPUs talks through NCCL; its sums are checked, not only its speed.

    Remedy: nccl-without-p2p
    Source: NVIDIA/nccl-tests counts wrong values likewise; measured: 329 GB/s busbw on two H200s.
    """
    works_without = proof.contrast is not None and proof.contrast.kind == "done"
    if failed := broken(proof):
        if not works_without:
            return failed
        values = {**failed.values, "contrast_transport": proof.contrast_transport}
        return unmet(ONLY_WITHOUT, remedy="nccl-without-p2p", **values)
    values = {
        "ranks": proof.ranks,
        "busbw": _rounded(proof.busbw_gb_per_s),
        "transport": proof.transport,
        "version": proof.version,
    }
    if proof.contrast is None:
        return met(RIGHT, **values)
    if not works_without:
        return met(RIGHT + ONLY_P2P, **values)
    contrast = {"contrast": _rounded(proof.contrast_busbw_gb_per_s), "contrast_transport": proof.contrast_transport}
    return met(RIGHT + CONTRAST, **values, **contrast)


def _rounded(gb_per_s: float | None) -> int | None:
    return None if gb_per_s is None else round(gb_per_s)


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
        Layer.PROOF: [peer_speed_is_known, peers_write_at_once, nixl_moves_state],
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
