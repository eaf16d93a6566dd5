"""The driver of a machine: its kernel module, its libraries, and what CUDA says through them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from machines.asking import Answers, ask, files, folder, gave, nvml
from machines.cards import Card, Way, named, seen
from warmspare.model.facts import Cause
from warmspare.model.transcript import Failed

CUDA_OF: Final = {
    460: 11020,
    470: 11040,
    535: 12020,
    550: 12040,
    570: 12080,
    575: 12090,
    580: 13000,
    590: 13010,
    595: 13020,
}
"""The CUDA version of a driver branch. Source: CUDA toolkit release notes, table of driver versions."""
CHECKPOINT: Final = tuple(
    f"cuCheckpointProcess{name}"
    for name in ("Checkpoint", "GetRestoreThreadId", "GetState", "Lock", "Restore", "Unlock")
)
"""Since R570. Source: CUDA driver API, "CUDA Checkpointing"."""
VMM: Final = tuple(
    f"cuMem{name}"
    for name in (
        "AddressReserve", "AddressFree", "Create", "Release", "Map", "Unmap", "SetAccess",
        "GetAllocationGranularity", "ExportToShareableHandle", "ImportFromShareableHandle",
    )
)  # fmt: skip
LIBRARY: Final = "/usr/lib/x86_64-linux-gnu/libcuda.so.1"
NO_FILE: Final = "cannot open shared object file: No such file or directory"
NATIVE: Final = {
    "managed_memory": 1,
    "pageable_memory_access": 0,
    "concurrent_managed_access": 1,
    "host_register": 1,
    "host_pointer_for_registered": 1,
    "vmm": 1,
    "dma_buf": 1,
    "gpudirect_rdma": 1,
    "unified_addressing": 1,
}
GEFORCE: Final = {**NATIVE, "gpudirect_rdma": 0}


def cuda_of(major: int) -> int:
    """The CUDA version that a driver of this branch serves."""
    return CUDA_OF[max(branch for branch in CUDA_OF if branch <= major)]


class Driver(NamedTuple):
    """A driver by its version; `built` is the end of its line in /proc/driver/nvidia/version."""

    version: str
    open: bool
    built: str
    gcc: str = "gcc version 12.3.0 (Ubuntu 12.3.0-1ubuntu1~22.04)"
    arch: str = "x86_64"

    @property
    def major(self) -> int:
        """Its branch."""
        return int(self.version.split(".")[0])

    @property
    def banner(self) -> str:
        """What /proc/driver/nvidia/version says."""
        kind = f"Open Kernel Module for {self.arch}" if self.open else f"{self.arch} Kernel Module"
        return f"NVRM version: NVIDIA UNIX {kind}  {self.version}  {self.built}\nGCC version:  {self.gcc} \n"


def runs(  # noqa: PLR0913 # what a driver's answers hang on
    driver: Driver,
    cards: tuple[Card, ...],
    way: Callable[[int, int], Way] = lambda *_: Way(None, None),
    *,
    attributes: dict[str, int] = NATIVE,
    cuda_init: int = 0,
    cuda_cards: tuple[Card, ...] | None = None,
) -> Answers:
    """A driver that serves these cards; CUDA may be refused, or see others than NVML does."""
    cards = named(cards)
    nodes = [*(f"nvidia{n}" for n in range(len(cards))), "nvidiactl", "nvidia-uvm", "nvidia-uvm-tools"]
    return {
        **files({"/proc/driver/nvidia/version": driver.banner}),
        **versions(driver.version, driver.major),
        **seen(cards, way, driver.major),
        **library(driver.major, LIBRARY, f"{LIBRARY.removesuffix('1')}{driver.version}", driver.version),
        **cuda(driver.major, cards if cuda_cards is None else cuda_cards, attributes, cuda_init),
        **folder("/dev", "null", "zero", "tty", *nodes),
    }


def versions(version: str, major: int, nvml_version: str | None = None) -> Answers:
    """What NVML says of the driver as a whole."""
    return {
        **nvml("nvmlSystemGetDriverVersion", value=version),
        **nvml("nvmlSystemGetNVMLVersion", value=f"{cuda_of(major) // 1000}.{nvml_version or version}"),
    }


def library(major: int, path: str, real_path: str, version: str | None) -> Answers:
    """The libcuda that is found, and its symbols."""
    symbols = {**dict.fromkeys(VMM, True), **dict.fromkeys(CHECKPOINT, major >= 570)}
    found = {"found": True, "path": path, "real_path": real_path, "version": version, "broken": False, "detail": ""}
    return {
        ask("experiment", "cuda_library"): gave({**found, "cuda_version": cuda_of(major), "symbols": symbols}),
    }


def cuda(major: int, cards: tuple[Card, ...], attributes: dict[str, int], init: int, path: str = LIBRARY) -> Answers:
    """What cuInit says, and then each device, in CUDA's order."""
    good = init == 0
    own = [{**attributes, **_capability(card)} for card in cards]
    value: dict[str, Any] = {
        "found": True,
        "path": path,
        "init_code": init,
        "count": len(cards) if good else None,
        "driver_version": cuda_of(major),
        "uuids": [card.uuid for card in cards] if good else [],
        # CUDA writes hex in capitals, sysfs does not.
        "pci_bus_ids": [card.pci.upper() for card in cards] if good else [],
        "missing_symbols": [],
        "broken": False,
        "detail": "",
        "attributes": own if good else [],
    }
    return {ask("experiment", "cuda_count"): gave(value)}


def _capability(card: Card) -> dict[str, int]:
    major, minor = card.capability
    return {"compute_capability_major": major, "compute_capability_minor": minor}


def bus(devices: dict[str, tuple[str, str]]) -> Answers:
    """The PCI bus as sysfs shows it: vendor and class by address."""
    answers = folder("/sys/bus/pci/devices", *devices)
    for address, (vendor, kind) in devices.items():
        place = f"/sys/bus/pci/devices/{address}"
        answers |= files({f"{place}/vendor": f"{vendor}\n", f"{place}/class": f"{kind}\n"})
    return answers


def no_driver() -> Answers:
    """Neither a module nor a library, and no device files."""
    missing: dict[str, Any] = {"found": False, "path": None, "broken": False}
    reason = f"libcuda.so.1: {NO_FILE}; /usr/lib/wsl/lib/libcuda.so.1: {NO_FILE}"
    calls = ("SystemGetDriverVersion", "SystemGetNVMLVersion", "DeviceGetCount")
    count: dict[str, Any] = {"init_code": None, "count": None, "driver_version": None, "uuids": [], "pci_bus_ids": []}
    library_: dict[str, Any] = {"real_path": None, "version": None, "cuda_version": None, "symbols": {}}
    return {
        **files({"/proc/driver/nvidia/version": None}),
        **{
            ask("nvml", f"nvml{c}"): Failed(cause=None, detail=f"libnvidia-ml.so.1: {NO_FILE}", code="12")
            for c in calls
        },
        ask("experiment", "cuda_count"): gave(
            {**missing, **count, "missing_symbols": [], "detail": reason, "attributes": []}
        ),
        ask("experiment", "cuda_library"): gave({**missing, **library_, "detail": reason}),
        **folder("/dev", "null", "zero", "tty"),
    }


def nvml_refuses(code: int) -> Answers:
    """NVML that does not even start."""
    calls = ("SystemGetDriverVersion", "SystemGetNVMLVersion", "DeviceGetCount")
    answers: Answers = {}
    for call in calls:
        answers |= nvml(f"nvml{call}", code=code)
    return answers


def unpublished(*questions: str) -> Answers:
    """NVML questions whose answer on such a machine nobody published."""
    detail = "no published log shows it"
    return {ask("nvml", *q.split()): Failed(cause=Cause.UNASKED, detail=detail) for q in questions}
