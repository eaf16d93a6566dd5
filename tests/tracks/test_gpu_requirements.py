"""What the requirements on drivers, GPUs and the ways between them say, branch by branch; and what all owe a reader."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator
from typing import Final, Literal, TypeAlias

import pytest
from hand_made import Row, ask, can_name, gpus, holds, not_shown, requirements_of, table, tree
from msgspec.structs import replace

from warmspare import catalogue
from warmspare import tracks as track_package
from warmspare.model.facts import Fact
from warmspare.probes.cuda import CudaAttributes, CudaDevices, CudaInit, CudaLibrary
from warmspare.probes.driver import Driver, NvmlLibrary
from warmspare.probes.fabric import Fabric, NvSwitches
from warmspare.probes.gpu import (
    ComputeMode,
    DriverModel,
    Ecc,
    GpuAccess,
    GpuIdentity,
    GpuMemory,
    GpuNuma,
    GpuProcesses,
    Mig,
    PcieLink,
    Persistence,
)
from warmspare.probes.kernel import IoUring
from warmspare.probes.mps import Mps
from warmspare.probes.nvlink import NvLink, NvLinks, NvLinksUp
from warmspare.probes.peers import PairTopology, PeerAccess
from warmspare.probes.platform import Platform
from warmspare.probes.rdma import RdmaDevice, RdmaDevices
from warmspare.probes.vendors import OtherGpus
from warmspare.tracks import cuda_requirements as cuda
from warmspare.tracks import driver_requirements as driver
from warmspare.tracks import gpu_requirements as gpu
from warmspare.tracks import peer_requirements as peer
from warmspare.tracks import suspend_requirements as suspend

MET, UNMET, UNDECIDED, NOT_HERE = "met", "unmet", "undecided", "not_applicable"

# --- the driver --------------------------------------------------------------------------------------------

NATIVE: Final = Platform(kind="bare-metal", hypervisor=None, signals=())
VM: Final = Platform(kind="vm", hypervisor="kvm", signals=("dmi",))
WSL2: Final = Platform(kind="wsl2", hypervisor="hyper-v", signals=("dxg", "osrelease"))
LIBRARY: Final = CudaLibrary(
    found=True, origin="driver", path="/usr/lib/libcuda.so.1", version="580.1.2", cuda_version="13.0",
    checkpoint_missing=(), vmm_missing=(),
)  # fmt: skip
NO_LIBRARY: Final = CudaLibrary(
    found=False, origin=None, path=None, version=None, cuda_version=None, checkpoint_missing=(), vmm_missing=()
)
NVML: Final = NvmlLibrary(found=True, version="580.1.2", code=None, refusal=None)
KERNEL: Final = Driver(kernel_version="580.1.2", module="open")
WSL_LIBRARY: Final = replace(LIBRARY, origin="wsl", version=None)
COMPAT: Final = replace(LIBRARY, origin="compatibility", version="590.3.4")
MPS: Final = Mps(daemon=True, own_directory=False)
GB10: Final = GpuIdentity(name="NVIDIA GB10", compute_capability="12.1")
H200: Final = GpuIdentity(name="NVIDIA H200", compute_capability="9.0")


def init(code: int | None) -> CudaInit:
    return CudaInit(code=code, name=None if code is None else f"NAME_{code}")


def nvml(code: str) -> NvmlLibrary:
    return NvmlLibrary(found=True, version=None, code=code, refusal=f"refusal {code}")


def init_row(code: int, remedy: str, platform: Platform = NATIVE) -> Row:
    return Row(driver.cuda_initialises, (init(code), platform), UNMET, remedy, f"cuInit fails: {code} NAME_{code}")


def nvml_row(code: str, remedy: str, platform: Platform = NATIVE) -> Row:
    return Row(driver.nvml_answers, (nvml(code), platform), UNMET, remedy, f"code {code} (refusal {code})")


def versions(kernel: str | None, library: CudaLibrary, nvml: str | None) -> tuple[Driver, CudaLibrary, NvmlLibrary]:
    return Driver(kernel_version=kernel, module=None), library, replace(NVML, version=nvml)


DRIVER: Final = (
    Row(driver.cuda_initialises, (init(0), NATIVE), MET, None, "cuInit succeeds"),
    Row(driver.cuda_initialises, (init(None), NATIVE), UNDECIDED, "install-driver", "no libcuda.so.1"),
    init_row(34, "use-the-real-libcuda"),
    init_row(100, "show-cuda-the-gpu"),
    init_row(304, "leave-tcc", WSL2),
    init_row(304, "reload-driver"),
    init_row(304, "reload-driver", VM),
    init_row(802, "start-fabric-manager"),
    init_row(802, "start-fabric-manager", WSL2),
    init_row(803, "match-driver-versions"),
    init_row(804, "drop-compatibility-library"),
    init_row(805, "restart-mps"),
    init_row(806, "restart-mps"),
    init_row(807, "restart-mps"),
    init_row(46, "reload-driver"),
    init_row(999, "restart-wsl", WSL2),
    init_row(999, "reload-driver"),
    Row(driver.nvml_answers, (NVML, NATIVE), MET, None, "NVML 580.1.2 works"),
    Row(driver.nvml_answers, (replace(NVML, found=False, version=None), VM), UNDECIDED, "install-driver", "no NVML"),
    nvml_row("9", "load-driver"),
    nvml_row("17", "leave-tcc", WSL2),
    nvml_row("17", "reload-driver"),
    nvml_row("18", "match-driver-versions"),
    nvml_row("18", "restart-wsl", WSL2),
    nvml_row("12", "install-driver"),
    nvml_row("999", "reload-driver"),
    Row(driver.driver_versions_agree, versions("580.1.2", LIBRARY, "580.1.2"), MET, None, "one version (580.1.2)"),
    Row(driver.driver_versions_agree, versions("580.1.2", NO_LIBRARY, None), MET, None, "one version (580.1.2)"),
    Row(driver.driver_versions_agree, versions(None, LIBRARY, "570.1.2"), MET, None, "not every part tells"),
    Row(driver.driver_versions_agree, versions("581.5", WSL_LIBRARY, "570.1.2"), MET, None, "not every part tells"),
    Row(
        driver.driver_versions_agree, versions("580.1.2", LIBRARY, "570.9.9"), UNMET, "match-driver-versions",
        "kernel module 580.1.2, libcuda 580.1.2, NVML 570.9.9",
    ),
    Row(
        driver.driver_versions_agree, versions("570.9.9", LIBRARY, None), UNMET, "match-driver-versions",
        "kernel module 570.9.9, libcuda 580.1.2, NVML unknown",
    ),
    Row(driver.driver_versions_agree, versions("580.1.2", COMPAT, "580.1.2"), MET, None, "library over kernel"),
    Row(driver.driver_versions_agree, versions("580.1.2", COMPAT, None), MET, None, "libcuda 590.3.4 is a toolkit's"),
    Row(
        driver.driver_versions_agree, versions("580.1.2", COMPAT, "570.9.9"), UNMET, "match-driver-versions",
        "libcuda 590.3.4, NVML 570.9.9",
    ),
    Row(driver.libcuda_is_real, (LIBRARY,), MET, None, "(/usr/lib/libcuda.so.1, CUDA 13.0)"),
    Row(driver.libcuda_is_real, (WSL_LIBRARY,), MET, None, "the driver's own"),
    Row(
        driver.libcuda_is_real, (replace(LIBRARY, origin="toolkit stub"),), UNMET, "use-the-real-libcuda",
        "toolkit's stub (/usr/lib/libcuda.so.1)",
    ),
    Row(driver.libcuda_is_real, (NO_LIBRARY,), UNDECIDED, "install-driver", "no libcuda.so.1"),
    Row(driver.checkpoint_calls_are_there, (LIBRARY,), MET, None, "libcuda 580.1.2 has all calls of the checkpoint"),
    Row(driver.checkpoint_calls_are_there, (WSL_LIBRARY,), MET, None, "libcuda for CUDA 13.0 has all"),
    Row(
        driver.checkpoint_calls_are_there, (replace(WSL_LIBRARY, cuda_version=None),), MET, None,
        "for CUDA of an unknown version",
    ),
    Row(
        driver.checkpoint_calls_are_there, (replace(LIBRARY, checkpoint_missing=("one", "two", "three")),), UNMET,
        "newer-driver", "libcuda 580.1.2 lacks one, two",
    ),
    Row(driver.checkpoint_calls_are_there, (NO_LIBRARY,), UNDECIDED, "install-driver", "no libcuda.so.1"),
    Row(driver.vmm_calls_are_there, (LIBRARY,), MET, None, "has all calls of virtual memory"),
    Row(driver.vmm_calls_are_there, (replace(LIBRARY, checkpoint_missing=("one",)),), MET, None, "virtual memory"),
    Row(driver.vmm_calls_are_there, (replace(LIBRARY, vmm_missing=("cuMemMap",)),), UNMET, "newer-driver", "cuMemMap"),
    Row(driver.vmm_calls_are_there, (NO_LIBRARY,), UNDECIDED, "install-driver", "no libcuda.so.1"),
    Row(driver.gpu_stays_initialised, (Persistence(mode="on"),), MET, None, "keeps the GPU initialised"),
    Row(driver.gpu_stays_initialised, (Persistence(mode="off"),), UNMET, "turn-on-persistence", "mode is off"),
    Row(driver.gpu_stays_initialised, (Persistence(mode="unsupported"),), NOT_HERE, None, "has no persistence mode"),
    Row(driver.gpu_driver_model_is_known, (DriverModel(current=None),), MET, None, "a Linux driver"),
    Row(driver.gpu_driver_model_is_known, (DriverModel(current="mcdm"),), MET, None, "driver model MCDM"),
)  # fmt: skip

# --- suspending ---------------------------------------------------------------------------------------------


def of_version(version: str | None, module: Literal["open", "proprietary"] | None = "open") -> Driver:
    return Driver(kernel_version=version, module=module)


def may_be_lost(gpus_here: int, words: str) -> Row:
    facts = (of_version("580.159.04"), gpus(gpus_here))
    return Row(suspend.not_every_program_survives, facts, UNMET, "try-the-program-first", words)


def ending(status: str, remedy: str | None, words: str, driver: Driver) -> Row:
    return Row(suspend.restored_processes_can_be_ended, (driver,), status, remedy, words)


SUSPEND: Final = (
    Row(suspend.checkpoint_works_on_this_gpu, (H200,), MET, None, "nothing documented speaks against NVIDIA H200"),
    Row(suspend.checkpoint_works_on_this_gpu, (GB10,), UNMET, None, "on NVIDIA GB10 the calls are there"),
    Row(suspend.driver_has_checkpoint_api, (of_version(None),), UNDECIDED, "install-driver", "names no version"),
    Row(suspend.driver_has_checkpoint_api, (of_version("565.99"),), UNMET, "newer-driver", "driver 565.99 is older"),
    Row(suspend.driver_has_checkpoint_api, (of_version("570.1"),), MET, None, "driver 570.1 has the checkpoint API"),
    Row(suspend.driver_abilities_are_known, (of_version(None),), UNDECIDED, "install-driver", "names no version"),
    Row(suspend.driver_abilities_are_known, (of_version("569.9"),), UNMET, "newer-driver", "569.9 has none of it"),
    Row(suspend.driver_abilities_are_known, (of_version("570.1"),), MET, None, "documentation: suspend and resume"),
    Row(suspend.driver_abilities_are_known, (of_version("580.1"),), MET, None, "resume, move to another GPU"),
    Row(
        suspend.driver_abilities_are_known, (of_version("614.9"),), MET, None, "GPU, programs that share memory by CUDA"
    ),
    Row(suspend.driver_abilities_are_known, (of_version("615.1"),), MET, None, "CUDA IPC, storage of one's own"),
    Row(suspend.programs_are_no_mps_clients, (MPS,), UNMET, "restart-mps", "becomes its client"),
    Row(suspend.programs_are_no_mps_clients, (replace(MPS, daemon=False),), MET, None, "no MPS daemon"),
    Row(suspend.not_every_program_survives, (of_version(None), gpus(2)), NOT_HERE, None, "there is no driver"),
    Row(suspend.not_every_program_survives, (of_version("565.1"), gpus(2)), NOT_HERE, None, "there is no driver"),
    may_be_lost(1, "when we tried them on driver 580.159.04: managed memory: refused (801)"),
    may_be_lost(2, "refused (801), peer access between GPUs and a block of 512 MiB: lost on restore, NCCL"),
    ending(NOT_HERE, None, "there is no driver", of_version(None)),
    ending(UNMET, "suspend-before-killing", "open module 595.71.05", of_version("595.71.05")),
    ending(UNDECIDED, "suspend-before-killing", "how 595.71.05 takes", of_version("595.71.05", "proprietary")),
    ending(UNDECIDED, "suspend-before-killing", "how 595.71.06 takes", of_version("595.71.06")),
    ending(MET, None, "many times on 580.159.04", of_version("580.159.04", None)),
    Row(suspend.programs_hold_no_rings, (IoUring(disabled=None),), NOT_HERE, None, "has no io_uring"),
    Row(suspend.programs_hold_no_rings, (IoUring(disabled=2),), MET, None, "io_uring is off"),
    *(
        Row(suspend.programs_hold_no_rings, (IoUring(disabled=some),), UNMET, "turn-off-io-uring", "io_uring is on")
        for some in (0, 1)
    ),
)


def test_fewer_abilities_are_named_for_an_older_driver() -> None:
    for version, last in (("579.9", "suspend and resume"), ("609.9", "another GPU"), ("614.9", "CUDA IPC")):
        assert ask(suspend.driver_abilities_are_known, of_version(version)).finding.text.endswith(last)
    assert "peer access" not in ask(suspend.not_every_program_survives, KERNEL, gpus(1)).finding.text


# --- CUDA's attributes --------------------------------------------------------------------------------------

ALL: Final = CudaAttributes(
    managed_memory=True, concurrent_managed_access=True, pageable_memory_access=True, host_register=True,
    host_pointer_for_registered=True, vmm=True, dma_buf=True, gpudirect_rdma=True,
)  # fmt: skip
WAY: Final = {way: GpuAccess(way=way) for way in ("native", "passthrough", "vgpu", "vgpu-host", "gpu-pv")}
TURNS: Final = replace(ALL, concurrent_managed_access=False)
UNMANAGED: Final = replace(ALL, managed_memory=False, concurrent_managed_access=False)

CARD: Final = RdmaDevices(devices=(RdmaDevice(name="mlx5_0", node_type="CA", ports=()),), files=1)
CLOSED: Final = replace(ALL, dma_buf=False, gpudirect_rdma=False)

CUDA: Final = (
    Row(cuda.gpu_lets_network_cards_in, (ALL, CARD), MET, None, "(dma-buf: True, GPUDirect RDMA: True)"),
    Row(cuda.gpu_lets_network_cards_in, (replace(CLOSED, gpudirect_rdma=True), CARD), MET, None, "dma-buf: False"),
    Row(cuda.gpu_lets_network_cards_in, (CLOSED, CARD), UNMET, None, "no way to its memory"),
    Row(cuda.gpu_lets_network_cards_in, (ALL, replace(CARD, devices=())), NOT_HERE, None, "no RDMA device"),
    Row(cuda.memory_kinds_are_known, (ALL,), MET, None, "reached by the GPU: yes; registered memory under the same ad"),
    Row(cuda.memory_kinds_are_known, (replace(ALL, pageable_memory_access=False),), MET, None, "by the GPU: no"),
    Row(cuda.memory_kinds_are_known, (replace(ALL, host_pointer_for_registered=None),), MET, None, "address: not told"),
    Row(cuda.vmm_is_supported, (ALL, WAY["native"]), MET, None, "that it manages virtual memory"),
    Row(cuda.vmm_is_supported, (replace(ALL, vmm=None), WAY["vgpu"]), UNDECIDED, "newer-driver", "does not answer"),
    Row(cuda.vmm_is_supported, (replace(ALL, vmm=False), WAY["gpu-pv"]), UNMET, "newer-driver", "does not manage"),
    Row(
        cuda.vmm_is_supported, (replace(ALL, vmm=False), WAY["vgpu"]), UNMET, "unified-memory-in-vgpu",
        "does not manage virtual memory on this GPU",
    ),
    Row(cuda.managed_memory_is_whole, (ALL, WAY["passthrough"]), MET, None, "at the same time"),
    Row(cuda.managed_memory_is_whole, (TURNS, WAY["gpu-pv"]), UNMET, "native-linux", "take turns"),
    Row(cuda.managed_memory_is_whole, (TURNS, WAY["vgpu"]), UNMET, "unified-memory-in-vgpu", "take turns"),
    Row(cuda.managed_memory_is_whole, (UNMANAGED, WAY["gpu-pv"]), UNMET, "native-linux", "there is no managed memory"),
    Row(cuda.managed_memory_is_whole, (UNMANAGED, WAY["vgpu"]), UNMET, "unified-memory-in-vgpu", "there is no managed"),
    *(
        Row(
            cuda.managed_memory_is_whole, (replace(ALL, **{name: None}), WAY["native"]), UNDECIDED, "newer-driver",
            "does not answer",
        )
        for name in ("managed_memory", "concurrent_managed_access")
    ),
    Row(cuda.host_memory_can_be_pinned, (ALL,), MET, None, "can be pinned"),
    Row(cuda.host_memory_can_be_pinned, (replace(ALL, host_register=False),), UNMET, "native-linux", "cannot be pi"),
    Row(cuda.host_memory_can_be_pinned, (replace(ALL, host_register=None),), UNDECIDED, "newer-driver", "not answer"),
)  # fmt: skip

# --- GPUs ---------------------------------------------------------------------------------------------------


def memory(total: int | None, used: int | None, free: int | None, reserved: int | None = 0) -> GpuMemory:
    return GpuMemory(total_mib=total, used_mib=used, free_mib=free, reserved_mib=reserved)


SOME: Final = memory(1000, 0, 1000)


def on_it(compute: int | None, graphics: int | None) -> GpuProcesses:
    return GpuProcesses(compute=compute, graphics=graphics, mps=None)


def pcie(width: int | None, max_width: int | None) -> PcieLink:
    return PcieLink(generation=1, width=width, max_generation=5, max_width=max_width)


JOINED: Final = Fabric(state="completed", status=0, clique=7, faults=())

GPU: Final = (
    Row(gpu.every_gpu_answers, (H200,), MET, None, "NVIDIA H200, compute capability 9.0"),
    Row(gpu.sources_agree, (gpus(2, nvml=2, pci=2), CudaDevices(count=2)), MET, None, "every source counts 2"),
    Row(gpu.sources_agree, (gpus(2, nvml=2, pci=0, device_files=0), CudaDevices(count=2)), MET, None, "counts 2"),
    Row(gpu.sources_agree, (gpus(2, nvml=2), CudaDevices(count=1)), UNMET, "find-the-missing-gpu", "cuda: 1, nvml: 2"),
    Row(gpu.sources_agree, (gpus(2, nvml=2), CudaDevices(count=0)), UNMET, "find-the-missing-gpu", "cuda: 0, nvml: 2"),
    Row(
        gpu.sources_agree, (gpus(2, nvml=0, pci=2), CudaDevices(count=2)), UNMET, "find-the-missing-gpu",
        "cuda: 2, nvml: 0, pci: 2",
    ),
    Row(
        gpu.sources_agree, (gpus(2, nvml=2, pci=8), CudaDevices(count=2)), UNMET, "find-the-missing-gpu",
        "count differently: cuda: 2, nvml: 2, pci: 8",
    ),
    Row(gpu.other_gpus_are_named, (OtherGpus(vendors=(), seen=()),), MET, None, "no GPU of another vendor"),
    Row(
        gpu.other_gpus_are_named, (OtherGpus(vendors=("amd", "intel", "other"), seen=()),), MET, None,
        "AMD, Intel, another maker; not NVIDIA",
    ),
    Row(gpu.gpu_memory_is_free, (memory(1000, 50, 950),), MET, None, "950 of 1000 MiB are free"),
    Row(gpu.gpu_memory_is_free, (memory(1000, 51, 949),), UNMET, "free-the-gpu", "only 949 of 1000 MiB"),
    Row(gpu.gpu_memory_is_free, (memory(4096, 1024, 3072, None),), MET, None, "3072 of 4096 MiB are free"),
    Row(gpu.gpu_memory_is_free, (memory(4096, 1025, 3071, None),), UNMET, "free-the-gpu", "only 3071 of 4096 MiB"),
    Row(gpu.gpu_memory_is_free, (memory(None, None, None),), NOT_HERE, None, "it uses the host's"),
    Row(gpu.mps_is_known, (Mps(daemon=True, own_directory=False),), MET, None, "an MPS daemon serves"),
    Row(gpu.mps_is_known, (Mps(daemon=False, own_directory=True),), MET, None, "no MPS daemon"),
    Row(gpu.gpu_has_no_other_users, (on_it(0, 0), WAY["native"]), MET, None, "no other process"),
    Row(gpu.gpu_has_no_other_users, (on_it(0, None), WAY["vgpu"]), MET, None, "no other process"),
    Row(gpu.gpu_has_no_other_users, (on_it(2, 0), WAY["native"]), UNMET, "free-the-gpu", "2 computing, 0 drawing"),
    Row(gpu.gpu_has_no_other_users, (on_it(None, 3), WAY["native"]), UNMET, "free-the-gpu", "unknown computing, 3 dr"),
    Row(gpu.gpu_has_no_other_users, (on_it(None, None), WAY["native"]), NOT_HERE, None, "does not tell"),
    Row(gpu.gpu_has_no_other_users, (on_it(0, 0), WAY["gpu-pv"]), NOT_HERE, None, "does not tell"),
    Row(gpu.gpu_is_whole, (Mig(current="off", pending="off"),), MET, None, "(MIG off)"),
    Row(gpu.gpu_is_whole, (Mig(current="unsupported", pending="unsupported"),), MET, None, "(MIG unsupported)"),
    Row(gpu.gpu_is_whole, (Mig(current="on", pending="on"),), UNMET, "turn-off-mig", "MIG is on"),
    Row(gpu.gpu_is_whole, (Mig(current="on", pending="off"),), UNMET, "turn-off-mig", "MIG is on"),
    Row(gpu.gpu_is_whole, (Mig(current="off", pending="on"),), UNMET, "turn-off-mig", "comes on with the next reset"),
    Row(gpu.gpu_lets_a_standby_in, (ComputeMode(mode="default"),), MET, None, "several processes"),
    *(
        Row(gpu.gpu_lets_a_standby_in, (ComputeMode(mode=mode),), UNMET, "default-compute-mode", f"{mode}: one process")
        for mode in ("exclusive-thread", "exclusive-process")
    ),
    Row(gpu.gpu_lets_a_standby_in, (ComputeMode(mode="prohibited"),), UNMET, "default-compute-mode", "no process may"),
    Row(gpu.gpu_may_be_used, (ComputeMode(mode="exclusive-process"),), MET, None, "compute mode exclusive-process"),
    Row(gpu.gpu_may_be_used, (ComputeMode(mode="prohibited"),), UNMET, "default-compute-mode", "no process may"),
    Row(gpu.memory_corrects_errors, (Ecc(current="on", pending="off"),), MET, None, "(ECC on)"),
    Row(gpu.memory_corrects_errors, (Ecc(current="off", pending="off"),), UNMET, "turn-on-ecc", "(ECC off)"),
    Row(gpu.memory_corrects_errors, (Ecc(current="off", pending="on"),), UNMET, "restart-for-ecc", "after the next"),
    Row(gpu.memory_corrects_errors, (Ecc(current="unsupported", pending="unsupported"),), UNMET, None, "unsupported"),
    Row(gpu.pcie_link_is_full, (pcie(16, 16), SOME), MET, None, "PCIe x16, generation 5 at most"),
    Row(gpu.pcie_link_is_full, (pcie(8, 8), SOME), MET, None, "all that card and slot allow"),
    Row(gpu.pcie_link_is_full, (pcie(4, 4), SOME), UNMET, "reseat-the-card", "PCIe x4, which is all"),
    Row(gpu.pcie_link_is_full, (pcie(8, 16), SOME), UNMET, "reseat-the-card", "PCIe x8 of x16"),
    Row(gpu.pcie_link_is_full, (pcie(1, 1), memory(None, None, None)), NOT_HERE, None, "not on PCIe"),
    Row(gpu.pcie_link_is_full, (pcie(None, 16), SOME), NOT_HERE, None, "does not tell"),
    Row(gpu.pcie_link_is_full, (pcie(16, None), SOME), NOT_HERE, None, "does not tell"),
    Row(gpu.a_whole_gpu_is_left, (Mig(current="on", pending="on"),), UNMET, "turn-off-mig", "split into instances"),
    Row(gpu.a_whole_gpu_is_left, (Mig(current="off", pending="on"),), MET, None, "is whole"),
    Row(gpu.near_memory_is_known, (GpuNuma(nodes=(0, 3)),), MET, None, "near NUMA node 0, 3"),
    Row(gpu.near_memory_is_known, (GpuNuma(nodes=()),), NOT_HERE, None, "does not say"),
    Row(gpu.gpu_access_is_known, (WAY["vgpu"],), MET, None, "reached by: vgpu"),
    Row(peer.fabric_is_ready, (JOINED,), MET, None, "(clique 7)"),
    Row(peer.fabric_is_ready, (replace(JOINED, state="unsupported"),), NOT_HERE, None, "on no fabric"),
    Row(peer.fabric_is_ready, (replace(JOINED, state="not told"),), NOT_HERE, None, "too old"),
    *(
        Row(peer.fabric_is_ready, (replace(JOINED, state=state),), UNMET, "start-fabric-manager", f"fabric: {state}")
        for state in ("not started", "in progress")
    ),
    Row(peer.fabric_is_ready, (replace(JOINED, status=9),), UNMET, "start-fabric-manager", "refused it: NVML code 9"),
    Row(peer.fabric_is_ready, (replace(JOINED, faults=("a", "b")),), UNMET, "start-fabric-manager", "healthy: a, b"),
)  # fmt: skip

# --- pairs and links ----------------------------------------------------------------------------------------

OK: Final = PeerAccess(read="ok", write="ok", nvlink="ok", atomics="ok")
THERE, BACK = "gpu0→gpu1", "gpu1→gpu0"
WAYS_OF_GPU2: Final = tuple(f"gpu{n}→gpu2" for n in (0, 1)) + tuple(f"gpu2→gpu{n}" for n in (0, 1))
ALL_WAYS: Final = (THERE, BACK, *WAYS_OF_GPU2)
Parts: TypeAlias = dict[str, Fact | type[Fact]]
NV4: Final = PairTopology(ancestor="sys", nvlinks=4)
PHB: Final = PairTopology(ancestor="phb", nvlinks=0)
LINK: Final = NvLink(state="active", version="4.0", gb_per_s=26.562, remote="switch", remote_pci=None)


def of(name: str) -> GpuIdentity:
    return GpuIdentity(name=name, compute_capability="9.0")


def up(*numbers: int, of: int, gb_per_s: float | None) -> NvLinksUp:
    return NvLinksUp(numbers=numbers, of=of, gb_per_s=gb_per_s)


def speed_row(name: str, links: int, gb_per_s: float, words: str) -> Row:
    facts = (up(*range(links), of=links, gb_per_s=gb_per_s), of(name))
    return Row(peer.nvlink_speed_is_known, facts, MET, None, words)


GRANTS: Final = (
    ("chipset", "allow-p2p-chipset", "(CNS)"),
    ("gpu", "use-gpus-with-p2p", "(GNS)"),
    ("topology", "move-the-cards", "(TNS)"),
    ("regkey", "allow-p2p-setting", "(DR)"),
    ("unsupported", "allow-p2p", "(NS)"),
    ("unknown", "allow-p2p", "(U)"),
)
REFUSED: Final = tuple(
    Row(requirement, ({THERE: access, BACK: OK} if to else {THERE: OK, BACK: access},), UNMET, remedy, words)
    for requirement in (peer.driver_grants_peer_access, peer.every_pair_is_granted)
    for grant, remedy, words in GRANTS
    for way in ("read", "write")
    for to in (True, False)
    for access in (replace(OK, **{way: grant}),)
)

PEER: Final = (
    *REFUSED,
    Row(peer.driver_grants_peer_access, (OK,), MET, None, "grants peer access both ways"),
    Row(peer.every_pair_is_granted, (replace(OK, nvlink="unsupported", atomics="chipset"),), MET, None, "both ways"),
    Row(peer.a_pair_is_joined_by_nvlink, (NV4,), MET, None, "4 NVLinks join them"),
    Row(peer.a_pair_is_joined_by_nvlink, ({THERE: NV4, BACK: replace(NV4, nvlinks=3)},), MET, None, "3 NVLinks join"),
    Row(peer.a_pair_is_joined_by_nvlink, ({THERE: NV4, BACK: PHB},), UNMET, "add-nvlink-bridge", "PCIe (SYS)"),
    Row(peer.a_pair_is_joined_by_nvlink, (PHB,), UNMET, "add-nvlink-bridge", "PCIe (PHB)"),
    Row(peer.way_between_gpus_is_known, (NV4,), MET, None, "NV4"),
    Row(peer.way_between_gpus_is_known, (PHB,), MET, None, "PHB"),
    Row(peer.nvlinks_are_up, (NvLinks(numbers=()), up(of=0, gb_per_s=0)), NOT_HERE, None, "shows no NVLink"),
    Row(peer.nvlinks_are_up, (NvLinks(numbers=(0, 1)), up(of=2, gb_per_s=0)), NOT_HERE, None, "has 2 NVLinks, and n"),
    Row(peer.nvlinks_are_up, (NvLinks(numbers=(0, 1)), up(0, 1, of=2, gb_per_s=50)), MET, None, "all 2 NVLinks are up"),
    Row(
        peer.nvlinks_are_up, (NvLinks(numbers=(0, 1, 2, 3)), up(0, 2, of=4, gb_per_s=50)), UNMET, "reseat-nvlink",
        "2 of 4 NVLinks are down (1, 3)",
    ),
    Row(peer.nvlink_is_described, (LINK,), MET, None, "NVLink 4.0, 26.562 GB/s one way, to: switch"),
    Row(peer.nvlink_is_described, (replace(LINK, gb_per_s=None),), MET, None, "NVLink 4.0, speed not told, to: switch"),
    Row(peer.nvlink_is_described, (replace(LINK, state="inactive", gb_per_s=None),), NOT_HERE, None, "is inactive"),
    Row(peer.nvlink_speed_is_known, (up(of=0, gb_per_s=0), H200), NOT_HERE, None, "shows no NVLink"),
    Row(peer.switches_are_known, (NvSwitches(addresses=("0000:05:00.0",)),), MET, None, "machine shows: 1"),
    Row(peer.switches_are_known, (NvSwitches(addresses=()),), NOT_HERE, None, "shows no NVSwitch"),
    Row(peer.nvlink_speed_is_known, (up(of=4, gb_per_s=0), H200), NOT_HERE, None, "has 4 NVLinks, and none is up"),
    Row(peer.nvlink_speed_is_known, (up(0, of=1, gb_per_s=None), H200), UNDECIDED, "newer-driver", "does not tell how"),
    speed_row("NVIDIA H200", 18, 478.116, "478 GB/s one way, of 478 that are possible for this kind (NVIDIA H200)"),
    speed_row("NVIDIA H200", 17, 451.554, "links up: 17, 452 GB/s one way, of 478 that"),
    speed_row("NVIDIA H200", 18, 360.0, "links up: 18, 360 GB/s one way, of 478 that"),
    speed_row("NVIDIA B200", 18, 956.25, "links up: 18, 956 GB/s one way, of 956 that"),
    speed_row("NVIDIA GH200 480GB", 18, 478.116, "478 GB/s one way, of 478 that"),
    speed_row("NVIDIA H100 NVL", 12, 318.744, "319 GB/s one way, of 319 that"),
    speed_row("NVIDIA H800", 8, 212.496, "212 GB/s one way, of 212 that"),
    speed_row("NVIDIA A100-SXM4-80GB", 12, 300.0, "300 GB/s one way, of 300 that"),
    speed_row("NVIDIA A800-SXM4-80GB", 8, 200.0, "200 GB/s one way, of 200 that"),
    speed_row("Tesla V100-SXM2-16GB", 6, 154.686, "155 GB/s one way, of 155 that"),
    speed_row("NVIDIA GeForce RTX 3090", 4, 56.248, "56 GB/s one way, of 56 that"),
    speed_row("NVIDIA X900", 18, 1800.0, "1800 GB/s one way; what is possible is not known here (NVIDIA X900)"),
)  # fmt: skip
ROWS: Final = (*DRIVER, *SUSPEND, *CUDA, *GPU, *PEER)


@table(*ROWS)
def test_what_is_said(row: Row) -> None:
    assert holds(row)


def test_every_requirement_and_each_of_its_remedies_is_shown() -> None:
    assert not_shown(ROWS, driver, suspend, cuda, gpu, peer) == {}


# --- one that cannot be read --------------------------------------------------------------------------------


def test_one_gpu_that_cannot_be_read_leaves_each_undecided() -> None:
    found = ask(gpu.every_gpu_answers, {"gpu0": H200, "gpu1": GpuIdentity, "gpu2": H200})
    assert (found.finding.status, found.finding.text) == (
        UNDECIDED,
        "gpu1: not known: gpu_identity (timeout: no answer)",
    )
    assert [part.finding.status for part in found.parts] == [MET, UNDECIDED, MET]


def test_one_fact_of_two_that_cannot_be_read_leaves_each_undecided() -> None:
    whole = {"gpu0": WAY["native"], "gpu1": WAY["native"]}
    found = ask(gpu.gpu_has_no_other_users, {"gpu0": on_it(0, 0), "gpu1": GpuProcesses}, {**whole})
    assert found.finding.status == UNDECIDED
    found = ask(gpu.gpu_has_no_other_users, {"gpu0": on_it(0, 0), "gpu1": on_it(0, 0)}, {**whole, "gpu1": GpuAccess})
    assert found.finding.status == UNDECIDED


def test_a_gpu_known_to_be_bad_is_unmet_whatever_another_hides() -> None:
    found = ask(gpu.gpu_is_whole, {"gpu0": Mig, "gpu1": Mig(current="on", pending="on")})
    assert (found.finding.status, found.finding.remedy) == (UNMET, "turn-off-mig")


@pytest.mark.parametrize("unread", [(BACK,), (THERE, BACK), (THERE,)])
def test_one_pair_that_cannot_be_read_leaves_some_met_by_another(unread: tuple[str, ...]) -> None:
    granted: Parts = {subject: PeerAccess if subject in unread else OK for subject in ALL_WAYS}
    assert ask(peer.driver_grants_peer_access, granted).finding.status == MET
    assert ask(peer.every_pair_is_granted, granted).finding.status == UNDECIDED
    joined: Parts = {subject: PairTopology if subject in unread else PHB for subject in ALL_WAYS}
    assert ask(peer.a_pair_is_joined_by_nvlink, joined).finding.status == UNDECIDED
    assert ask(peer.a_pair_is_joined_by_nvlink, {**joined, **dict.fromkeys(WAYS_OF_GPU2, NV4)}).finding.status == MET


def test_a_pair_that_is_refused_among_granted_ones_is_named_with_its_reason() -> None:
    granted = {**dict.fromkeys((THERE, BACK, *WAYS_OF_GPU2), OK), BACK: replace(OK, write="chipset")}
    assert ask(peer.driver_grants_peer_access, granted).finding.status == MET
    found = ask(peer.every_pair_is_granted, granted).finding
    assert (found.status, found.remedy) == (UNMET, "allow-p2p-chipset")
    assert found.text.startswith(f"{THERE}: no peer access")


def test_a_link_that_cannot_be_read_leaves_the_description_of_links_undecided() -> None:
    found = ask(peer.nvlink_is_described, {"gpu0/link0": LINK, "gpu0/link1": NvLink, "gpu1/link0": LINK})
    assert found.finding.status == UNDECIDED
    assert found.finding.text.startswith("gpu0/link1: ")


def test_without_gpus_nothing_is_asked_of_them() -> None:
    none = gpus(0)
    assert ask(gpu.gpu_is_whole, none).finding.status == NOT_HERE
    assert ask(peer.a_pair_is_joined_by_nvlink, none).finding.status == UNMET


# --- what every requirement of the catalogue owes its reader -------------------------------------------------

RULES: Final = catalogue.rules(catalogue.tracks())
REMEDIES: Final = catalogue.remedies()
ACT: Final = re.compile(
    r"--[a-z]|[A-Z]{3,}_[A-Z_]+|\w=\w|/(etc|usr|sys|dev|proc|path)/"
    r"|\b(warmspare|nvidia-smi|modprobe|systemctl|sysctl|ulimit|pip|apt|docker|dmesg|lspci|setpci|echo|modprobe|nvidia-\w+)\b"
    r"|^(use|install|boot|run|raise|free|take|put|move|fit|reseat|restart|start) [a-zA-Z]|\bput both cards\b"
)
"""A command, an option, a setting, a file, or one act in plain words."""


@pytest.mark.parametrize("name", RULES)
def test_every_remedy_that_a_requirement_can_name_is_in_its_docstring(name: str) -> None:
    assert can_name(RULES[name].function) - set(RULES[name].remedies) == set()


@pytest.mark.parametrize("name", RULES)
def test_a_docstring_begins_with_a_whole_sentence_and_has_a_source(name: str) -> None:
    why = " ".join(RULES[name].why.split("\n\n")[0].split())
    first = re.split(r"(?<=[.!?]) (?=[A-Z])", why)[0]
    assert re.fullmatch(r"[A-Z`/].{38,}\.", first), first
    assert RULES[name].sources
    assert all(len(source) > 5 for source in RULES[name].sources)


@pytest.mark.parametrize("name", REMEDIES)
def test_a_remedy_holds_something_that_can_be_done(name: str) -> None:
    assert ACT.search(REMEDIES[name].do), REMEDIES[name].do


def test_a_literal_remedy_is_one_that_exists() -> None:
    named = {word for one in RULES.values() for word in of_keyword(tree(one.function))}
    assert len(named) > 40
    assert named - set(REMEDIES) == set()


def test_every_requirement_that_is_written_is_weighed_by_a_track() -> None:
    assert {one.id for module in MODULES for one in requirements_of(module)} - set(RULES) == set()


MODULES: Final = [
    importlib.import_module(f"{track_package.__name__}.{info.name}")
    for info in pkgutil.iter_modules(track_package.__path__)
    if info.name.endswith("_requirements")
]


def of_keyword(node: ast.AST) -> Iterator[str]:
    """The strings that are given as `remedy=`."""
    for keyword in ast.walk(node):
        if isinstance(keyword, ast.keyword) and keyword.arg == "remedy":
            outcomes = [keyword.value]
            if isinstance(keyword.value, ast.IfExp):
                outcomes = [keyword.value.body, keyword.value.orelse]
            yield from (one.value for one in outcomes if isinstance(one, ast.Constant) and isinstance(one.value, str))
