"""What is around the GPUs: memory, IOMMU and bridges, RDMA cards, containers, and the engine's software.

No log tells all of this of one machine: a host that uses it says so in a note that begins with `inferred:`.
"""

from __future__ import annotations

from typing import Final

from machines.asking import Answers, ask, files, folder, gave, gone, not_installed, paths, ran

GIB: Final = 2**30
MM: Final = "/sys/kernel/mm"
WHEEL: Final = {
    "place": "python_package",
    "path": "site-packages/nvidia/nccl/lib/libnccl.so.2",
    "version": "2.28.9",
    "cuda_version": "13.0",
}
INFERRED: Final = "inferred: host memory, IOMMU, network cards, containers and the engine's software"


def around(total_gib: int, nodes: str = "0", *, shm_mib: int | None = None) -> Answers:
    """Memory as the kernel shows it, most of it free, without reserved huge pages; no MPS daemon."""
    total_kib = total_gib * 2**20
    shm = total_gib * GIB // 2 if shm_mib is None else shm_mib * 2**20
    texts: dict[str, str | None] = {
        "/proc/meminfo": f"MemTotal: {total_kib} kB\nMemAvailable: {total_kib * 9 // 10} kB\nSwapTotal: 0 kB\n",
        f"{MM}/transparent_hugepage/enabled": "always [madvise] never\n",
        f"{MM}/hugepages/hugepages-2048kB/nr_hugepages": "0\n",
        "/sys/devices/system/node/online": f"{nodes}\n",
        "/proc/sys/kernel/io_uring_disabled": "0\n",
    }
    return {
        **files(texts),
        **folder(f"{MM}/hugepages", "hugepages-2048kB"),
        ask("experiment", "shared_memory"): gave({"found": True, "size": shm, "free": shm}),
        ask("experiment", "mps"): gave({"directory": "default", "control": False}),
        **paths({"/sys/class": True, "/sys/module": True}),
    }


def pci_side(*options: str, groups: int = 0, gpus: dict[str, str] | None = None, redirecting: int = 0) -> Answers:
    """The IOMMU by its options and each GPU's group type, and the bridges above the GPUs, all readable."""
    kinds: dict[str, str | None] = {}
    held: dict[str, bool] = {}
    for address, kind in (gpus or {}).items():
        held[f"/sys/bus/pci/devices/{address}/iommu_group"] = True
        kinds[f"/sys/bus/pci/devices/{address}/iommu_group/type"] = f"{kind}\n"
    bridges = [f"0000:{number:02x}:01.0" for number in range(redirecting)]
    return {
        ask("experiment", "iommu_options"): gave({"options": list(options)}),
        **folder("/sys/kernel/iommu_groups", *map(str, range(groups))),
        **files(kinds),
        **paths(held),
        ask("experiment", "pci_acs"): gave(
            {"bus": True, "bridges": max(4, redirecting), "readable": max(4, redirecting), "redirecting": bridges}
        ),
    }


def no_rdma() -> Answers:
    """No RDMA device and none of the modules for one."""
    modules = dict.fromkeys(("/sys/module/nvidia_peermem", "/sys/module/nv_peer_mem"), False)
    listings = {ask("list", path): gone(path) for path in ("/sys/class/infiniband", "/dev/infiniband")}
    return {**listings, **paths(modules)}


def infiniband(count: int) -> Answers:
    """So many cards of 400 Gb/s, their links up, with nvidia_peermem loaded."""
    cards = [f"mlx5_{number}" for number in range(count)]
    texts: dict[str, str | None] = {}
    for card in cards:
        port = f"/sys/class/infiniband/{card}/ports/1"
        texts |= {f"/sys/class/infiniband/{card}/node_type": "1: CA\n", f"{port}/state": "4: ACTIVE\n"}
        texts |= {f"{port}/link_layer": "InfiniBand\n", f"{port}/rate": "400 Gb/sec (4X NDR)\n"}
    ports: Answers = {}
    for card in cards:
        ports |= folder(f"/sys/class/infiniband/{card}/ports", "1")
    return {
        **files(texts),
        **ports,
        **folder("/sys/class/infiniband", *cards),
        **folder("/dev/infiniband", "rdma_cm", *(f"uverbs{number}" for number in range(count))),
        **paths({"/sys/module/nvidia_peermem": True, "/sys/module/nv_peer_mem": False}),
    }


def docker(version: str, toolkit: str | None) -> Answers:
    """Docker on the host, with NVIDIA's toolkit set up in it or without one; we are in no container."""
    others = ("podman", "containerd", "nerdctl")
    told = f"Docker version {version}, build 1\n"
    answers: Answers = {ask("run", "docker", "--version"): ran("/usr/bin/docker", told)}
    for program in others:
        answers |= not_installed(program, ("--version",))
    answers |= not_installed("nvidia-ctk", ("--version",))
    if toolkit:
        told = f"NVIDIA Container Toolkit CLI version {toolkit}\ncommit: 1\n"
        answers[ask("run", "nvidia-ctk", "--version")] = ran("/usr/bin/nvidia-ctk", told)
    answers[ask("list", "/etc/cdi")] = gone("/etc/cdi")
    answers |= folder("/var/run/cdi", *(("nvidia.yaml",) if toolkit else ()))
    runtimes = {"found": bool(toolkit), "valid": True, "nvidia": bool(toolkit), "default": False, "cdi": False}
    answers[ask("experiment", "docker_runtimes")] = gave(runtimes)
    nothing: dict[str, list[str]] = {"libraries": [], "devices": [], "programs": [], "folders": []}
    return {**answers, ask("experiment", "nvidia_mounts"): gave(nothing)}


def engine(*, vllm: str, nixl: str | None = None) -> Answers:
    """A virtual environment with vLLM, torch for CUDA 13 and the NCCL that torch asks for."""
    versions = {
        "torch_version": "2.11.0+cu130",
        "torch_cuda": "13.0",
        "torch_nccl_version": "2.28.9",
        "nvidia_nccl_cu13_version": "2.28.9",
        "vllm_version": vllm,
        **({"nixl_version": nixl, "nixl_cu13_version": nixl} if nixl else {}),
    }
    software = {
        "engine_python": {"named_by": "virtual_env", "kind_of": "virtual_environment", "version": "3.12"},
        "package_versions": versions,
        "broken_packages": [],
        "nccl_libraries": [WHEEL],
        "ucx_libraries": [],
        "nccl_loaded": {"way": "rpath", "library": WHEEL},
        "vllm_nccl_path": None,
        "vllm_pins": False,
    }
    return {ask("experiment", "python_software"): gave(software)}
