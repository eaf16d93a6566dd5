"""The engine's software: its Python, torch, vLLM, NIXL, UCX, and which NCCL it would load. Nothing is imported."""

from __future__ import annotations

import re
from typing import Any, Literal, TypeVar

import msgspec

from warmspare.host.port import Host, Unreadable
from warmspare.model.facts import Cause, Fact, Text
from warmspare.probes.api import probe

F = TypeVar("F", bound=Fact)
Place = Literal[
    "python_package", "conda_environment", "ld_library_path", "system_loader", "vllm_nccl_so_path", "ld_preload",
    "another_folder",
]  # fmt: skip
"""Where a library lies. `system_loader`: in /etc/ld.so.cache or a default folder."""
Way = Literal[
    "rpath", "ld_library_path", "runpath", "ld_so_cache", "default_folder", "ld_preload",
    "linked_in", "not_found", "damaged", "no_cuda", "no_torch",
]  # fmt: skip
"""By which rule of ld.so a library is found, or why none is loaded."""


class EnginePython(Fact, frozen=True, kw_only=True):
    """The Python that is looked at, and who named it; found by reading folders, not by running it."""

    found: bool
    named_by: Literal["warmspare_python", "vllm_program", "virtual_env", "search_path", "own_python"] | None = None
    kind_of: Literal["virtual_environment", "conda_environment", "other_prefix"] | None = None
    version: Text | None = None


class PythonPackages(Fact, frozen=True, kw_only=True):
    """Versions as the metadata has them, torch's as torch.__version__ has it (2.11.0+cu130); None: not installed.

    `torch_cuda` and `torch_hip` are what torch was built for, `torch_nccl` the NCCL that its wheel asks for;
    `nccl_wheels` are several where two overwrite each other's file. `broken` are packages whose metadata is there
    and names no version. `vllm_pins`: the environment has vLLM pin host memory under WSL2, as it does
    elsewhere.
    """

    torch: Text | None
    torch_cuda: Text | None
    torch_hip: Text | None
    torch_nccl: Text | None
    vllm: Text | None
    cuda_bindings: Text | None
    nccl_wheels: dict[str, Text]
    broken: tuple[Text, ...]
    vllm_pins: bool


class NcclLibrary(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One libnccl.so.2: where it lies, its path in the environment, and what the file says of itself."""

    place: Place
    path: Text
    version: Text | None
    cuda_version: Text | None


class NcclLibraries(Fact, frozen=True, kw_only=True):
    """Every libnccl.so.2 that this Python or the system's loader has; an empty list is known."""

    libraries: tuple[NcclLibrary, ...]


class NcclLoaded(Fact, frozen=True, kw_only=True):
    """The NCCL that torch in this Python would load, by ld.so's rules; `library` is None where there is none.

    `linked_in`: NCCL is part of torch's own library. `not_found`, `damaged`: importing torch would fail.
    `vllm_override`: VLLM_NCCL_SO_PATH is set, and vLLM would load that file instead.
    """

    way: Way
    library: NcclLibrary | None = None
    vllm_override: Literal["there", "not_there"] | None = None


class Nixl(Fact, frozen=True, kw_only=True):
    """NIXL's Python packages. `version` is that of the one called nixl, which engines import.

    Later ones have no library of their own and take the backend of torch's CUDA version, `cu12` or `cu13`; a
    backend alone cannot be imported as nixl.
    """

    version: Text | None
    cu12: Text | None
    cu13: Text | None


class Ucx(Fact, frozen=True, kw_only=True):
    """UCX's library, by where it lies, and its Python packages. A NIXL wheel brings its own and uses that."""

    places: tuple[Literal["ucx_wheel", "nixl_wheel", "ld_library_path", "system_loader"], ...]
    libucx: Text | None
    ucx_py: Text | None
    ucxx: Text | None


@probe
def engine_python(host: Host) -> EnginePython:
    """WARMSPARE_PYTHON, a vllm program's, VIRTUAL_ENV's, the first python3 of PATH, our own."""
    python = _asked(host)["engine_python"]
    return EnginePython(found=False) if python is None else msgspec.convert({"found": True, **python}, EnginePython)


@probe
def python_packages(host: Host) -> PythonPackages:
    """Source: PyPA "Core metadata"; torch/version.py; vllm/envs.py, VLLM_WSL2_ENABLE_PIN_MEMORY."""
    answer = _of_python(host)
    versions = answer["package_versions"]
    return _as(
        PythonPackages,
        torch=versions.get("torch_version"),
        torch_cuda=versions.get("torch_cuda"),
        torch_hip=versions.get("torch_hip"),
        torch_nccl=versions.get("torch_nccl_version"),
        vllm=versions.get("vllm_version"),
        cuda_bindings=versions.get("cuda_bindings_version"),
        nccl_wheels={name: versions[f"nvidia_nccl_{name}_version"] for name in _cuda_versions(versions)},
        broken=answer["broken_packages"],
        vllm_pins=answer["vllm_pins"],
    )


@probe
def nccl_libraries(host: Host) -> NcclLibraries:
    """The version is the text that NCCL carries. Source: NCCL src/init.cc, VERSION_STRING."""
    return _as(NcclLibraries, libraries=_of_python(host)["nccl_libraries"])


@probe
def nccl_loaded(host: Host) -> NcclLoaded:
    """Source: ld.so(8); torch's .ci/manywheel/build_cuda.sh; vLLM's find_nccl_library."""
    answer = _of_python(host)
    loaded = answer["nccl_loaded"]
    if loaded["way"] == "not_understood":
        raise Unreadable(Cause.INVALID, str(loaded["detail"]))
    return _as(NcclLoaded, way=loaded["way"], library=loaded.get("library"), vllm_override=answer["vllm_nccl_path"])


@probe
def nixl(host: Host) -> Nixl:
    """Source: ai-dynamo/nixl#928, #1574 (nixl as a package without a library); LMCache/LMCache#3370."""
    versions = _of_python(host)["package_versions"]
    return _as(
        Nixl,
        version=versions.get("nixl_version"),
        cu12=versions.get("nixl_cu12_version"),
        cu13=versions.get("nixl_cu13_version"),
    )


@probe
def ucx(host: Host) -> Ucx:
    """Source: ai-dynamo/nixl#489 (a NIXL wheel's own UCX)."""
    answer = _of_python(host)
    versions = answer["package_versions"]
    return _as(
        Ucx,
        places=sorted({found["place"] for found in answer["ucx_libraries"]}),
        libucx=_first(versions, r"libucx(_cu\d+)?_version"),
        ucx_py=_first(versions, r"ucx_py(_cu\d+)?_version"),
        ucxx=_first(versions, r"ucxx(_cu\d+)?_version"),
    )


def _asked(host: Host) -> dict[str, Any]:
    answer = host.experiment("python_software")
    python = answer["engine_python"]
    if python and (failure := python.get("failure")):
        raise Unreadable(Cause(failure["cause"]), f"the engine's Python: {failure['detail']}")
    return answer


def _of_python(host: Host) -> dict[str, Any]:
    answer = _asked(host)
    if answer["engine_python"] is None:
        raise Unreadable(Cause.SKIPPED, "no Python was found to look at; WARMSPARE_PYTHON names one")
    return answer


def _cuda_versions(versions: dict[str, str]) -> list[str]:
    """The CUDA versions that NCCL's wheels are for: `cu12`, `cu13`."""
    return [found[1] for found in (re.fullmatch(r"nvidia_nccl_(cu\d+)_version", name) for name in versions) if found]


def _first(versions: dict[str, str], name: str) -> str | None:
    return next((versions[found] for found in sorted(versions) if re.fullmatch(name, found)), None)


def _as(fact: type[F], **fields: object) -> F:
    """A fact whose fields come from an answer: what does not fit them is not understood."""
    return msgspec.convert(fields, fact)
