"""What is asked of the NVIDIA driver before anything is tried: its libraries, their versions, what they offer."""

from __future__ import annotations

from typing import Final

from warmspare.model.findings import Finding, met, not_applicable, undecided, unmet
from warmspare.model.requirements import Each
from warmspare.probes.cuda import CudaInit, CudaLibrary
from warmspare.probes.driver import Driver, NvmlLibrary
from warmspare.probes.gpu import DriverModel, Persistence
from warmspare.probes.nvml import DRIVER_NOT_LOADED, LIBRARY_NOT_FOUND, MISMATCH, OPERATING_SYSTEM
from warmspare.probes.platform import Platform

INITIALISES = "cuInit succeeds"
FAILS = "cuInit fails: {code} {name}"
NO_LIBRARY = "no libcuda.so.1 was found"
INIT_REMEDIES: Final = {
    34: "use-the-real-libcuda",
    100: "show-cuda-the-gpu",
    304: "leave-tcc",
    802: "start-fabric-manager",
    803: "match-driver-versions",
    804: "drop-compatibility-library",
    805: "restart-mps",
    806: "restart-mps",
    807: "restart-mps",
}
"""By cuInit's code. Source: cuda.h."""


def cuda_initialises(init: CudaInit, platform: Platform) -> Finding:
    """Before a program can use any GPU, CUDA's driver library has to start: the call cuInit, which takes no GPU memory.

    Its code says what is wrong: 802 is an NVLink fabric whose manager does not run (NVML works all the same), 803 a
    library that does not fit the kernel module, 304 an operating system that keeps the card to itself.

    Remedy: start-fabric-manager
    Remedy: match-driver-versions
    Remedy: leave-tcc
    Remedy: show-cuda-the-gpu
    Remedy: use-the-real-libcuda
    Remedy: drop-compatibility-library
    Remedy: restart-mps
    Remedy: reload-driver
    Remedy: restart-wsl
    Remedy: install-driver
    When unknown: reload-driver
    Source: cuda.h; huggingface/huggingface_hub#4134, pytorch/pytorch#35710 (802); microsoft/WSL#11865 (304).
    """
    if init.code is None:
        return undecided(NO_LIBRARY, remedy="install-driver")
    if init.code == 0:
        return met(INITIALISES)
    reload = "restart-wsl" if platform.kind == "wsl2" else "reload-driver"
    remedy = INIT_REMEDIES.get(init.code, reload)
    if remedy == "leave-tcc" and platform.kind != "wsl2":
        remedy = reload
    return unmet(FAILS, code=init.code, name=init.name, remedy=remedy)


WORKS = "NVML {version} works"
NO_NVML = "there is no NVML library (libnvidia-ml.so.1) to ask"
NVML_REMEDIES: Final = {
    MISMATCH: "match-driver-versions",
    DRIVER_NOT_LOADED: "load-driver",
    LIBRARY_NOT_FOUND: "install-driver",
}
"""By NVML's code; 12 is here a library that is there and broken. Source: nvml.h."""
REFUSES = "NVML is there and does not start: code {code} ({refusal})"


def nvml_answers(nvml: NvmlLibrary, platform: Platform) -> Finding:
    """NVML is the library behind nvidia-smi; when it refuses, its code says which part of the driver is at fault.

    17 is "GPU access blocked by the operating system": under WSL2 a card in TCC mode. 18 is a library that does not
    fit the loaded kernel module, as after an upgrade without a restart. 9 is a kernel module that is not loaded.

    Remedy: leave-tcc
    Remedy: match-driver-versions
    Remedy: load-driver
    Remedy: reload-driver
    Remedy: restart-wsl
    Remedy: install-driver
    Source: nvml.h; microsoft/WSL#11865, #14339; NVIDIA's "Driver/library version mismatch".
    """
    if not nvml.found:
        return undecided(NO_NVML, remedy="install-driver")
    if nvml.code is None:
        return met(WORKS, version=nvml.version)
    remedy = NVML_REMEDIES.get(nvml.code, "reload-driver")
    if platform.kind == "wsl2":
        remedy = "leave-tcc" if nvml.code == OPERATING_SYSTEM else "restart-wsl"
    return unmet(REFUSES, code=nvml.code, refusal=nvml.refusal, remedy=remedy)


AGREE = "kernel module and libraries are of one version ({version})"
DISAGREE = "kernel module {kernel}, libcuda {cuda}, NVML {nvml}: they are of different versions"
COMPAT = "libcuda {cuda} is a toolkit's compatibility library over kernel module {kernel}"
NOT_TOLD = "not every part tells its version: nothing documented speaks against it"


def driver_versions_agree(driver: Driver, cuda: CudaLibrary, nvml: NvmlLibrary) -> Finding:
    """The driver's kernel module and its libraries come as one; mixed, calls fail, often with code 803 or 18.

    The usual way there is an upgrade without a restart, or a container that carries a driver library of its own.

    Remedy: match-driver-versions
    Source: cuda.h (803), nvml.h (18); CUDA compatibility guide (libraries under /usr/local/cuda/compat).
    """
    if driver.kernel_version is None or cuda.origin == "wsl":
        return met(NOT_TOLD)
    if cuda.origin == "compatibility" and nvml.version in (None, driver.kernel_version):
        return met(COMPAT, cuda=cuda.version, kernel=driver.kernel_version)
    told = {version for version in (driver.kernel_version, cuda.version, nvml.version) if version}
    if len(told) > 1:
        parts = {"kernel": driver.kernel_version, "cuda": cuda.version, "nvml": nvml.version}
        return unmet(DISAGREE, remedy="match-driver-versions", **parts)
    return met(AGREE, version=driver.kernel_version)


REAL = "libcuda is the driver's own ({path}, CUDA {cuda_version})"
STUB = "libcuda is a toolkit's stub ({path}), made for linking: it can do nothing"


def libcuda_is_real(library: CudaLibrary) -> Finding:
    """A CUDA toolkit ships an empty libcuda for linking; a program that finds that one first sees no GPU.

    Remedy: use-the-real-libcuda
    Remedy: install-driver
    Source: CUDA toolkit, lib64/stubs; under WSL2 the real one is in /usr/lib/wsl/lib.
    """
    if not library.found:
        return undecided(NO_LIBRARY, remedy="install-driver")
    if library.origin == "toolkit stub":
        return unmet(STUB, path=library.path, remedy="use-the-real-libcuda")
    return met(REAL, path=library.path, cuda_version=library.cuda_version)


HAS_CHECKPOINT = "libcuda {version} has all calls of the checkpoint API"
LACKS = "libcuda {version} lacks {missing}"


def checkpoint_calls_are_there(library: CudaLibrary) -> Finding:
    """Freezing a CUDA process is done by calls of the driver's library that came with driver 570 (CUDA 12.8).

    Where they are missing nothing can be tried. Where they are there, only a full cycle shows that they work.

    Remedy: newer-driver
    Remedy: install-driver
    Source: CUDA driver API, group CUDA_CHECKPOINT; NVIDIA/cuda-checkpoint#51 (calls that are there and refuse).
    """
    return _has_calls(library, library.checkpoint_missing, HAS_CHECKPOINT)


def _has_calls(library: CudaLibrary, missing: tuple[str, ...], has: str) -> Finding:
    if not library.found:
        return undecided(NO_LIBRARY, remedy="install-driver")
    # under WSL2 the file's name carries no version
    version = library.version or f"for CUDA {library.cuda_version or 'of an unknown version'}"
    if missing:
        return unmet(LACKS, version=version, missing=missing[:2], remedy="newer-driver")
    return met(has, version=version)


HAS_VMM = "libcuda {version} has all calls of virtual memory management"


def vmm_calls_are_there(library: CudaLibrary) -> Finding:
    """VLLM's Sleep Mode gives GPU memory back and keeps its addresses, by CUDA's virtual memory calls (cuMemMap …).

    Remedy: newer-driver
    Remedy: install-driver
    Source: CUDA driver API, group CUDA_VA; vLLM csrc/cumem_allocator.cpp.
    """
    return _has_calls(library, library.vmm_missing, HAS_VMM)


KEPT = "the driver keeps the GPU initialised (persistence mode)"
NOT_KEPT = "persistence mode is off: the first program to use the GPU waits for it to be initialised"
NO_MODE = "this driver has no persistence mode"


def gpu_stays_initialised(persistence: Each[Persistence]) -> Finding:
    """Without persistence mode an unused GPU is shut down by the driver, and starting or restoring a process waits.

    Remedy: turn-on-persistence
    Source: NVIDIA/cuda-checkpoint README (restore wants an initialised driver); NVIDIA driver persistence guide.
    """
    if persistence.mode == "unsupported":
        return not_applicable(NO_MODE)
    return met(KEPT) if persistence.mode == "on" else unmet(NOT_KEPT, remedy="turn-on-persistence")


MODEL = "Windows driver model {model}"
LINUX = "a Linux driver: it has no driver model"


def gpu_driver_model_is_known(model: Each[DriverModel]) -> Finding:
    """Windows drives a card as WDDM (shared with the desktop), TCC or MCDM (compute only); Linux has no such modes.

    Inside WSL2 only WDDM and MCDM cards can be used.

    Source: nvmlDeviceGetDriverModel; microsoft/WSL#11865, #13027.
    """
    return met(LINUX) if model.current is None else met(MODEL, model=model.current.upper())
