"""Requirements that several tracks share, and the ways all of them speak of abilities and proofs."""

from __future__ import annotations

from typing import Final

from warmspare.model.facts import Cause, Proof
from warmspare.model.findings import Finding, met, undecided, unmet
from warmspare.probes.cuda import CudaLibrary
from warmspare.probes.driver import Driver
from warmspare.probes.gpus import Gpus
from warmspare.probes.kernel import Ability
from warmspare.probes.platform import Container, Platform, WindowsDriver
from warmspare.probes.privileges import Memlock, MemoryLimit, Seccomp

REFUSED_US: Final = frozenset({"EPERM", "EACCES"})

HAS = "the kernel can do it"
REFUSED = "the kernel refused us ({errno}): as root, outside a container's filter, it may answer otherwise"
HAS_NOT = "the kernel cannot do it ({errno})"
FILTERED = "the answer is {errno}, and a seccomp filter is on us: the kernel may well be able to"
BROKE = "{kind} at {step} ({code}): {detail}"
NEEDS_ROOT = "refused at {step} for want of rights: {detail}"
FULL = "the GPU had no memory left at {step} ({call}): nothing is said of the technique"
OUT_OF_MEMORY: Final = "2 CUDA_ERROR_OUT_OF_MEMORY"
OTHER_MEMORY: Final = frozenset({"cuMemHostAlloc", "cuMemAddressReserve", "cuCheckpointProcessCheckpoint"})
"""Calls that are so refused for want of something else: host memory, addresses."""
PID_TAKEN = "another process had taken the pid: try again ({detail})"


def ability(found: Ability, seccomp: Seccomp) -> Finding:
    """An ability of the kernel: a refusal by rights or by a filter says nothing about the kernel."""
    if found.works:
        return met(HAS)
    if seccomp.mode and found.errno == "ENOSYS":
        return undecided(FILTERED, errno=found.errno, cause=Cause.DENIED, remedy="run-as-root")
    if found.errno in REFUSED_US:
        return undecided(REFUSED, errno=found.errno, cause=Cause.DENIED, remedy="run-as-root")
    return unmet(HAS_NOT, errno=found.errno or found.detail, remedy="newer-kernel")


def broken(proof: Proof) -> Finding | None:
    """What a proof's outcome says when it is not `done`; for lack of rights or of a GPU's memory it is undecided."""
    outcome = proof.outcome
    if outcome.kind == "done":
        return None
    if outcome.kind == "refused" and outcome.code == "denied":
        return undecided(NEEDS_ROOT, step=outcome.step, detail=outcome.detail, cause=Cause.DENIED, remedy="run-as-root")
    of_a_gpu = outcome.detail.startswith("cu") and outcome.detail not in OTHER_MEMORY
    if outcome.kind == "refused" and outcome.code == OUT_OF_MEMORY and of_a_gpu:
        return undecided(FULL, step=outcome.step, call=outcome.detail, cause=Cause.SKIPPED)
    if outcome.kind == "refused" and outcome.code == "pid_taken":
        return undecided(PID_TAKEN, detail=outcome.detail, cause=Cause.CRASHED)
    return unmet(
        BROKE,
        kind=outcome.kind,
        step=outcome.step or "the end",
        code=outcome.code or "no code",
        detail=outcome.detail,
    )


NO_OBJECTION = "nothing documented speaks against it"


def not_under_wsl2(platform: Platform, paper: str) -> Finding:
    """What `paper` documents against a technique under WSL2; elsewhere nothing documented is against it."""
    return unmet(paper, remedy="native-linux") if platform.kind == "wsl2" else met(NO_OBJECTION)


GPUS = "NVIDIA GPUs: {count} ({sources})"
NO_GPU = "no NVIDIA GPU was found"
NOT_NVIDIA = "the GPU here is not NVIDIA's ({vendors}): none of these techniques is for it"
VENDORS: Final = {"amd": "AMD", "intel": "Intel", "other": "another maker"}


def gpu_is_there(gpus: Gpus) -> Finding:
    """Every technique here brings back state that lives on an NVIDIA GPU.

    Remedy: get-a-gpu
    Source: PCI class and vendor ids, NVML, the CUDA driver API and device files, merged.
    """
    sources = tuple(f"{source}: {count}" for source, count in sorted(gpus.seen.items()))
    if gpus.count == 0 and gpus.instead:
        return unmet(NOT_NVIDIA, vendors=tuple(VENDORS[vendor] for vendor in gpus.instead), remedy="get-a-gpu")
    if gpus.count == 0:
        return unmet(NO_GPU, remedy="get-a-gpu")
    return met(GPUS, count=gpus.count, sources=sources)


DRIVER = "driver {version}{module}"
NO_DRIVER = "no NVIDIA driver answers here"
NO_LIBRARY = "driver {version} is loaded, and its library libcuda.so.1 cannot be"


NO_VERSION = "libcuda {version} is there, and nothing tells the driver's version"


def driver_is_there(driver: Driver, library: CudaLibrary) -> Finding:
    """CUDA, and all that builds on it, goes through the driver's library and its kernel part.

    Remedy: install-driver
    Remedy: give-container-the-gpu
    Source: /proc/driver/nvidia/version, nvmlSystemGetDriverVersion, dlopen of libcuda.so.1.
    """
    if driver.kernel_version is None and not library.found:
        return undecided(NO_DRIVER, remedy="install-driver")
    if not library.found:
        return undecided(NO_LIBRARY, version=driver.kernel_version, remedy="give-container-the-gpu")
    if driver.kernel_version is None:
        return met(NO_VERSION, version=library.version)
    return met(DRIVER, version=driver.kernel_version, module=f" ({driver.module} module)" if driver.module else "")


PLATFORM = "{kind}{hypervisor}{container}"


def platform_is_named(platform: Platform, container: Container) -> Finding:
    """What the other findings must be read against: a guest or a container sees only what it is given.

    Source: /proc, /sys and the traces that hypervisors and container engines leave; two signals for WSL2.
    """
    return met(
        PLATFORM,
        kind=platform.kind,
        hypervisor=f" on {platform.hypervisor}" if platform.hypervisor else "",
        container=f", in a container ({container.engine})" if container.inside else "",
    )


MODELS = "Windows driver models: {models}"
NOT_WINDOWS = "the driver is Linux's own"


def driver_model_is_known(windows: WindowsDriver) -> Finding:
    """Under WSL2 the driver is the Windows host's; a card in TCC mode is not seen from inside.

    Source: microsoft/WSL#11865, #13027; nvidia-smi.exe -q on the host.
    """
    return met(MODELS, models=windows.models) if windows.models else met(NOT_WINDOWS)


LIMITED = "the cgroup limits memory to {limit_mib} MiB ({path})"
UNLIMITED = "no cgroup limits memory"


def memory_is_not_limited(limit: MemoryLimit) -> Finding:
    """VRAM that is saved to host memory is charged to the process's cgroup, and may get it killed there.

    Remedy: raise-memory-limit
    Source: measured by VivianSobers/gpunap: killed in mid-checkpoint under memory.max.
    """
    if limit.limit_mib is None:
        return met(UNLIMITED)
    return unmet(LIMITED, limit_mib=limit.limit_mib, path=limit.path, remedy="raise-memory-limit")


LOCKED = "at most {limit_kib} KiB may be locked"
LOCKS = "any amount may be locked"


def memory_may_be_locked(memlock: Memlock) -> Finding:
    """RDMA registrations and some drivers' pinned buffers are charged to this limit.

    Remedy: raise-memlock
    Source: getrlimit(2), RLIMIT_MEMLOCK.
    """
    if memlock.limit_kib is None:
        return met(LOCKS)
    return unmet(LOCKED, limit_kib=memlock.limit_kib, remedy="raise-memlock")
