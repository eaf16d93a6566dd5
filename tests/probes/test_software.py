"""What is said of the engine's software, and of an answer that is none."""

from __future__ import annotations

from typing import Any

import pytest
from answers import Answers, read

from warmspare.model.facts import Absent, Cause, Fact, Known
from warmspare.model.transcript import Failed, Gave
from warmspare.probes.software import (
    EnginePython,
    NcclLibraries,
    NcclLibrary,
    NcclLoaded,
    Nixl,
    PythonPackages,
    Ucx,
)

WHEEL = {
    "place": "python_package",
    "path": "site-packages/nvidia/nccl/lib/libnccl.so.2",
    "version": "2.28.9",
    "cuda_version": "13.0",
}
SYSTEM = {
    "place": "system_loader",
    "path": "/lib/x86_64-linux-gnu/libnccl.so.2",
    "version": "2.28.3",
    "cuda_version": "13.0",
}
ENGINE: dict[str, Any] = {
    "engine_python": {"named_by": "vllm_program", "kind_of": "virtual_environment", "version": "3.12"},
    "package_versions": {
        "torch_version": "2.11.0+cu130",
        "torch_cuda": "13.0",
        "torch_nccl_version": "2.28.9",
        "vllm_version": "0.11.0",
        "nvidia_nccl_cu13_version": "2.28.9",
        "nixl_version": "1.5.1",
        "nixl_cu13_version": "1.5.1",
        "libucx_cu13_version": "1.22.0",
        "ucxx_cu13_version": "0.52.0",
    },
    "broken_packages": ["cuda_bindings"],
    "nccl_libraries": [WHEEL, SYSTEM],
    "ucx_libraries": [
        {"place": "nixl_wheel", "path": "site-packages/nixl_cu13.libs/libucp-0a1b2c3d.so.0.0.0"},
        {"place": "nixl_wheel", "path": "site-packages/nixl_cu12.libs/libucp-0a1b2c3d.so.0.0.0"},
        {"place": "system_loader", "path": "/lib/x86_64-linux-gnu/libucp.so.0"},
    ],
    "nccl_loaded": {"way": "rpath", "library": WHEEL},
    "vllm_nccl_path": None,
    "vllm_pins": True,
}
FACTS: list[type[Fact]] = [EnginePython, PythonPackages, NcclLibraries, NcclLoaded, Nixl, Ucx]


def answered(**changes: object) -> Answers:
    """An engine's answer with some of it changed."""
    return {("experiment", "python_software"): Gave({**ENGINE, **changes})}


def known(fact: type[Fact], answers: Answers) -> Fact:
    reading = read(fact, answers)
    assert isinstance(reading, Known), reading
    return reading.value


def absent(fact: type[Fact], answers: Answers) -> Absent:
    reading = read(fact, answers)
    assert isinstance(reading, Absent), reading
    return reading


def test_an_engine_with_all_its_parts() -> None:
    wheel, system = NcclLibrary(**WHEEL), NcclLibrary(**SYSTEM)  # type: ignore[arg-type]
    assert [known(fact, answered()) for fact in FACTS] == [
        EnginePython(found=True, named_by="vllm_program", kind_of="virtual_environment", version="3.12"),
        PythonPackages(
            torch="2.11.0+cu130",
            torch_cuda="13.0",
            torch_hip=None,
            torch_nccl="2.28.9",
            vllm="0.11.0",
            cuda_bindings=None,
            nccl_wheels={"cu13": "2.28.9"},
            broken=("cuda_bindings",),
            vllm_pins=True,
        ),
        NcclLibraries(libraries=(wheel, system)),
        NcclLoaded(way="rpath", library=wheel),
        Nixl(version="1.5.1", cu12=None, cu13="1.5.1"),
        Ucx(places=("nixl_wheel", "system_loader"), libucx="1.22.0", ucx_py=None, ucxx="0.52.0"),
    ]


def test_a_bare_python_is_known_to_have_nothing() -> None:
    answers = answered(
        package_versions={},
        broken_packages=[],
        nccl_libraries=[],
        ucx_libraries=[],
        nccl_loaded={"way": "no_torch"},
        vllm_pins=False,
    )
    nothing = dict.fromkeys(("torch", "torch_cuda", "torch_hip", "torch_nccl", "vllm", "cuda_bindings"))
    assert known(PythonPackages, answers) == PythonPackages(**nothing, nccl_wheels={}, broken=(), vllm_pins=False)
    assert known(NcclLibraries, answers) == NcclLibraries(libraries=())
    assert known(NcclLoaded, answers) == NcclLoaded(way="no_torch")
    assert known(Nixl, answers) == Nixl(version=None, cu12=None, cu13=None)
    assert known(Ucx, answers) == Ucx(places=(), libucx=None, ucx_py=None, ucxx=None)


def test_a_python_that_is_not_there_is_known_and_its_packages_are_not() -> None:
    answers = answered(engine_python=None)
    assert known(EnginePython, answers) == EnginePython(found=False)
    assert {absent(fact, answers).cause for fact in FACTS[1:]} == {Cause.SKIPPED}


@pytest.mark.parametrize("cause", ["timeout", "crashed", "denied"])
def test_a_python_that_cannot_be_looked_at_leaves_all_unknown(cause: str) -> None:
    answers = answered(engine_python={"failure": {"cause": cause, "detail": "it cannot be run"}})
    for fact in FACTS:
        reading = absent(fact, answers)
        assert (reading.cause, reading.detail) == (Cause(cause), "the engine's Python: it cannot be run")


def test_a_torch_whose_library_is_not_understood_leaves_only_that_unknown() -> None:
    answers = answered(nccl_loaded={"way": "not_understood", "detail": "torch's libraries: cut short"})
    assert absent(NcclLoaded, answers).detail == "torch's libraries: cut short"
    assert known(NcclLibraries, answers)


@pytest.mark.parametrize("loaded", [{"way": "by magic"}, {"way": "rpath", "library": {"place": "moon"}}, "rpath", None])
def test_an_answer_of_another_kind_is_not_understood(loaded: object) -> None:
    assert absent(NcclLoaded, answered(nccl_loaded=loaded)).cause is Cause.INVALID


def test_an_experiment_that_was_killed_leaves_its_cause() -> None:
    killed: Answers = {("experiment", "python_software"): Failed(cause=Cause.TIMEOUT, detail="killed")}
    assert {absent(fact, killed).cause for fact in FACTS} == {Cause.TIMEOUT}
