"""GeForce cards: no peer access by the driver's choice, none through a VM's chipset, and bridges between some."""

from __future__ import annotations

from typing import Final

from machines.around import INFERRED, around, docker, engine, no_rdma, pci_side
from machines.asking import Machines
from machines.cards import CHIPSET, GPU_REFUSES, LINKED, NODE, PHB, Card, Link, Way, bridged
from machines.driver import GEFORCE, Driver, bus, runs
from machines.linux import bare_metal, criu, linux, vm

DISPLAY: Final = ("0x10de", "0x030000")
OPEN_595: Final = Driver(
    "595.71.05",
    open=True,
    built="Release Build  (dvs-builder@U22-I3-AM02-24-3)  Thu Mar 26 2026",
    gcc="gcc version 13.3.0 (Ubuntu 13.3.0-6ubuntu2~24.04)",
)
UBUNTU_70: Final = (
    "(buildd@lcy02-amd64-098) (gcc-13 (Ubuntu 13.3.0-6ubuntu2~24.04)) #29~24.04.1-Ubuntu SMP PREEMPT_DYNAMIC"
)
AMPERE: Final = Link(14062, 4)
"""NVLink of GA102: four links, 14.062 GB/s each, as `nvidia-smi nvlink -s` prints them."""
PLACES: Final = ("0000:01:00.0", "0000:21:00.0", "0000:41:00.0", "0000:61:00.0")


def _5090(pci: str) -> Card:
    return Card(
        "NVIDIA GeForce RTX 5090", pci, (12, 0), 32607, reserved_mib=512, pcie=(1, 8, 5, 16), ecc=None, fabric=0
    )


def _3090(pci: str, links: tuple[Link, ...], generation: int = 4) -> Card:
    return Card(
        "NVIDIA GeForce RTX 3090",
        pci,
        (8, 6),
        24576,
        reserved_mib=305,
        pcie=(1, 16, generation, 16),
        ecc=None,
        links=links,
    )


def _quad() -> tuple[Card, ...]:
    """A bridge between the first two; the others' links have nothing at their ends."""
    first, second, *others = PLACES
    down = (AMPERE._replace(up=False),) * 4
    ends = {first: bridged(AMPERE, (second, 4)), second: bridged(AMPERE, (first, 4)), **dict.fromkeys(others, down)}
    return tuple(_3090(pci, links) for pci, links in ends.items())


def _between(a: int, b: int) -> Way:
    return Way(LINKED if {a, b} == {0, 1} else GPU_REFUSES, NODE)


MACHINES: Final[Machines] = {
    "geforce-pair-gns": (
        {
            **linux("7.0.0-29-generic", UBUNTU_70),
            **bare_metal("Gigabyte Technology Co., Ltd.", "B850 AI TOP"),
            **bus({"0000:00:00.0": ("0x1022", "0x060000"), "0000:01:00.0": DISPLAY, "0000:03:00.0": DISPLAY}),
            **runs(
                OPEN_595,
                (_5090("0000:01:00.0"), _5090("0000:03:00.0")),
                lambda *_: Way(GPU_REFUSES, PHB),
                attributes=GEFORCE,
            ),
            **around(96),
            **pci_side(groups=30, gpus=dict.fromkeys(("0000:01:00.0", "0000:03:00.0"), "DMA-FQ"), redirecting=2),
            **no_rdma(),
            **docker("28.3.1", None),
            **engine(vllm="0.26.0"),
        },
        (
            "two RTX 5090, PHB, topo -p2p GNS on the stock driver: noonghunna/club-3090#1130, #1229",
            "board, kernel and driver 595.71.05: noonghunna/club-3090#1075, #769",
            INFERRED,
        ),
    ),
    "geforce-one-bridge-of-four": (
        {
            **linux("6.19.10-arch1-1", "(linux@archlinux) (gcc (GCC) 15.2.1) #1 SMP PREEMPT_DYNAMIC", yama=1),
            **bare_metal("ASUS", "Pro WS WRX80E-SAGE SE WIFI"),
            **bus({"0000:00:00.0": ("0x1022", "0x060000"), **dict.fromkeys(PLACES, DISPLAY)}),
            **runs(OPEN_595, _quad(), _between, attributes=GEFORCE),
            **criu("4.2", plugin=True),
        },
        (
            "NV4 between bridged 3090s and NODE elsewhere in one box of four: aikitoria/open-gpu-kernel-modules#18",
            "bridged cards have peer access, the others do not: ggml-org/llama.cpp#2470",
            "4 x 14.062 GB/s: hpc-community.unige.ch (nvlink -s of RTX A6000); all inactive: canonical/checkbox",
            "inferred: GNS for the pairs without a bridge, as for other GeForce cards on the stock driver",
        ),
    ),
    "kvm-guest-cns": (
        {
            **linux(
                "6.8.0-124-generic", "(buildd@lcy02-amd64-080) (gcc 12.3.0) #124~22.04.1-Ubuntu SMP PREEMPT_DYNAMIC"
            ),
            **vm("QEMU", "Standard PC (Q35 + ICH9, 2009)", "BOCHS"),
            **bus({"0000:00:00.0": ("0x8086", "0x060000"), "0000:01:00.0": DISPLAY, "0000:02:00.0": DISPLAY}),
            **runs(
                OPEN_595,
                tuple(
                    _3090(pci, (AMPERE._replace(up=False),) * 4)._replace(virtualization=1)
                    for pci in ("0000:01:00.0", "0000:02:00.0")
                ),
                lambda *_: Way(CHIPSET, PHB),
                attributes=GEFORCE,
            ),
        },
        (
            "two RTX 3090 passed through by Proxmox: noonghunna/club-3090#642",
            "CNS because of the emulated 8086:29c0 host bridge: noonghunna/club-3090#886, docs/PCIE_P2P.md",
        ),
    ),
}
