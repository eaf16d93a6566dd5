"""What CUDA's driver library says before anybody asks it for memory: which file it is, cuInit's code, attributes."""

from __future__ import annotations

from typing import ClassVar, Final, Literal

from warmspare.host.port import Host, Unreadable
from warmspare.model.facts import Cause, Count, Fact, Kind, Text
from warmspare.probes.api import late, probe
from warmspare.probes.gpu_sources import broken_libcuda, of_cuda
from warmspare.probes.gpus import GPU, Gpu

NAMES: Final = {
    0: "SUCCESS", 1: "INVALID_VALUE", 2: "OUT_OF_MEMORY", 3: "NOT_INITIALIZED", 34: "STUB_LIBRARY",
    46: "DEVICE_UNAVAILABLE", 100: "NO_DEVICE", 101: "INVALID_DEVICE", 214: "ECC_UNCORRECTABLE",
    304: "OPERATING_SYSTEM", 800: "NOT_PERMITTED", 801: "NOT_SUPPORTED", 802: "SYSTEM_NOT_READY",
    803: "SYSTEM_DRIVER_MISMATCH", 804: "COMPAT_NOT_SUPPORTED_ON_DEVICE", 805: "MPS_CONNECTION_FAILED",
    806: "MPS_RPC_FAILURE", 807: "MPS_SERVER_NOT_READY", 999: "UNKNOWN",
}  # fmt: skip
"""CUresult by number, without CUDA_ERROR_. Source: cuda.h."""


class CudaLibrary(Fact, frozen=True, kw_only=True):
    """The libcuda.so.1 that a program gets here.

    `origin` is the folder it comes from: the driver's, WSL's (`/usr/lib/wsl/lib`), a toolkit's stub that can do
    nothing, or a toolkit's compatibility library. `version` is the user-mode driver's, None where the file's
    name carries none. `cuda_version` is the newest CUDA it serves. The rest are the calls that it lacks.
    """

    found: bool
    origin: Literal["driver", "wsl", "toolkit stub", "compatibility"] | None
    path: Text | None
    version: str | None
    cuda_version: str | None
    checkpoint_missing: tuple[str, ...]
    vmm_missing: tuple[str, ...]


class CudaInit(Fact, frozen=True, kw_only=True):
    """The code that cuInit gave, and its name; both None without a library."""

    code: Count | None
    name: str | None


class CudaDevices(Fact, frozen=True, kw_only=True):
    """How many GPUs CUDA lists."""

    count: Count


class CudaAttributes(Fact, frozen=True, kw_only=True):
    """What CUDA says that a GPU can do; None where this driver does not know the question."""

    KIND: ClassVar[Kind] = GPU

    managed_memory: bool | None
    concurrent_managed_access: bool | None
    pageable_memory_access: bool | None
    host_register: bool | None
    host_pointer_for_registered: bool | None
    vmm: bool | None
    dma_buf: bool | None
    gpudirect_rdma: bool | None


@probe
def cuda_library(host: Host) -> CudaLibrary:
    """Loaded and looked at; never initialised."""
    answer = host.experiment("cuda_library")
    if refusal := broken_libcuda(answer):
        raise refusal
    missing = [name for name, there in answer["symbols"].items() if not there]
    version = answer["cuda_version"]
    return CudaLibrary(
        found=answer["found"],
        origin=_origin(f"{answer['path']} {answer['real_path']}") if answer["found"] else None,
        path=answer["path"],
        version=answer["version"],
        cuda_version=f"{version // 1000}.{version % 1000 // 10}" if version else None,
        checkpoint_missing=tuple(name for name in missing if name.startswith("cuCheckpoint")),
        vmm_missing=tuple(name for name in missing if not name.startswith("cuCheckpoint")),
    )


def _origin(paths: str) -> Literal["driver", "wsl", "toolkit stub", "compatibility"]:
    if "/wsl/" in paths:
        return "wsl"
    if "/stubs/" in paths:
        return "toolkit stub"
    return "compatibility" if "/compat/" in paths or "cuda-compat" in paths else "driver"


@probe
@late
def cuda_init(host: Host) -> CudaInit:
    """802 is a fabric that is not ready; 304 a system that keeps the card to itself, Windows above all.

    Where a fabric is not ready, other processes have been given 304 too. Source: wilicc/gpu-burn#92.
    """
    answer = host.experiment("cuda_count")
    if refusal := broken_libcuda(answer):
        raise refusal
    code = answer["init_code"]
    return CudaInit(code=code, name=None if code is None else NAMES.get(code, f"CUDA_ERROR {code}"))


@probe
@late
def cuda_devices(host: Host) -> CudaDevices:
    """Fewer than there are where CUDA_VISIBLE_DEVICES hides some; with MIG, the one slice that CUDA takes."""
    heard = of_cuda(host)
    if heard.silence:
        raise heard.silence
    return CudaDevices(count=len(heard.listed))


@probe
@late
def cuda_attributes(host: Host, gpu: Gpu) -> CudaAttributes:
    """Source: cuDeviceGetAttribute; NVIDIA's WSL guide: "CUDA queries will say"."""
    told = host.experiment("cuda_count")["attributes"][_ordinal(host, gpu)]
    if told is None:
        raise Unreadable(Cause.INVALID, "CUDA counts this GPU and does not open it")
    values = {name: None if told.get(name) is None else bool(told[name]) for name in CudaAttributes.__struct_fields__}
    return CudaAttributes(**values)


def _ordinal(host: Host, gpu: Gpu) -> int:
    """Its number in CUDA, which counts in an order of its own: matched by UUID, else by PCI address.

    A MIG slice has a UUID of its own in CUDA, and its parent's address.
    """
    heard = of_cuda(host)
    if heard.silence:
        raise heard.silence
    found = [one.place for one in heard.listed if one.uuid == gpu.id] or [
        one.place for one in heard.listed if one.pci and one.pci == gpu.pci
    ]
    if not found:
        raise Unreadable(Cause.INVALID, "CUDA does not list this GPU: hidden, or not usable by it")
    return found[0]
