"""Drivers by their age, and a machine without one."""

from __future__ import annotations

from typing import Final

from machines.asking import Machines
from machines.cards import HGX, Card, across_sockets, switched
from machines.driver import NATIVE, Driver, bus, no_driver, runs
from machines.linux import bare_metal, criu, linux, vm

A10: Final = Card("NVIDIA A10", "0000:31:00.0", (8, 6), 22731, reserved_mib=0, fabric=None)
L4: Final = Card("NVIDIA L4", "0000:00:03.0", (8, 9), 23034, reserved_mib=465, virtualization=1, fabric=None)
PROPRIETARY: Final = {**NATIVE, "dma_buf": 0}
"""DMA-buf export needs the open modules. Source: NVIDIA GPUDirect RDMA documentation."""
EIGHT_H100: Final = tuple(
    Card(
        "NVIDIA H100 80GB HBM3",
        f"0000:{pci}:00.0",
        (9, 0),
        81559,
        reserved_mib=551,
        pcie=(5, 16, 5, 16),
        persistence=0,
        fabric=3,
        mig=0,
        links=switched(HGX, 18),
        node=int(n > 3),
    )
    for n, pci in enumerate(("18", "2a", "3a", "5d", "9a", "ab", "ba", "db"))
)

BOARD: Final = {
    **dict.fromkeys((card.pci for card in EIGHT_H100), ("0x10de", "0x030200")),
    **dict.fromkeys((f"0000:{n:02x}:00.0" for n in range(5, 9)), ("0x10de", "0x068000")),
}
"""An HGX H100 board: eight GPUs and four switches."""

D470: Final = Driver(
    "470.161.03",
    open=False,
    built="Wed Oct 19 00:10:36 UTC 2022",
    gcc="gcc version 9.4.0 (Ubuntu 9.4.0-1ubuntu1~20.04.1)",
)
D535: Final = Driver("535.183.01", open=False, built="Sun May 12 19:39:15 UTC 2024")
D550: Final = Driver(
    "550.54.15", open=True, built="Release Build  (dvs-builder@U16-A24-23-2)  Tue Mar  5 22:15:33 UTC 2024"
)

MACHINES: Final[Machines] = {
    "driver-470": (
        {
            **linux(
                "5.4.0-150-generic", "(buildd@bos03-amd64-012) (gcc version 9.4.0) #167-Ubuntu SMP Mon May 15 2023"
            ),
            **bare_metal("Dell Inc.", "PowerEdge R750xa", "DELL"),
            **bus({"0000:31:00.0": ("0x10de", "0x030200")}),
            **runs(D470, (A10,), attributes=PROPRIETARY),
        },
        (
            "the module's line: NVIDIA/open-gpu-kernel-modules#171, dylanaraps/neofetch#876 (proprietary)",
            "an A10 under 470 on Linux 5.4: vllm-project/vllm#7943",
            "no nvmlDeviceGetMemoryInfo_v2, no nvmlDeviceGetGpuFabricInfoV: NVML API reference, change log",
        ),
    ),
    "driver-535": (
        {
            **linux("5.15.0-1062-gcp", "(buildd@lcy02-amd64-103) (gcc version 11.4.0) #70~20.04.1-Ubuntu SMP"),
            **vm("Google", "Google Compute Engine", "Google"),
            **bus({"0000:00:00.0": ("0x8086", "0x060000"), "0000:00:03.0": ("0x10de", "0x030200")}),
            **runs(D535, (L4,), attributes=PROPRIETARY),
        },
        (
            "the module's line: NVIDIA/open-gpu-kernel-modules#171, dylanaraps/neofetch#876 (proprietary)",
            "NVML 535 has no nvmlDeviceGetGpuFabricInfoV: NVML API reference, change log of R545",
        ),
    ),
    "driver-550": (
        {
            **linux("6.5.0-44-generic", "(buildd@lcy02-amd64-103) (gcc version 12.3.0) #44~22.04.1-Ubuntu SMP"),
            **bare_metal("Supermicro", "SYS-821GE-TNHR"),
            **bus(BOARD),
            **runs(D550, EIGHT_H100, across_sockets(4)),
            **criu("4.0"),
        },
        (
            "eight H100 on bare metal under 550.54.15 with Fabric Manager, NV18 everywhere: NVIDIA/nccl#1264",
            "the module's line: nix-community/nixGL#186, #121 (open module)",
        ),
    ),
    "bare-metal-no-driver": (
        {
            **linux("6.12.48-amd64", "(debian-kernel@lists.debian.org) (gcc-14 (Debian 14.2.0-19)) #1 SMP", yama=0),
            **bare_metal("ASUS", "System Product Name"),
            **bus({"0000:00:00.0": ("0x8086", "0x060000"), "0000:01:00.0": ("0x10de", "0x030000")}),
            **no_driver(),
        },
        (
            "PCI ids as sysfs shows them, a GeForce card under nouveau or no driver at all: the PCI ID repository",
            "NVML and libcuda that are not there: their loader's own words",
        ),
    ),
}
