"""Machines of data centres: boards without a switch, bridges, switches, and fabrics that are not ready."""

from __future__ import annotations

from typing import Final

from machines.around import INFERRED, around, docker, engine, infiniband, pci_side
from machines.asking import Machines, files
from machines.cards import HGX, LINKED, NODE, PHB, Card, Link, Way, across_sockets, bridged, switched
from machines.driver import NATIVE, Driver, bus, runs
from machines.drivers import BOARD, EIGHT_H100, PROPRIETARY
from machines.linux import bare_metal, linux, vm

ACCELERATOR: Final = ("0x10de", "0x030200")
AMPERE: Final = Link(25000, 4)
BLACKWELL: Final = Link(53125, 7)
D535: Final = Driver("535.54.03", open=False, built="Tue Jun  6 22:20:39 UTC 2023")
D470: Final = Driver(
    "470.103.01",
    open=False,
    built="Thu Jan  6 12:10:04 UTC 2022",
    gcc="gcc version 9.3.0 (Ubuntu 9.3.0-17ubuntu1~20.04)",
)
D570: Final = Driver(
    "570.124.06",
    open=True,
    built="Release Build  (dvs-builder@U22-I3-AE18-23-3)  Wed Feb 26 2025",
    gcc="gcc version 13.3.0 (Ubuntu 13.3.0-6ubuntu2~24.04)",
)
D580: Final = Driver(
    "580.126.09",
    open=True,
    built="Release Build  (dvs-builder@U22-I3-AF01-24-3)",
    gcc="gcc version 13.3.0 (Ubuntu 13.3.0-6ubuntu2~24.04)",
)
SPARK: Final = D580._replace(arch="aarch64")
UBUNTU_68: Final = (
    "(buildd@lcy02-amd64-080) (x86_64-linux-gnu-gcc-13 (Ubuntu 13.3.0-6ubuntu2~24.04)) #59-Ubuntu SMP PREEMPT_DYNAMIC"
)
HMM: Final = {**NATIVE, "pageable_memory_access": 1}
"""Open modules since 535 on a kernel since 6.3. Source: CUDA programming guide, unified memory, HMM."""
QUAD: Final = ("0000:1d:00.0", "0000:56:00.0", "0000:8f:00.0", "0000:c8:00.0")
OCTET: Final = tuple(f"0000:{pci}:00.0" for pci in ("1b", "43", "52", "61", "9d", "c3", "d1", "df"))


def _a100(pci: str) -> Card:
    """Four links to each of the three others."""
    links = bridged(AMPERE, *((other, 4) for other in QUAD if other != pci))
    return Card("NVIDIA A100-SXM-64GB", pci, (8, 0), 65536, reserved_mib=620, mig=0, links=links)


def _h100_nvl(pci: str, other: str, node: int) -> Card:
    links = bridged(Link(26562, 6), (other, 12))
    return Card(
        "NVIDIA H100 NVL", pci, (9, 0), 95830, reserved_mib=634, pcie=(5, 16, 5, 16), mig=0, links=links, node=node
    )


def _b200(pci: str, node: int) -> Card:
    links = switched(BLACKWELL, 18)
    return Card(
        "NVIDIA B200",
        pci,
        (10, 0),
        183359,
        reserved_mib=600,
        pcie=(5, 16, 6, 16),
        mig=0,
        fabric=3,
        links=links,
        node=node,
    )


def _switchless(card: Card) -> Card:
    """While Fabric Manager is down: registration hangs, and no link is up."""
    return card._replace(fabric=2, links=switched(HGX._replace(up=False), 18))


A100_GUEST: Final = tuple(
    Card(
        "NVIDIA A100-SXM4-80GB",
        f"0000:00:0{n}.0",
        (8, 0),
        81251,
        reserved_mib=0,
        mig=0,
        virtualization=1,
        links=switched(AMPERE, 12),
    )
    for n in (5, 6)
)
MIG_PARENT: Final = Card(
    "NVIDIA A100-SXM4-40GB",
    "0000:00:04.0",
    (8, 0),
    40960,
    reserved_mib=571,
    used_mib=45,
    mig=1,
    virtualization=1,
    links=(AMPERE._replace(up=False),) * 12,
)
SLICE: Final = MIG_PARENT._replace(uuid="GPU-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f")
GB10: Final = Card(
    "NVIDIA GB10",
    "000f:01:00.0",
    (12, 1),
    0,
    pcie=(1, 1, 1, 1),
    ecc=None,
    fabric=0,
    graphics=(2911,),
)

MACHINES: Final[Machines] = {
    "a100-board-without-switch": (
        {
            **linux(
                "4.18.0-425.19.2.el8_7.x86_64",
                "(mockbuild@x86-64-02.build.eng.rdu2.redhat.com) (gcc version 8.5.0) #1 SMP",
                yama=0,
            ),
            **bare_metal("Atos", "X2135", "ATOS"),
            **bus(dict.fromkeys(QUAD, ACCELERATOR)),
            **runs(D535, tuple(map(_a100, QUAD)), lambda *_: Way(LINKED, NODE), attributes=PROPRIETARY),
        },
        (
            "four custom A100, NV4 to each other, no switch: NVIDIA/nccl-tests#331",
            "25 GB/s a link: NVIDIA/nccl-tests#228, leptonai/gpud testdata",
        ),
    ),
    "h100-nvl-bridged-pair": (
        {
            **linux("6.8.0-59-generic", UBUNTU_68),
            **bare_metal("Dell Inc.", "PowerEdge R760xa", "DELL"),
            **bus(dict.fromkeys(("0000:4a:00.0", "0000:61:00.0"), ACCELERATOR)),
            **runs(
                D570,
                (_h100_nvl("0000:4a:00.0", "0000:61:00.0", 0), _h100_nvl("0000:61:00.0", "0000:4a:00.0", 0)),
                lambda *_: Way(LINKED, NODE),
                attributes=HMM,
            ),
        },
        (
            "12 links over three bridges: NVIDIA H100 NVL product brief PB-11773-001 (vllm-project/recipes#365)",
            "a bridged pair in the cloud: Azure/azurehpc-health-checks conf/nc80adis_h100_v5.conf",
            "94 GB, 10de:2321: akash-network/provider-configs#91",
            "inferred: 26.562 GB/s a link, as every NVLink 4 prints it",
        ),
    ),
    "b200-8": (
        {
            **linux("6.8.0-57-generic", UBUNTU_68),
            **bare_metal("Supermicro", "SYS-A22GA-NBRT"),
            **bus(dict.fromkeys(OCTET, ACCELERATOR)),
            **runs(
                D570, tuple(_b200(pci, int(n > 3)) for n, pci in enumerate(OCTET)), across_sockets(4), attributes=HMM
            ),
            **around(2048, "0-1"),
            **pci_side("iommu=pt", groups=180, gpus=dict.fromkeys(OCTET, "identity")),
            **infiniband(8),
            **docker("28.3.1", "1.18.0"),
            **engine(vllm="0.26.0", nixl="1.1.0"),
        },
        (
            "eight B200, NV18 everywhere, driver 570.124.06: vllm-project/vllm#20337, #16336",
            "53.125 GB/s a link: NVIDIA/k8s-test-infra#371",
            INFERRED,
        ),
    ),
    "fabric-manager-down": (
        {
            **linux("6.8.0-59-generic", UBUNTU_68),
            **bare_metal("Supermicro", "SYS-821GE-TNHR"),
            **bus(BOARD),
            **runs(D570, tuple(map(_switchless, EIGHT_H100)), across_sockets(4, None), attributes=HMM, cuda_init=802),
        },
        (
            "fabric.state stays In Progress, NVML fine: NVIDIA/NVSentinel#883, #889",
            "links inactive without Fabric Manager: ai-infrastructure.net, runbook fabric manager failure",
            "cuInit 802: kata-containers/kata-containers#11730, huggingface/huggingface_hub#4134, wilicc/gpu-burn#92",
        ),
    ),
    "error-802-guest": (
        {
            **linux("5.4.0-136-generic", "(buildd@lcy01-amd64-026) (gcc version 9.4.0) #153-Ubuntu SMP"),
            **vm("QEMU", "Standard PC (Q35 + ICH9, 2009)", "BOCHS"),
            **bus({"0000:00:00.0": ("0x8086", "0x060000"), **dict.fromkeys((c.pci for c in A100_GUEST), ACCELERATOR)}),
            **runs(D470, A100_GUEST, lambda *_: Way(None, PHB), attributes=PROPRIETARY, cuda_init=802),
        },
        (
            "cuInit 802 on NVSwitch machines without Fabric Manager: pytorch/pytorch#35710, gpustack/gpustack#4154",
            "a guest does not see its switches: NVIDIA Fabric Manager user guide, shared NVSwitch virtualization model",
            "NVML 470 has no nvmlDeviceGetGpuFabricInfoV: NVML API reference, change log",
        ),
    ),
    "mig-on": (
        {
            **linux("5.15.0-1062-gcp", "(buildd@lcy02-amd64-103) (gcc version 11.4.0) #70~20.04.1-Ubuntu SMP"),
            **vm("Google", "Google Compute Engine", "Google"),
            **bus({"0000:00:00.0": ("0x8086", "0x060000"), "0000:00:04.0": ACCELERATOR}),
            **runs(D535, (MIG_PARENT,), attributes=PROPRIETARY, cuda_cards=(SLICE,)),
        },
        (
            "MIG's UUIDs, and that CUDA sees one slice: NVIDIA MIG user guide (nvidia-smi -L of A100-SXM4-40GB)",
            "a guest with one A100-SXM4-40GB, partitioned: google/gvisor#11069, NVIDIA/mig-parted#6",
            "no P2P with MIG: NVIDIA/nccl#1716",
        ),
    ),
    "dgx-spark": (
        {
            **linux(
                "6.17.0-1008-nvidia",
                "(buildd@bos03-arm64-051) (aarch64-linux-gnu-gcc-13) #8-Ubuntu SMP PREEMPT_DYNAMIC",
                arch="aarch64",
            ),
            **bare_metal("NVIDIA", "NVIDIA_DGX_Spark", "NVIDIA"),
            **bus(
                {
                    "0004:00:00.0": ("0x10de", "0x060400"),
                    "0004:01:00.0": ("0x144d", "0x010802"),
                    "000f:00:00.0": ("0x10de", "0x060400"),
                    "000f:01:00.0": ("0x10de", "0x030200"),
                }
            ),
            **runs(SPARK, (GB10,), attributes={**HMM, "dma_buf": 0, "gpudirect_rdma": 0}),
            **files({"/proc/meminfo": "MemTotal:       127600748 kB\nMemAvailable:   118566368 kB\n"}),
        },
        (
            "NVML's memory calls not supported, meminfo: XuehaiPan/nvitop#208; bus: snowflakedb/ArcticTraining#345",
            "driver and kernel: lablup/all-smi#80; PCIe told as generation 1, x1: Syllo/nvtop#426",
            "PCI bus with bridges of NVIDIA's own: canonical/inference-snaps#143",
        ),
    ),
}
