"""What probes make of drivers that say too little, or nonsense: an absence with its cause, never a wrong fact."""

from __future__ import annotations

from typing import Any

import pytest
from answers import CRASHED, GONE, Answers, read

from warmspare.model.facts import Absent, Cause, Known, Reading
from warmspare.model.transcript import Failed, Gave, Listed, Said
from warmspare.probes.cuda import CudaLibrary
from warmspare.probes.gpu import GpuAccess, GpuIdentity, GpuMemory
from warmspare.probes.gpus import Gpus
from warmspare.probes.nvlink import NvLinks
from warmspare.probes.peers import PairTopology

COUNT = ("nvml", "nvmlDeviceGetCount")
CUDA = ("experiment", "cuda_count")
BUS = ("list", "/sys/bus/pci/devices")
DEV = ("list", "/dev")
UUIDS = [f"GPU-{n}{n}{n}{n}{n}{n}{n}{n}-1111-4111-8111-111111111111" for n in range(8)]


def refused(code: int, what: str = "an error") -> Failed:
    return Failed(cause=Cause.INVALID, detail=what, code=str(code))


def nvml(*buses: str) -> Answers:
    """NVML with GPUs at these addresses."""
    answers: Answers = {COUNT: Gave(len(buses))}
    for n, bus in enumerate(buses):
        answers["nvml", "nvmlDeviceGetUUID", str(n)] = Gave(UUIDS[n])
        answers["nvml", "nvmlDeviceGetPciInfo", str(n)] = Gave({"busId": f"0000{bus}"})
    return answers


def cuda(*buses: str, **more: Any) -> Answers:  # noqa: ANN401 # the experiment's own keys
    said = {"found": True, "init_code": 0, "count": len(buses), "uuids": UUIDS[: len(buses)], "broken": False}
    return {CUDA: Gave({**said, "pci_bus_ids": list(buses), "attributes": [{}] * len(buses), **more})}


def on_bus(*buses: str, driver: tuple[str, ...] = ()) -> Answers:
    answers: Answers = {BUS: Listed(buses), ("list", "/sys/bus/pci/drivers/nvidia"): Listed(driver)}
    for bus in buses:
        answers["read", f"/sys/bus/pci/devices/{bus}/vendor"] = Said("0x10de\n")
        answers["read", f"/sys/bus/pci/devices/{bus}/class"] = Said("0x030200\n")
    return answers


def gpus(answers: Answers) -> Gpus:
    seen = read(Gpus, answers)
    assert isinstance(seen, Known), seen
    return seen.value


def count_of(links: int) -> Gave:
    """NVML's field LINK_COUNT."""
    return Gave([{"field": 91, "scope": 0, "code": 0, "value": links}])


def invalid(reading: Reading[Any]) -> bool:
    """Whether it is absent because the answer could not be true."""
    return isinstance(reading, Absent) and reading.cause is Cause.INVALID


@pytest.mark.parametrize("count", [-1, 2000, 2**32, "4", None])
def test_a_count_that_cannot_be_true_is_no_inventory(count: object) -> None:
    assert invalid(read(Gpus, {COUNT: Gave(count)}))


def test_two_gpus_of_one_uuid_are_no_inventory() -> None:
    answers = nvml("0000:01:00.0", "0000:02:00.0") | {("nvml", "nvmlDeviceGetUUID", "1"): Gave(UUIDS[0])}
    assert invalid(read(Gpus, answers))


def test_cuda_alone_is_believed_only_if_it_names_as_many_as_there_are_device_files() -> None:
    eight: Answers = {DEV: Listed(tuple(f"nvidia{n}" for n in range(8)))}
    seen = read(Gpus, {**cuda("0000:01:00.0"), **eight, COUNT: GONE})
    assert isinstance(seen, Absent)
    assert "1 of 8" in seen.detail
    assert gpus({**cuda("0000:01:00.0"), DEV: Listed(("nvidia0",)), COUNT: GONE}).count == 1


def test_a_tegras_gpu_is_no_bus_and_yet_there() -> None:
    seen = read(Gpus, {DEV: Listed(("nvhost-gpu", "nvmap", "null"))})
    assert isinstance(seen, Absent)
    assert "Tegra" in seen.detail


LOST = refused(15, "nvmlDeviceGetUUID: GPU is lost")
THREE = ("0000:01:00.0", "0000:02:00.0", "0000:03:00.0")


def lost(*, driver: tuple[str, ...]) -> Answers:
    """The second of three GPUs is lost, and CUDA crashes; the bus still shows three."""
    answers = nvml(*THREE) | {CUDA: CRASHED} | on_bus(*THREE, driver=driver)
    return answers | {("nvml", "nvmlDeviceGetUUID", "1"): LOST, ("nvml", "nvmlDeviceGetPciInfo", "1"): LOST}


def test_a_lost_gpu_takes_the_address_that_only_the_bus_still_names() -> None:
    found = gpus(lost(driver=THREE))
    assert found.ids == (UUIDS[0], "0000:02:00.0", UUIDS[2])
    assert found.nvml == (0, 1, 2)


def test_a_lost_gpu_does_not_take_the_address_of_a_card_given_to_a_vm() -> None:
    found = gpus(lost(driver=(THREE[0], THREE[2])))
    assert found.ids == (UUIDS[0], "nvml:1", UUIDS[2])
    assert found.pci[1] is None


@pytest.mark.parametrize("links", [60, 2**32 - 1, -1])
def test_a_number_of_links_that_cannot_be_true_costs_one_gpu_its_links(links: int) -> None:
    answers = nvml("0000:01:00.0") | {
        ("nvml", "nvmlDeviceGetFieldValues", "0", "91", "0"): Gave(
            [{"field": 91, "scope": 0, "code": 0, "value": links}]
        )
    }
    assert invalid(read(NvLinks, answers, "gpu0"))


def test_a_missing_call_is_not_no_links() -> None:
    answers = nvml("0000:01:00.0") | {
        ("nvml", "nvmlDeviceGetFieldValues", "0", "91", "0"): refused(13),
        ("nvml", "nvmlDeviceGetNvLinkState", "0", "0"): refused(13),
    }
    assert invalid(read(NvLinks, answers, "gpu0"))


def test_memory_below_nothing_is_no_fact() -> None:
    told = {"version": 0, "total": -5 * 2**20, "used": 0, "free": 0, "reserved": 0}
    answers = nvml("0000:01:00.0") | {("nvml", "nvmlDeviceGetMemoryInfo", "0", "33554472"): Gave(told)}
    assert invalid(read(GpuMemory, answers, "gpu0"))


@pytest.mark.parametrize(("name", "capability"), [(None, [9, 0]), ("NVIDIA H200", [None, -3]), ("", [9, 0])])
def test_a_name_that_is_none_is_no_name(name: object, capability: object) -> None:
    answers = nvml("0000:01:00.0") | {
        ("nvml", "nvmlDeviceGetName", "0"): Gave(name),
        ("nvml", "nvmlDeviceGetCudaComputeCapability", "0"): Gave(capability),
    }
    assert invalid(read(GpuIdentity, answers, "gpu0"))


def test_a_driver_that_does_not_tell_how_a_gpu_is_reached_says_so() -> None:
    answers = nvml("0000:01:00.0") | {("nvml", "nvmlDeviceGetVirtualizationMode", "0"): refused(3)}
    seen = read(GpuAccess, answers, "gpu0")
    assert isinstance(seen, Known)
    assert seen.value.way == "not told"


def linked(remote: str, **kinds: object) -> Answers:
    """Two GPUs with one link each, whose other end has this address."""
    answers = nvml("0000:01:00.0", "0000:02:00.0")
    fields = [{"field": f, "scope": 0, "code": 0, "value": v} for f, v in ((165, 1), (166, 6), (164, 26562))]
    for n, peer in (("0", "1"), ("1", "0")):
        answers["nvml", "nvmlDeviceGetFieldValues", n, "91", "0"] = Gave(
            [{"field": 91, "scope": 0, "code": 0, "value": 1}]
        )
        answers["nvml", "nvmlDeviceGetFieldValues", n, "165", "0", "166", "0", "164", "0"] = Gave(fields)
        answers["nvml", "nvmlDeviceGetNvLinkRemoteDeviceType", n, "0"] = kinds.get("kind", refused(13))  # type: ignore[assignment]
        answers["nvml", "nvmlDeviceGetNvLinkRemotePciInfo", n, "0"] = Gave({"busId": remote})
        answers["nvml", "nvmlDeviceGetTopologyCommonAncestor", n, peer] = Gave(30)
    return answers


@pytest.mark.parametrize(
    ("answers", "joined"),
    [
        (linked("FFFFFFFF:FF:FF.0", kind=Gave(2)), 1),
        (linked("FFFFFFFF:FF:FF.0", kind=Gave(0)), 0),
        (linked("FFFFFFFF:FF:FF.0"), 1),
        (linked("00000000:05:00.0"), 0),
        (linked("00000000:05:00.0") | {("read", "/sys/bus/pci/devices/0000:05:00.0/class"): Said("0x068000\n")}, 1),
    ],
    ids=[
        "a switch that is hidden",
        "a GPU that is hidden",
        "of no type and hidden",
        "of no type and no switch",
        "a switch by class",
    ],
)
def test_what_a_link_joins_is_told_by_its_other_end(answers: Answers, joined: int) -> None:
    seen = read(PairTopology, answers, "gpu0→gpu1")
    assert isinstance(seen, Known), seen
    assert seen.value.nvlinks == joined


@pytest.mark.parametrize("path", ["/usr/local/cuda/compat/libcuda.so.1", "/opt/conda/cuda-compat/libcuda.so.1"])
def test_a_compatibility_library_is_none_of_the_drivers(path: str) -> None:
    said = {
        "found": True,
        "broken": False,
        "detail": "",
        "path": path,
        "real_path": path,
        "version": "590.1",
        "symbols": {},
    }
    seen = read(
        CudaLibrary, {("experiment", "cuda_library"): Gave({**said, "version": "590.1", "cuda_version": 13010})}
    )
    assert isinstance(seen, Known)
    assert (seen.value.origin, seen.value.cuda_version) == ("compatibility", "13.1")
