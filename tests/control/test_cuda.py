"""control/cuda*.py and vmm.py against a stand-in driver that does what it is asked; cuda_scenes.py has the scenes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import copy_scenes
import cuda_scenes
import pytest

from conftest import CI
from scenes import SEED, SIZE, WORDS, began, played
from standins import Drivers, compilers
from warmspare.control import cuda_driver
from warmspare.control.cuda import CudaError, Driver

pytestmark = pytest.mark.skipif(not compilers() and not CI, reason="needs a C compiler, or the wheel ziglang")
INVALID: Final = [1, "CUDA_ERROR_INVALID_VALUE"]
STICKY: Final = [700, "CUDA_ERROR_ILLEGAL_ADDRESS"]


@pytest.fixture(scope="module")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> Drivers:
    return Drivers(tmp_path_factory.mktemp("standins"))


@pytest.fixture(scope="module")
def honest(drivers: Drivers) -> dict[str, str]:
    return drivers.world("honest")


def test_devices_are_found_by_uuid_and_by_pci_address(honest: dict[str, str]) -> None:
    assert [device[:3] for device in played(honest, cuda_scenes.devices)][:2] == [
        [0, "GPU-731c59fc-2d85-9cee-6153-7dcdc0cf21fa", "0000:00:06.0"],
        [1, "GPU-e9c863cf-f5c9-64e3-7d6a-b0470575a7aa", "0000:00:07.0"],
    ]
    assert [device[3:] for device in played(honest, cuda_scenes.devices)] == [[1, n, n] for n in range(4)]


def test_a_driver_before_470_names_its_devices_by_the_older_call(drivers: Drivers, honest: dict[str, str]) -> None:
    old = drivers.world("older uuid", lacks=("cuDeviceGetUuid_v2",))
    assert played(old, cuda_scenes.devices) == played(honest, cuda_scenes.devices)


def test_every_refusal_carries_its_call_and_its_raw_result_by_name(honest: dict[str, str]) -> None:
    assert played(honest, cuda_scenes.refusals) == {
        "no such device": ["cuDeviceGet", 101, "CUDA_ERROR_INVALID_DEVICE"],
        "free of what is not ours": ["cuMemFree_v2", *INVALID],
        "free of a middle": ["cuMemFree_v2", *INVALID],
        "copy past the end": ["cuMemcpyDtoDAsync_v2", *INVALID],
        "no handle at all": ["cuIpcOpenMemHandle_v2", 400, "CUDA_ERROR_INVALID_HANDLE"],
        "its own handle": ["cuIpcOpenMemHandle_v2", 201, "CUDA_ERROR_INVALID_CONTEXT"],
        "no such kernel": ["cuModuleGetFunction", 500, "CUDA_ERROR_NOT_FOUND"],
        "no ptx": ["cuModuleLoadData", 218, "CUDA_ERROR_INVALID_PTX"],
        "too much": ["cuMemAlloc_v2", 2, "CUDA_ERROR_OUT_OF_MEMORY"],
        "nothing": ["cuMemAlloc_v2", *INVALID],
        "peer of itself": ["cuCtxEnablePeerAccess", 101, "CUDA_ERROR_INVALID_DEVICE"],
        "no event yet": ["cuEventElapsedTime", 400, "CUDA_ERROR_INVALID_HANDLE"],
    }


def test_a_result_that_we_have_no_name_for_is_named_by_the_driver(drivers: Drivers) -> None:
    world = drivers.world("odd codes", "cuMemAlloc_v2 *: returns 713", "cuMemHostAlloc *: returns 12345")
    assert played(world, cuda_scenes.odd_codes) == [
        ["cuMemAlloc_v2", 713, "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED"],
        ["cuMemHostAlloc", 12345, "CUDA_ERROR_UNNAMED"],
    ]


def test_a_driver_without_the_call_or_without_a_library_says_so(
    drivers: Drivers, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = drivers.world("lacking", lacks=("cuMemAddressReserve",))
    assert played(world, cuda_scenes.missing) == ["cuMemAddressReserve", None, "MISSING_SYMBOL"]
    monkeypatch.setattr(cuda_driver, "LIBRARIES", ("no/libcuda.so.1", "nor/libcuda.so.1"))
    with pytest.raises(CudaError, match=r"^dlopen: NO_LIBRARY \(no/libcuda.so.1: cannot open") as caught:
        Driver()
    assert caught.value.result is None


def test_after_an_illegal_access_every_call_fails(honest: dict[str, str]) -> None:
    assert played(honest, cuda_scenes.sticky) == [
        None,
        ["cuCtxSynchronize", *STICKY],
        *[["cuCtxSetCurrent", *STICKY]] * 3,
    ]


def test_memory_info_follows_allocations_and_chunks(honest: dict[str, str]) -> None:
    assert played(honest, cuda_scenes.memory) == [SIZE, SIZE + (2 << 20), 0]


def test_bytes_come_back_from_where_they_were_put_and_a_released_context_keeps_nothing(honest: dict[str, str]) -> None:
    text, twice, gone, kept = played(honest, cuda_scenes.there_and_back)
    assert text == ["ward", "forkward"]
    assert twice == [None, None]
    assert gone == ["cuCtxSetCurrent", 201, "CUDA_ERROR_INVALID_CONTEXT"]
    assert kept == 0


def test_pinned_memory_ends_at_its_budget_and_comes_back_when_freed(drivers: Drivers) -> None:
    assert played(drivers.world("budget", "pinned memory: gives 4"), cuda_scenes.pinned) == [4, 1]


def test_managed_memory_serves_two_gpus(honest: dict[str, str]) -> None:
    assert played(honest, cuda_scenes.managed) == [0, None]


def test_a_chunk_keeps_its_content_over_a_remap(honest: dict[str, str]) -> None:
    seen, *refused = played(honest, cuda_scenes.remapped)
    assert seen == [0, None]
    assert refused == [["cuMemMap", *INVALID], ["cuMemcpyDtoH_v2", *INVALID], ["cuMemAddressFree", *INVALID]]


def test_streams_wait_for_what_they_are_told_to_and_for_nothing_else(honest: dict[str, str]) -> None:
    before, seen, after, impatient = played(honest, cuda_scenes.held)
    assert before == [False, False, True]
    assert seen
    assert after == [True, True, True]
    assert not impatient


def test_each_path_has_its_speed(honest: dict[str, str]) -> None:
    assert played(honest, cuda_scenes.speeds) == {
        "local": pytest.approx(2800, rel=0.05), "staged": pytest.approx(20, rel=0.02),
        "pinned in": pytest.approx(55, rel=0.02), "pinned out": pytest.approx(55, rel=0.02),
        "fill": pytest.approx(2800, rel=0.05), "peer": pytest.approx(394, rel=0.02),
        "peer fill": pytest.approx(394, rel=0.02), "chase_us": pytest.approx(0.7, rel=0.01),
    }  # fmt: skip


def test_another_process_uses_an_allocation_and_keeps_it_when_its_owner_is_killed(honest: dict[str, str]) -> None:
    idle = played(honest, cuda_scenes.in_use)
    with began(honest, cuda_scenes.owner) as owner:
        assert owner.stdin
        assert owner.stdout
        handle = json.loads(owner.stdout.readline())
        with began(honest, cuda_scenes.guest, handle) as guest:
            assert guest.stdin
            assert guest.stdout
            assert json.loads(guest.stdout.readline()) == [0, None]
            assert guest.stdout.readline() == '"written"\n'
            owner.stdin.write(f"{SEED}\n{SEED + 1}\n")
            owner.stdin.flush()
            assert [json.loads(owner.stdout.readline()) for _ in "12"] == [[WORDS, 0], [0, None]]
            assert played(honest, cuda_scenes.in_use)[0] > idle[0]
            owner.kill()
            owner.wait()
            guest.stdin.close()
            assert json.loads(guest.stdout.readline()) == [0, None]
            assert json.loads(guest.stdout.readline()) == ["cuIpcOpenMemHandle_v2", *INVALID]
    assert played(honest, cuda_scenes.in_use) == idle


@pytest.mark.parametrize("compiler", list(compilers())[1:])
def test_the_stand_in_works_by_every_other_compiler(tmp_path: Path, compiler: str) -> None:
    found = played(Drivers(tmp_path, compilers()[compiler]).world("honest"), copy_scenes.kernels_agree)
    assert {name for name, good in found.items() if not good} == set()
