"""Guests and hosts of clouds and hypervisors."""

from __future__ import annotations

from typing import Final

from machines.asking import Machines
from machines.cards import Card, Link
from machines.datacenter import ACCELERATOR
from machines.driver import NATIVE, Driver, bus, runs
from machines.drivers import PROPRIETARY
from machines.linux import bare_metal, linux, vm

D535: Final = Driver(
    "535.129.03", open=False, built="Thu Oct 19 18:56:32 UTC 2023", gcc="gcc version 12.2.0 (Debian 12.2.0-14)"
)
D550: Final = Driver("550.144.03", open=False, built="Mon Dec 30 17:44:08 UTC 2024")
D570: Final = Driver("570.158.01", open=True, built="Release Build  (dvs-builder@U22-I3-AE18-23-3)")
AZURE: Final = Card(
    "NVIDIA H100 NVL",
    "0001:00:00.0",
    (9, 0),
    95830,
    reserved_mib=634,
    pcie=(5, 16, 5, 16),
    virtualization=1,
    mig=0,
    links=(Link(26562, 6, up=False),) * 12,
)
QUADRO: Final = Card(
    "Quadro P2000",
    "0000:05:00.0",
    (6, 1),
    5120,
    reserved_mib=60,
    used_mib=6,
    pcie=(1, 16, 3, 16),
    ecc=None,
    persistence=0,
)
SHARE: Final = Card(
    "NVIDIA A40-48C", "0000:02:00.0", (8, 6), 49152, reserved_mib=3072, virtualization=2, ecc=1, fabric=0
)

MACHINES: Final[Machines] = {
    "azure-h100": (
        {
            **linux("6.8.0-1021-azure", "(buildd@lcy02-amd64-105) (gcc-13) #25-Ubuntu SMP"),
            **vm("Microsoft Corporation", "Virtual Machine", "VRTUAL"),
            **bus(
                {
                    "0001:00:00.0": ACCELERATOR,
                    "7870:00:00.0": ("0x1414", "0x020000"),
                    "c05b:00:00.0": ("0x1414", "0x010802"),
                }
            ),
            **runs(D550, (AZURE,), attributes=PROPRIETARY),
        },
        (
            "DMI of an Azure VM is Microsoft's although it is no WSL2: systemd/systemd src/basic/virt.c",
            "an NVMe of Microsoft's beside the H100: FoldingAtHome/fah-client-bastet#346",
            "the module's line: NVIDIA/open-gpu-kernel-modules#171, dylanaraps/neofetch#876 (proprietary)",
        ),
    ),
    "proxmox-host": (
        {
            **linux(
                "6.2.16-19-pve",
                "(build@proxmox) (gcc (Debian 12.2.0-14)) #1 SMP PREEMPT_DYNAMIC PMX 6.2.16-19",
                yama=None,
            ),
            **bare_metal("Dell Inc.", "PowerEdge R720", "DELL"),
            **bus(
                {
                    "0000:00:00.0": ("0x8086", "0x060000"),
                    "0000:05:00.0": ("0x10de", "0x030000"),
                    "0000:0b:00.0": ("0x102b", "0x030000"),
                }
            ),
            **runs(D535, (QUADRO,), attributes={**PROPRIETARY, "gpudirect_rdma": 0}),
        },
        ("Proxmox VE's own kernel, driver 535.129.03 on the host, Quadro P2000: blakeblackshear/frigate#8652",),
    ),
    "vgpu-guest": (
        {
            **linux(
                "6.8.0-117-generic",
                "(buildd@lcy02-amd64-080) (x86_64-linux-gnu-gcc-13) #117-Ubuntu SMP PREEMPT_DYNAMIC",
            ),
            **vm("VMware, Inc.", "VMware7,1", "PTLTD"),
            **bus({"0000:00:0f.0": ("0x15ad", "0x030000"), "0000:02:00.0": ("0x10de", "0x030000")}),
            **runs(
                D570,
                (SHARE,),
                attributes={
                    **NATIVE,
                    "managed_memory": 0,
                    "concurrent_managed_access": 0,
                    "vmm": 0,
                    "dma_buf": 0,
                    "gpudirect_rdma": 0,
                },
            ),
        },
        (
            "A40-48C under 570.158.01, where the driver refuses cuMemGetAllocationGranularity: dmlc/xgboost#12217",
            "what NVML calls it: NVML API reference, nvmlGpuVirtualizationMode_t; NVIDIA/TensorRT-LLM#1861",
            "no unified memory unless enabled: NVIDIA AI Enterprise release notes, ptal/turbo#17",
            "inferred: that the attributes for VMM and managed memory say so too",
        ),
    ),
}
