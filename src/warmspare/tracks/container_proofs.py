"""What is asked of containers that were checkpointed and restored. Not a track: `criugpu` notes these."""

from __future__ import annotations

from typing import Final

from warmspare.model.findings import Finding, met, unmet
from warmspare.tracks.shared import broken
from warmspare.trials.container_roundtrip import ContainerGpuRoundtrip, ContainerRoundtrip

REMEDIES: Final = {
    "driver_mounts": "use-cdi",
    "nvidia_hook": "use-cdi",
    "cdi_mounts": "external-mounts",
    "firmware_mount": "external-mounts",
    "no_iptables": "install-iptables",
    "cgroup_restore": "one-cgroup-hierarchy",
    "cgroup_freezer": "one-cgroup-hierarchy",
    "runtime_crashed": "one-cgroup-hierarchy",
    "runtime_without_criu": "runtime-with-criu",
    "no_criu": "install-criu",
    "old_criu": "newer-criu",
    "too_old": "newer-criu",
    "seccomp": "networking-nat",
    "disk_full": "free-disk",
}
"""By the cause that the engine's or CRIU's words show; the others have none that is known to help."""
WENT_ON = (
    "a container went on (checkpoint {checkpoint_s:.2f} s, restore {restore_s:.2f} s; "
    "Podman {podman}, crun {crun}, CRIU {criu})"
)
WITH_GPU = (
    "a container that sees {device} went on (checkpoint {checkpoint_s:.2f} s, restore {restore_s:.2f} s); "
    "it held no CUDA context"
)


def container_survives(proof: ContainerRoundtrip) -> Finding:
    """Tried: a container of root's Podman is checkpointed, seen stopped and restored, and its counter goes on.

    Docker and containerd checkpoint by the same CRIU with other runtimes, and are not tried.

    Remedy: use-cdi
    Remedy: external-mounts
    Remedy: install-iptables
    Remedy: one-cgroup-hierarchy
    Remedy: runtime-with-criu
    Remedy: install-criu
    Remedy: newer-criu
    Remedy: networking-nat
    Remedy: free-disk
    Remedy: run-as-root
    When unknown: install-podman
    Source: podman-container-checkpoint(1); checkpoint-restore/criu#2523, #2630 (rootless Podman cannot).
    """
    return _failed(proof) or met(
        WENT_ON,
        checkpoint_s=proof.checkpoint_s,
        restore_s=proof.restore_s,
        podman=proof.podman,
        crun=proof.crun,
        criu=proof.criu,
    )


def container_with_gpu_survives(proof: ContainerGpuRoundtrip) -> Finding:
    """Tried: the same with a GPU visible by CDI, since the driver's mounts are what CRIU most often refuses.

    Remedy: use-cdi
    Remedy: external-mounts
    Remedy: install-iptables
    Remedy: one-cgroup-hierarchy
    Remedy: runtime-with-criu
    Remedy: install-criu
    Remedy: newer-criu
    Remedy: networking-nat
    Remedy: free-disk
    Remedy: run-as-root
    When unknown: install-container-toolkit
    Source: opencontainers/runc#4522; checkpoint-restore/criu#2672; NVIDIA/nvidia-container-toolkit#834.
    """
    return _failed(proof) or met(
        WITH_GPU, device=proof.device, checkpoint_s=proof.checkpoint_s, restore_s=proof.restore_s
    )


def _failed(proof: ContainerRoundtrip) -> Finding | None:
    failed = broken(proof)
    remedy = REMEDIES.get(proof.outcome.code or "")
    if failed is None or failed.remedy or not remedy:
        return failed
    return unmet(failed.sentence, remedy=remedy, **failed.values)
