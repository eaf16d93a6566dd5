"""What the requirements on an engine's software and on containers say, branch by branch."""

from __future__ import annotations

from typing import Final

import pytest
from hand_made import Given, Row, holds, not_shown, table
from msgspec.structs import replace

from warmspare.probes.containers import (
    CdiSpecs,
    ContainerTool,
    ContainerTools,
    DockerCheckpoints,
    DockerRuntime,
    InsideMounts,
    NvidiaToolkit,
)
from warmspare.probes.platform import Container, Platform
from warmspare.probes.software import EnginePython, NcclLibraries, NcclLibrary, NcclLoaded, Nixl, PythonPackages, Ucx
from warmspare.tracks import container_requirements as container
from warmspare.tracks import engine_requirements as engine
from warmspare.trials.engine_plan import EnginePlan

MET, UNMET, UNDECIDED, NOT_HERE = "met", "unmet", "undecided", "not_applicable"
NATIVE: Final = Platform(kind="bare-metal", hypervisor=None, signals=())
WSL2: Final = Platform(kind="wsl2", hypervisor="hyper-v", signals=("dxg", "osrelease"))
SERVES: Final = EnginePlan(given=True, serves=True)
NOTHING: Final = PythonPackages(
    torch=None, torch_cuda=None, torch_hip=None, torch_nccl=None, vllm=None, cuda_bindings=None, nccl_wheels={},
    broken=(), vllm_pins=False,
)  # fmt: skip
TORCH: Final = replace(NOTHING, torch="2.11.0+cu130", torch_cuda="13.0", torch_nccl="2.28.9")
ROCM: Final = replace(TORCH, torch="2.11.0", torch_cuda=None, torch_hip="7.1")


def with_vllm(version: str | None) -> PythonPackages:
    return replace(TORCH, vllm=version)


def nccl(version: str | None, **changed: str) -> NcclLoaded:
    library = NcclLibrary(place="python_package", path="lib/libnccl.so.2", version=version, cuda_version="13.0")
    return replace(NcclLoaded(way="rpath", library=library), **changed)


COPY: Final = NcclLibrary(place="python_package", path="lib/libnccl.so.2", version="2.28.9", cuda_version=None)
TWO_COPIES: Final = NcclLibraries(libraries=(COPY, replace(COPY, place="system_loader", version=None)))


def without_nccl(way: str, **changed: str) -> NcclLoaded:
    return replace(NcclLoaded(way="not_found"), way=way, **changed)


VLLM: Final = (
    Row(
        engine.engine_python_is_known, (EnginePython(found=True, named_by="virtual_env", version="3.12.3"),), MET, None,
        "Python 3.12.3 (virtual env)",
    ),
    Row(engine.engine_python_is_known, (EnginePython(found=False),), UNDECIDED, "name-the-python", "no Python of an"),
    Row(engine.vllm_is_there, (with_vllm("0.30.0"),), MET, None, "vLLM 0.30.0"),
    Row(engine.vllm_is_there, (NOTHING,), UNDECIDED, "install-vllm", "vLLM is not installed"),
    Row(engine.vllm_is_there, (NOTHING, SERVES), NOT_HERE, None, "whatever vLLM is installed here"),
    Row(engine.torch_is_for_cuda, (NOTHING, SERVES), NOT_HERE, None, "whatever vLLM is installed here"),
    Row(engine.torch_is_for_cuda, (TORCH,), MET, None, "torch 2.11.0+cu130 for CUDA 13.0"),
    Row(engine.torch_is_for_cuda, (NOTHING,), UNDECIDED, "install-vllm", "torch is not installed"),
    Row(engine.torch_is_for_cuda, (ROCM,), UNMET, "torch-for-cuda", "is not built for CUDA but for ROCm 7.1"),
    Row(
        engine.torch_is_for_cuda, (replace(ROCM, torch="2.11.0+cpu", torch_hip=None),), UNMET, "torch-for-cuda",
        "torch 2.11.0+cpu is not built for CUDA",
    ),
)  # fmt: skip


def test_a_torch_for_the_processor_is_not_said_to_be_for_rocm() -> None:
    finding = engine.torch_is_for_cuda(replace(ROCM, torch_hip=None))
    assert finding.text == "torch 2.11.0 is not built for CUDA"


@pytest.mark.parametrize(
    ("version", "release"),
    [
        ("0.26.0rc1+cu130", (0, 26, 0)),
        ("0.17", (0, 17, 0)),
        ("2.28.9", (2, 28, 9)),
        ("1.2.3.4", (1, 2, 3)),
        ("0.9.10", (0, 9, 10)),
        ("7", None),
        ("v0.17.0", None),
        ("rubbish", None),
        ("", None),
        (None, None),
    ],
)
def test_the_first_three_numbers_of_a_version(version: str | None, release: engine.Release | None) -> None:
    assert engine.release(version) == release


WHEELS: Final = {"nvidia-nccl-cu13": "2.28.9", "nvidia-nccl-cu12": "2.27.5"}
OLD_FIRST: Final = nccl("2.27.5", way="ld_library_path")

NCCL: Final = (
    Row(
        engine.nccl_is_there, (nccl("2.28.9"), NATIVE), MET, None,
        "torch would load NCCL 2.28.9 (python package, found by rpath)",
    ),
    Row(engine.nccl_is_there, (nccl("2.28.9", vllm_override="there"), NATIVE), MET, None, "rpath); vLLM loads the"),
    Row(engine.nccl_is_there, (nccl("2.28.9"), WSL2), MET, None, "torch would load NCCL 2.28.9"),
    Row(engine.nccl_is_there, (nccl("2.12.6"), WSL2), UNMET, "newer-nccl", "NCCL 2.12.6 fails under WSL2"),
    Row(engine.nccl_is_there, (nccl("2.12.7"), WSL2), MET, None, "torch would load NCCL 2.12.7"),
    Row(engine.nccl_is_there, (nccl("2.12.6"), NATIVE), MET, None, "torch would load NCCL 2.12.6"),
    Row(engine.nccl_is_there, (nccl(None), WSL2), MET, None, "torch would load NCCL unknown"),
    Row(engine.nccl_is_there, (without_nccl("linked_in"), WSL2), MET, None, "part of torch's own library"),
    Row(
        engine.nccl_is_there, (without_nccl("linked_in", vllm_override="there"), NATIVE), MET, None,
        "part of torch's own library",
    ),
    Row(engine.nccl_copies_are_known, (NcclLibraries(libraries=()),), NOT_HERE, None, "no copy of NCCL"),
    Row(engine.nccl_copies_are_known, (TWO_COPIES,), MET, None, "2.28.9 (python package), ? (system loader)"),
    *(
        Row(engine.nccl_is_there, (without_nccl(way), NATIVE), UNDECIDED, "install-nccl", f"be loaded: {words}")
        for way, words in (
            ("not_found", "not found"),
            ("damaged", "damaged"),
            ("no_cuda", "no cuda"),
            ("no_torch", "no torch"),
        )
    ),
    Row(engine.nccl_fits_torch, (nccl("2.28.9"), TORCH), MET, None, "NCCL 2.28.9 is what torch asks for, or newer"),
    Row(engine.nccl_fits_torch, (nccl("2.29.0"), TORCH), MET, None, "NCCL 2.29.0 is what torch asks for, or newer"),
    Row(engine.nccl_fits_torch, (nccl(None), TORCH), UNDECIDED, "exact-nccl", "torch asks for NCCL 2.28.9"),
    Row(engine.nccl_fits_torch, (without_nccl("damaged"), TORCH), UNDECIDED, "exact-nccl", "is not known"),
    Row(engine.nccl_fits_torch, (OLD_FIRST, TORCH), UNMET, "exact-nccl", "an older NCCL (2.27.5, python package)"),
    Row(engine.nccl_fits_torch, (OLD_FIRST, TORCH), UNMET, "exact-nccl", "before the 2.28.9 that torch asks for"),
    Row(engine.nccl_fits_torch, (nccl("2.28.9"), replace(TORCH, torch_nccl=None)), MET, None, "does not say which"),
    Row(engine.nccl_fits_torch, (without_nccl("linked_in"), replace(TORCH, torch_nccl=None)), MET, None, "not say wh"),
    Row(
        engine.nccl_fits_torch, (nccl("2.28.9"), replace(TORCH, nccl_wheels=WHEELS)), UNMET, "exact-nccl",
        "two NCCL packages (nvidia-nccl-cu12, nvidia-nccl-cu13) overwrite",
    ),
    Row(
        engine.nccl_fits_torch, (nccl("2.28.9"), replace(TORCH, nccl_wheels={"nvidia-nccl-cu13": "2.28.9"})), MET, None,
        "is what torch asks for",
    ),
    Row(
        engine.nccl_fits_torch, (nccl("2.28.9", vllm_override="not_there"), replace(TORCH, nccl_wheels=WHEELS)), UNMET,
        "unset-vllm-nccl", "VLLM_NCCL_SO_PATH names a file that is not there",
    ),
    Row(engine.nccl_fits_torch, (nccl("2.28.9", vllm_override="there"), TORCH), MET, None, "is what torch asks for"),
)  # fmt: skip


def nixl(version: str | None = None, cu12: str | None = None, cu13: str | None = None) -> Nixl:
    return Nixl(version=version, cu12=cu12, cu13=cu13)


def ucx(*places: str) -> Ucx:
    return replace(Ucx(places=(), libucx=None, ucx_py=None, ucxx=None), places=places)


TRANSFERS: Final = (
    Row(engine.nixl_is_there, (nixl(),), UNDECIDED, "install-nixl", "NIXL is not installed"),
    Row(engine.nixl_is_there, (nixl("1.1.0", cu13="1.1.0"),), MET, None, "NIXL 1.1.0"),
    Row(engine.nixl_is_there, (nixl("1.1.0", cu12="1.1.0"),), MET, None, "NIXL 1.1.0"),
    Row(engine.nixl_is_there, (nixl("1.0.0"),), UNMET, "install-nixl", "NIXL 1.0.0 is there without a backend"),
    Row(engine.nixl_is_there, (nixl("odd"),), UNMET, "install-nixl", "NIXL odd is there without a backend"),
    Row(engine.nixl_is_there, (nixl(cu13="1.1.0"),), UNMET, "install-nixl", "without the package nixl"),
    Row(engine.nixl_is_there, (nixl("0.9.9"),), MET, None, "NIXL 0.9.9"),
    Row(engine.ucx_is_known, (ucx(),), NOT_HERE, None, "no UCX was found"),
    Row(engine.ucx_is_known, (ucx("ucx_wheel", "nixl_wheel"),), MET, None, "UCX: ucx wheel, nixl wheel"),
)

# --- containers ---------------------------------------------------------------------------------------------

NO_TOOLS: Final = ContainerTools(tools=())
DOCKER: Final = ContainerTools(tools=(ContainerTool(name="docker", version="28.5.2", problem=None),))
TWO: Final = ContainerTools(tools=(*DOCKER.tools, ContainerTool(name="podman", version=None, problem="status 125")))
NO_TOOLKIT: Final = NvidiaToolkit(found=False, version=None)
TOOLKIT: Final = NvidiaToolkit(found=True, version="1.18.0")
NO_RUNTIME: Final = DockerRuntime(nvidia=False, default=False, cdi=False)
RUNTIME: Final = replace(NO_RUNTIME, nvidia=True)
TRIES_OUT: Final = DockerCheckpoints(on=True)
STABLE: Final = DockerCheckpoints(on=False)
NO_CDI: Final = CdiSpecs(paths=())
CDI: Final = CdiSpecs(paths=("/etc/cdi/nvidia.yaml", "/var/run/cdi/nvidia.yaml"))
NONE_GIVEN: Final = InsideMounts(libraries=(), devices=(), programs=(), folders=())
GIVEN: Final = replace(NONE_GIVEN, libraries=("libcuda.so.1", "libnvidia-ml.so.1"), devices=("nvidia0",))
INSIDE: Final = Container(inside=True, engine="docker", signals=("/.dockerenv",))
OUTSIDE: Final = Container(inside=False, engine=None, signals=())


def gives(tools: ContainerTools, *ways: NvidiaToolkit | DockerRuntime | CdiSpecs) -> tuple[Given, ...]:
    told = {type(fact): fact for fact in (NO_TOOLKIT, NO_RUNTIME, NO_CDI, *ways)}
    return (tools, *told.values())


CONTAINERS: Final = (
    Row(container.container_tools_are_known, (NO_TOOLS,), NOT_HERE, None, "no container engine here"),
    Row(container.container_tools_are_known, (TWO,), MET, None, "container engines: docker 28.5.2, podman status 125"),
    Row(container.containers_can_have_gpus, gives(NO_TOOLS, TOOLKIT), NOT_HERE, None, "no container engine here"),
    Row(
        container.containers_can_have_gpus, gives(DOCKER), UNDECIDED, "install-container-toolkit",
        "nothing was found here that hands GPUs to containers",
    ),
    Row(container.containers_can_have_gpus, gives(DOCKER, TOOLKIT), MET, None, "GPUs by: nvidia-ctk 1.18.0"),
    Row(container.containers_can_have_gpus, gives(DOCKER, RUNTIME), MET, None, "GPUs by: Docker's nvidia runtime"),
    Row(container.containers_can_have_gpus, gives(DOCKER, CDI), MET, None, "GPUs by: 2 CDI files"),
    Row(
        container.containers_can_have_gpus, gives(DOCKER, TOOLKIT, RUNTIME, CDI), MET, None,
        "nvidia-ctk 1.18.0, Docker's nvidia runtime, 2 CDI files",
    ),
    Row(container.docker_checkpoints_are_on, (NO_TOOLS, TRIES_OUT), NOT_HERE, None, "no Docker here"),
    Row(container.docker_checkpoints_are_on, (DOCKER, TRIES_OUT), MET, None, "is turned on (experimental)"),
    Row(container.docker_checkpoints_are_on, (DOCKER, STABLE), UNDECIDED, None, "has no experimental: true"),
    Row(container.container_was_given_the_driver, (GIVEN, OUTSIDE), NOT_HERE, None, "this is no container"),
    Row(container.container_was_given_the_driver, (GIVEN, INSIDE), MET, None, ": 2, folders: 0, devices: nvidia0"),
    *(
        Row(container.container_was_given_the_driver, (replace(NONE_GIVEN, **{what: ("one",)}), INSIDE), MET, None, "")
        for what in ("libraries", "devices", "folders")
    ),
    Row(
        container.container_was_given_the_driver, (replace(NONE_GIVEN, programs=("nvidia-smi",)), INSIDE), UNDECIDED,
        "give-container-the-gpu", "nothing of NVIDIA is mounted",
    ),
)  # fmt: skip
ROWS: Final = (*VLLM, *NCCL, *TRANSFERS, *CONTAINERS)


@table(*ROWS)
def test_what_is_said(row: Row) -> None:
    assert holds(row)


def test_every_requirement_and_each_of_its_remedies_is_shown() -> None:
    assert not_shown(ROWS, engine, container) == {}
