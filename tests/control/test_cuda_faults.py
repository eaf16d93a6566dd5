"""What a driver can do wrong, planted in the stand-in: each shows where it should and nowhere else."""

from __future__ import annotations

import subprocess
from typing import Any, Final

import copy_scenes
import cuda_scenes
import pytest

from conftest import CI
from scenes import SIZE, WORDS, played
from standins import Drivers, compilers

pytestmark = pytest.mark.skipif(not compilers() and not CI, reason="needs a C compiler, or the wheel ziglang")
RIGHT: Final = [0, None]
KIB: Final = SIZE // 1024
HONEST: Final[dict[str, Any]] = {
    "refused": None, "oracle": True, "can": True, "enabled": None, "counted": [KIB, 0, 0, KIB], "gb_per_s": 387.6,
    "arrived": RIGHT, "sum": True, "through the window": RIGHT, "stored": RIGHT,
}  # fmt: skip
SEEN_OTHERWISE: Final[dict[str, tuple[tuple[str, ...], dict[str, Any]]]] = {
    "honest": ((), {}),
    "a slow path": (("copy path gpu0 gpu1: gives 5",), {"gb_per_s": 5.0}),
    "a path slow the other way": (("copy path gpu1 gpu0: gives 5",), {}),
    "staged passed off as P2P": (
        ("copy path gpu0 gpu1: gives 20", "nvlink counts copy *: gives 0"),
        {"gb_per_s": 20.0, "counted": [0, 0, 0, 0]},
    ),
    "counters that stand still": (("field 13[89] *: gives 0",), {"counted": [0, 0, 0, 0]}),
    "no counters": (("field 138 *: returns 3",), {"counted": None}),
    "a mirror": (("mirror gpu0 gpu1: gives 1",), {"arrived": [WORDS, 0], "sum": False, "stored": [WORDS, 0]}),
    "a mirror the other way": (("mirror gpu1 gpu0: gives 1",), {}),
    "one page corrupted": (
        ("wrong page of copy gpu0 gpu1 *: gives 3",),
        {"arrived": [512, 3 * 512], "sum": False, "through the window": [512, 3 * 512]},
    ),
    "one word corrupted": (
        ("wrong word of copy gpu0 gpu1 nth1: gives 100",),
        {"arrived": [1, 100], "sum": False, "through the window": [1, 100]},
    ),
    "a check that is blind": (("result of check gpu1: gives 0",), {"oracle": False}),
    "a check that always finds one": (
        ("result of check gpu1: gives 1",),
        {"oracle": False, "arrived": [1, 0], "stored": [1, 0]},
    ),
    "a checksum that is blind": (("result of checksum gpu1: gives 42",), {"sum": False}),
}
"""The plan, and what of HONEST it changes."""
NO_PEER: Final = ["cuCtxEnablePeerAccess", 217, "CUDA_ERROR_PEER_ACCESS_UNSUPPORTED"]
REFUSED: Final[dict[str, tuple[str, list[Any]]]] = {
    "cuInit 802": ("cuInit: returns 802", ["cuInit", 802, "CUDA_ERROR_SYSTEM_NOT_READY"]),
    "TCC": ("cuInit: returns 304", ["cuInit", 304, "CUDA_ERROR_OPERATING_SYSTEM"]),
    "no context": (
        "cuDevicePrimaryCtxRetain gpu1 *: returns 46",
        ["cuDevicePrimaryCtxRetain", 46, "CUDA_ERROR_DEVICE_UNAVAILABLE"],
    ),
    "out of memory at the third": (
        "cuMemAlloc_v2 gpu1 nth3: returns 2",
        ["cuMemAlloc_v2", 2, "CUDA_ERROR_OUT_OF_MEMORY"],
    ),
    "little memory": ("memory gpu0: gives 0", ["cuMemAlloc_v2", 2, "CUDA_ERROR_OUT_OF_MEMORY"]),
    "217 from a copy": (
        "cuMemcpyPeerAsync *: returns 217",
        ["cuMemcpyPeerAsync", 217, "CUDA_ERROR_PEER_ACCESS_UNSUPPORTED"],
    ),
    "lost at a call": ("cuStreamCreate gpu0 nth1: returns 999", ["cuStreamCreate", 999, "CUDA_ERROR_UNKNOWN"]),
}
"""The plan, and the first refusal."""
FAILED: Final = {
    "copy gpu0 gpu1 nth1: returns 700": [700, "CUDA_ERROR_ILLEGAL_ADDRESS"],
    "kernel fill gpu0 nth1: returns 700": [700, "CUDA_ERROR_ILLEGAL_ADDRESS"],
    "kernel check gpu1 nth2: returns 999": [999, "CUDA_ERROR_UNKNOWN"],
}
"""What goes wrong in a stream, and what the next call to come says of it, whichever that is."""


@pytest.fixture(scope="module")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> Drivers:
    return Drivers(tmp_path_factory.mktemp("standins"))


@pytest.mark.parametrize("name", SEEN_OTHERWISE)
def test_a_copy_shows_what_is_wrong_and_nothing_else(drivers: Drivers, name: str) -> None:
    plan, otherwise = SEEN_OTHERWISE[name]
    assert played(drivers.world(name, *plan), copy_scenes.peer_copy) == {**HONEST, **otherwise}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_driver_refuses_is_told_with_its_call(drivers: Drivers, name: str) -> None:
    line, refused = REFUSED[name]
    assert played(drivers.world(name, line), copy_scenes.peer_copy)["refused"] == refused


@pytest.mark.parametrize("number", range(len(FAILED)))
def test_what_fails_in_a_stream_is_told_by_a_later_call(drivers: Drivers, number: int) -> None:
    line, failed = list(FAILED.items())[number]
    assert played(drivers.world(f"failed {number}", line), copy_scenes.peer_copy)["refused"][1:] == failed


def test_without_peer_access_a_copy_between_gpus_is_staged(drivers: Drivers) -> None:
    found = played(drivers.world("staged", "cuDeviceCanAccessPeer *: gives 0"), copy_scenes.peer_copy)
    no_window = {key: value for key, value in HONEST.items() if key not in ("through the window", "stored")}
    assert found == {**no_window, "can": False, "enabled": NO_PEER, "gb_per_s": 20.0, "counted": [0, 0, 0, 0]}


def test_a_peer_that_is_said_to_be_there_may_be_refused(drivers: Drivers) -> None:
    found = played(drivers.world("217", "cuCtxEnablePeerAccess gpu0 gpu1 *: returns 217"), copy_scenes.peer_copy)
    assert (found["can"], found["enabled"], found["gb_per_s"]) == (True, NO_PEER, 20.0)


def test_a_copy_that_hangs_in_its_stream_holds_no_other_stream(drivers: Drivers) -> None:
    assert played(drivers.world("stuck", "copy gpu0 gpu1 *: hangs"), copy_scenes.stuck) == [False, True]
    assert played(drivers.world("not stuck"), copy_scenes.not_stuck) == [True, True]


@pytest.mark.parametrize("where", ["copy gpu0 gpu1 *", "cuMemcpyPeerAsync *", "cuEventSynchronize *"])
def test_what_waits_for_a_copy_that_hangs_never_returns(drivers: Drivers, where: str) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        played(drivers.world(where, f"{where}: hangs"), copy_scenes.peer_copy, timeout_s=1.5)


def test_a_survey_that_made_a_context_would_die_of_it(drivers: Drivers) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        played(drivers.world("no trial", "cuDevicePrimaryCtxRetain *: crashes"), cuda_scenes.memory)
    assert caught.value.returncode == -11
