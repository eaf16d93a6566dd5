"""What is asked of the software that an engine brings: vLLM, torch, NCCL, NIXL, UCX."""

from __future__ import annotations

import re
from typing import Final

from warmspare.model.findings import Finding, met, not_applicable, undecided, unmet
from warmspare.model.requirements import unless
from warmspare.probes.platform import Platform
from warmspare.probes.software import EnginePython, NcclLibraries, NcclLoaded, Nixl, PythonPackages, Ucx
from warmspare.tracks.plan_conditions import plan_is_of_a_server

Release = tuple[int, int, int]


def release(version: str | None) -> Release | None:
    """The first three numbers of a version, or None: `0.26.0rc1+cu130` is (0, 26, 0)."""
    found = re.match(r"(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?", version or "")
    return (int(found[1]), int(found[2]), int(found[3] or 0)) if found else None


PYTHON = "Python {version} ({named_by})"
NO_PYTHON = "no Python of an engine was found"


def engine_python_is_known(python: EnginePython) -> Finding:
    """Which Python the engine's packages were looked for in; WARMSPARE_PYTHON names another.

    Remedy: name-the-python
    Source: the vllm program's first line, VIRTUAL_ENV, PATH.
    """
    if not python.found:
        return undecided(NO_PYTHON, remedy="name-the-python")
    return met(PYTHON, version=python.version, named_by=(python.named_by or "").replace("_", " "))


VLLM = "vLLM {version}"
NO_VLLM = "vLLM is not installed in the engine's Python"


@unless(plan_is_of_a_server)
def vllm_is_there(packages: PythonPackages) -> Finding:
    """Sleep Mode is vLLM's: it gives most of its GPU memory back, keeps its process, and wakes in under a second.

    Remedy: install-vllm
    Source: vLLM documentation, Sleep Mode; the package's own metadata.
    """
    return met(VLLM, version=packages.vllm) if packages.vllm else undecided(NO_VLLM, remedy="install-vllm")


TORCH = "torch {version} for CUDA {cuda}"
NO_TORCH = "torch is not installed in the engine's Python"
NOT_FOR_CUDA = "torch {version} is not built for CUDA{hip}"


@unless(plan_is_of_a_server)
def torch_is_for_cuda(packages: PythonPackages) -> Finding:
    """Engines compute through torch; a torch built for AMD GPUs or for the processor alone cannot use an NVIDIA GPU.

    Remedy: install-vllm
    Remedy: torch-for-cuda
    Source: torch/version.py of the engine's Python.
    """
    if packages.torch is None:
        return undecided(NO_TORCH, remedy="install-vllm")
    if packages.torch_cuda is None:
        hip = f" but for ROCm {packages.torch_hip}" if packages.torch_hip else ""
        return unmet(NOT_FOR_CUDA, version=packages.torch, hip=hip, remedy="torch-for-cuda")
    return met(TORCH, version=packages.torch, cuda=packages.torch_cuda)


NCCL = "torch would load NCCL {version} ({place}, found by {way})"
LINKED = "NCCL is part of torch's own library"
OVERRIDDEN = NCCL + "; vLLM loads the file that VLLM_NCCL_SO_PATH names instead"
OLD_NCCL = "NCCL {version} fails under WSL2"
NO_NCCL = "no NCCL would be loaded: {way}"
OLD_IN_WSL2: Final[Release] = (2, 12, 7)


def nccl_is_there(nccl: NcclLoaded, platform: Platform) -> Finding:
    """Paper: an engine spread over GPUs talks through NCCL, and of several copies on a machine only one is loaded.

    Under WSL2 versions before 2.12.7 fail on its topology or on sharing memory between processes.

    Remedy: install-nccl
    Remedy: newer-nccl
    Source: ld.so(8); NCCL release notes 2.10.3 and 2.12.7 (WSL2).
    """
    if nccl.way == "linked_in":
        return met(LINKED)
    if nccl.library is None:
        return undecided(NO_NCCL, way=nccl.way.replace("_", " "), remedy="install-nccl")
    values = {"version": nccl.library.version, "place": nccl.library.place.replace("_", " ")}
    version = release(nccl.library.version)
    if platform.kind == "wsl2" and version and version < OLD_IN_WSL2:
        return unmet(OLD_NCCL, version=nccl.library.version, remedy="newer-nccl")
    return met(OVERRIDDEN if nccl.vllm_override else NCCL, way=nccl.way.replace("_", " "), **values)


COPIES = "NCCL copies here: {copies}"
NO_COPIES = "no copy of NCCL was found"


def nccl_copies_are_known(nccl: NcclLibraries) -> Finding:
    """A machine often has several copies of NCCL, and a program that loads another one than you think behaves oddly.

    Source: the engine's Python, LD_LIBRARY_PATH and the system's loader.
    """
    if not nccl.libraries:
        return not_applicable(NO_COPIES)
    copies = tuple(f"{library.version or '?'} ({library.place.replace('_', ' ')})" for library in nccl.libraries)
    return met(COPIES, copies=copies)


FITS = "NCCL {version} is what torch asks for, or newer"
NOT_COMPARED = "torch asks for NCCL {wanted}, and the version that it would load is not known"
NO_DEMAND = "torch does not say which NCCL it wants"
OLDER = "an older NCCL ({version}, {place}) is found before the {wanted} that torch asks for"
TWO_WHEELS = "two NCCL packages ({wheels}) overwrite each other's file"
NO_OVERRIDE = "VLLM_NCCL_SO_PATH names a file that is not there"


def nccl_fits_torch(nccl: NcclLoaded, packages: PythonPackages) -> Finding:
    """Paper: an NCCL that is older than torch was built for, found first by LD_LIBRARY_PATH, breaks `import torch`.

    Remedy: exact-nccl
    Remedy: unset-vllm-nccl
    Source: ld.so(8); pytorch/pytorch#119072, rapidsai/cugraph#4465 (undefined symbol: nccl…); rwth-i6/returnn#1802.
    """
    if nccl.vllm_override == "not_there":
        return unmet(NO_OVERRIDE, remedy="unset-vllm-nccl")
    if len(packages.nccl_wheels) > 1:
        return unmet(TWO_WHEELS, wheels=tuple(sorted(packages.nccl_wheels)), remedy="exact-nccl")
    wanted, loaded = release(packages.torch_nccl), release(nccl.library.version if nccl.library else None)
    if wanted is None or nccl.way == "linked_in":
        return met(NO_DEMAND)
    if loaded is None or nccl.library is None:
        return undecided(NOT_COMPARED, wanted=packages.torch_nccl, remedy="exact-nccl")
    if loaded < wanted:
        place = nccl.library.place.replace("_", " ")
        return unmet(OLDER, version=nccl.library.version, place=place, wanted=packages.torch_nccl, remedy="exact-nccl")
    return met(FITS, version=nccl.library.version)


NIXL = "NIXL {version}"
NO_BACKEND = "NIXL {version} is there without a backend (nixl-cu12 or nixl-cu13)"
NO_FRONT = "NIXL's backend {version} is there without the package nixl, which engines import"
NO_NIXL = "NIXL is not installed in the engine's Python"


def nixl_is_there(nixl: Nixl) -> Finding:
    """NIXL moves an engine's KV cache between GPUs and hosts; keeping state on a peer does not need it.

    Remedy: install-nixl
    Source: ai-dynamo/nixl; the packages' metadata.
    """
    if nixl.version is None and nixl.cu12 is None and nixl.cu13 is None:
        return undecided(NO_NIXL, remedy="install-nixl")
    if nixl.version is None:
        return unmet(NO_FRONT, version=nixl.cu13 or nixl.cu12, remedy="install-nixl")
    if nixl.cu12 is None and nixl.cu13 is None and (release(nixl.version) or (1, 0, 0)) >= (1, 0, 0):
        return unmet(NO_BACKEND, version=nixl.version, remedy="install-nixl")
    return met(NIXL, version=nixl.version)


UCX = "UCX: {places}"
NO_UCX = "no UCX was found: only NIXL uses it, and brings its own"


def ucx_is_known(ucx: Ucx) -> Finding:
    """UCX carries NIXL's transfers; a NIXL package brings its own, and a program can be made to load another.

    Source: ai-dynamo/nixl#489, #1097 (without NVLink UCX reads by TCP).
    """
    return met(UCX, places=tuple(p.replace("_", " ") for p in ucx.places)) if ucx.places else not_applicable(NO_UCX)
