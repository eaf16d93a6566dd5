"""One GPU as NVML describes it: what it is, its memory, its modes, its PCIe link, who else is on it."""

from __future__ import annotations

from typing import ClassVar, Final, Literal

from warmspare.host.port import Host, Unreadable
from warmspare.model.facts import Count, Fact, Kind, Text
from warmspare.probes.api import late, probe
from warmspare.probes.gpus import GPU, Gpu
from warmspare.probes.nvml import FUNCTION_NOT_FOUND, if_supported, newest_if_supported, number, text
from warmspare.probes.platform import wsl_signals

MEMORY_V2: Final = 0x02000028
"""nvmlMemory_v2: the version that tells the driver's reserve from what is used. Source: nvml.h."""
LIMIT: Final = 1000
"""More than any version of a compute capability."""
Switch = Literal["on", "off", "unsupported"]
SWITCH: Final[dict[int, Switch]] = {0: "off", 1: "on"}


class _OfGpu(Fact, frozen=True, kw_only=True):
    KIND: ClassVar[Kind] = GPU


class GpuIdentity(_OfGpu, frozen=True, kw_only=True):
    """Its product name and compute capability, such as `9.0`."""

    name: Text
    compute_capability: Text


class GpuMemory(_OfGpu, frozen=True, kw_only=True):
    """Its memory in MiB, rounded up as nvidia-smi does.

    `reserved_mib` is the driver's own, None where an old NVML counts it as used. All are None for a GPU that has no
    memory but the host's.
    """

    total_mib: Count | None
    used_mib: Count | None
    free_mib: Count | None
    reserved_mib: Count | None


class Mig(_OfGpu, frozen=True, kw_only=True):
    """Whether it is split into instances, now and after its next reset."""

    current: Switch
    pending: Switch


class Ecc(_OfGpu, frozen=True, kw_only=True):
    """Whether its memory corrects errors, now and after the next restart."""

    current: Switch
    pending: Switch


class Persistence(_OfGpu, frozen=True, kw_only=True):
    """Whether the driver keeps it initialised while nobody uses it."""

    mode: Switch


class ComputeMode(_OfGpu, frozen=True, kw_only=True):
    """Who may make a CUDA context on it."""

    mode: Literal["default", "exclusive-thread", "prohibited", "exclusive-process"]


class DriverModel(_OfGpu, frozen=True, kw_only=True):
    """Windows' driver model as NVML tells it; None with a Linux driver."""

    current: Literal["wddm", "tcc", "mcdm"] | None


class GpuAccess(_OfGpu, frozen=True, kw_only=True):
    """How it is reached, as the driver says of itself.

    native: the machine's own. passthrough: a whole PCI device given to this VM. vgpu: a share of one.
    vgpu-host: this machine gives out shares. gpu-pv: Windows' paravirtualisation under WSL2.
    """

    way: Literal["native", "passthrough", "vgpu", "vgpu-host", "gpu-pv", "not told"]


class PcieLink(_OfGpu, frozen=True, kw_only=True):
    """Its PCIe link: generation and lanes, now (an idle GPU may turn it down) and at most; None: not told."""

    generation: Count | None
    width: Count | None
    max_generation: Count | None
    max_width: Count | None


class GpuProcesses(_OfGpu, frozen=True, kw_only=True):
    """How many processes are on it, by kind; None where this NVML does not tell (WSL2; of MPS, an old one too).

    `mps` are clients of CUDA's Multi-Process Service.
    """

    compute: Count | None
    graphics: Count | None
    mps: Count | None


class GpuNuma(_OfGpu, frozen=True, kw_only=True):
    """The NUMA nodes whose memory is near to it; empty where the platform does not say."""

    nodes: tuple[Count, ...]


@probe
def gpu_identity(host: Host, gpu: Gpu) -> GpuIdentity:
    """Source: nvmlDeviceGetName, nvmlDeviceGetCudaComputeCapability."""
    major, minor = host.nvml("nvmlDeviceGetCudaComputeCapability", gpu.nvml)
    capability = f"{number(major, LIMIT)}.{number(minor, LIMIT)}"
    return GpuIdentity(name=text(host.nvml("nvmlDeviceGetName", gpu.nvml)), compute_capability=capability)


@probe
@late
def gpu_memory(host: Host, gpu: Gpu) -> GpuMemory:
    """Asked when our own cuInit is over, which makes the driver take some.

    Source: nvmlDeviceGetMemoryInfo_v2 (since driver 510), else the older call.
    """
    asked = ("nvmlDeviceGetMemoryInfo", gpu.nvml)
    told = newest_if_supported(host, (*asked, MEMORY_V2), asked)
    if told is None:
        return GpuMemory(total_mib=None, used_mib=None, free_mib=None, reserved_mib=None)
    mib = {name: -(-int(told[name]) // 2**20) for name in ("total", "used", "free", "reserved") if name in told}
    return GpuMemory(
        total_mib=mib["total"], used_mib=mib["used"], free_mib=mib["free"], reserved_mib=mib.get("reserved")
    )


@probe
def mig(host: Host, gpu: Gpu) -> Mig:
    """Source: nvmlDeviceGetMigMode."""
    current, pending = _switches(host, "nvmlDeviceGetMigMode", gpu)
    return Mig(current=current, pending=pending)


@probe
def ecc(host: Host, gpu: Gpu) -> Ecc:
    """Source: nvmlDeviceGetEccMode."""
    current, pending = _switches(host, "nvmlDeviceGetEccMode", gpu)
    return Ecc(current=current, pending=pending)


@probe
def persistence(host: Host, gpu: Gpu) -> Persistence:
    """Source: nvmlDeviceGetPersistenceMode."""
    mode = if_supported(host, "nvmlDeviceGetPersistenceMode", gpu.nvml)
    return Persistence(mode="unsupported" if mode is None else SWITCH[int(mode)])


@probe
def compute_mode(host: Host, gpu: Gpu) -> ComputeMode:
    """Source: nvmlDeviceGetComputeMode; a driver without modes lets everybody in."""
    modes: tuple[Literal["default", "exclusive-thread", "prohibited", "exclusive-process"], ...]
    modes = ("default", "exclusive-thread", "prohibited", "exclusive-process")
    return ComputeMode(mode=modes[int(if_supported(host, "nvmlDeviceGetComputeMode", gpu.nvml) or 0)])


@probe
def driver_model(host: Host, gpu: Gpu) -> DriverModel:
    """NVML calls TCC by its older name WDM. Source: nvml.h, nvmlDriverModel_t."""
    models: tuple[Literal["wddm", "tcc", "mcdm"], ...] = ("wddm", "tcc", "mcdm")
    if not wsl_signals(host):  # an old NVML lacks the call; a Linux driver has no models
        return DriverModel(current=None)
    told = if_supported(host, "nvmlDeviceGetDriverModel", gpu.nvml)
    return DriverModel(current=None if told is None else models[int(told[0])])


@probe
def gpu_access(host: Host, gpu: Gpu) -> GpuAccess:
    """NVML's virtualization mode; under WSL2 there is only one way. Source: nvml.h."""
    if host.exists("/dev/dxg") and wsl_signals(host):
        return GpuAccess(way="gpu-pv")
    ways: tuple[Literal["native", "passthrough", "vgpu", "vgpu-host"], ...]
    ways = ("native", "passthrough", "vgpu", "vgpu-host", "vgpu-host")
    mode = if_supported(host, "nvmlDeviceGetVirtualizationMode", gpu.nvml)
    return GpuAccess(way="not told" if mode is None else ways[number(mode, len(ways))])


@probe
def pcie_link(host: Host, gpu: Gpu) -> PcieLink:
    """Source: nvmlDeviceGetCurrPcieLinkGeneration and its three sisters. In a VM it may be a pretence."""

    def told(what: str) -> int | None:
        given = if_supported(host, f"nvmlDeviceGet{what}", gpu.nvml)
        return None if given is None else int(given)

    return PcieLink(
        generation=told("CurrPcieLinkGeneration"),
        width=told("CurrPcieLinkWidth"),
        max_generation=told("MaxPcieLinkGeneration"),
        max_width=told("MaxPcieLinkWidth"),
    )


@probe
@late
def gpu_processes(host: Host, gpu: Gpu) -> GpuProcesses:
    """Processes of other pid namespaces are counted too.

    Source: nvmlDeviceGetComputeRunningProcesses_v3, since driver 510; _v2 before; its sisters for graphics and MPS.
    """

    def count(kind: str) -> int | None:
        call = f"nvmlDeviceGet{kind}RunningProcesses"
        listed = newest_if_supported(host, (call, gpu.nvml), (f"{call}_v2", gpu.nvml))
        return None if listed is None else len(listed)

    def of_mps() -> int | None:
        try:
            return count("MPSCompute")
        except Unreadable as unreadable:
            if unreadable.code != FUNCTION_NOT_FOUND:
                raise
            return None

    return GpuProcesses(compute=count("Compute"), graphics=count("Graphics"), mps=of_mps())


@probe
def gpu_numa(host: Host, gpu: Gpu) -> GpuNuma:
    """NVML's bit set of the first 256 nodes. Source: nvmlDeviceGetMemoryAffinity, scope node."""
    words = if_supported(host, "nvmlDeviceGetMemoryAffinity", gpu.nvml, 4, 0) or ()
    bits = sum(int(word) << 64 * place for place, word in enumerate(words))
    return GpuNuma(nodes=tuple(node for node in range(256) if bits >> node & 1))


def _switches(host: Host, call: str, gpu: Gpu) -> tuple[Switch, Switch]:
    modes = if_supported(host, call, gpu.nvml)
    return (SWITCH[int(modes[0])], SWITCH[int(modes[1])]) if modes is not None else ("unsupported", "unsupported")
