"""Which PCI bridges above NVIDIA's GPUs send what one writes to another up to the root complex (ACS)?

Only bridges on the way from a GPU to its root count: what others do with their access control services is no
matter of peer-to-peer copies between GPUs. The way is told by the real path of the GPU's folder. A bridge that
redirects requests or completions makes such copies slow, and behind a translating IOMMU wrong. The answer stands
in its configuration space behind the first 256 bytes, of which an ordinary user is shown 64. Inside a virtual
machine the bridges are the hypervisor's; the real ones are not to be seen.

Source: PCI Express base specification, ACS extended capability; linux/pci_regs.h (PCI_ACS_CTRL, PCI_ACS_RR,
PCI_ACS_CR); NVIDIA NCCL user guide, troubleshooting, "PCI Access Control Services". Intel's 100-series chipset
ports keep the register elsewhere (Linux drivers/pci/quirks.c): they are read as the specification has it.
"""

import re
import struct
from pathlib import Path
from typing import Final

DEVICES: Final = Path("/sys/bus/pci/devices")
NVIDIA: Final = "0x10de"
DISPLAY: Final = "0x03"
BRIDGE: Final = "0x0604"
ADDRESS: Final = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
HEADER: Final = 64
"""The bytes of configuration space that an ordinary user may read."""
EXTENDED: Final = 0x100
ACS: Final = 0x000D
CONTROL: Final = 6
REDIRECT: Final = 0x0004 | 0x0008  # peer-to-peer requests, and their completions


def run() -> dict[str, object]:
    """`{"bus": bool, "bridges": int, "readable": int, "redirecting": [address]}`; no bus to see is an answer."""
    try:
        found = sorted(DEVICES.iterdir())
    except FileNotFoundError:
        return {"bus": False, "bridges": 0, "readable": 0, "redirecting": []}
    gpus = (device for device in found if _says(device, "vendor", NVIDIA) and _says(device, "class", DISPLAY))
    above = {name for gpu in gpus for name in gpu.resolve().parent.parts if ADDRESS.fullmatch(name)}
    bridges = (DEVICES / name for name in sorted(above))
    controls = {bridge.name: _control(bridge) for bridge in bridges if _says(bridge, "class", BRIDGE)}
    return {
        "bus": True,
        "bridges": len(controls),
        "readable": sum(control is not None for control in controls.values()),
        "redirecting": [name for name, control in controls.items() if control is not None and control & REDIRECT],
    }


def _says(device: Path, file: str, what: str) -> bool:
    try:
        return (device / file).read_text(encoding="utf-8", errors="replace").startswith(what)
    except FileNotFoundError:  # unplugged meanwhile
        return False


def _control(device: Path) -> int | None:
    """The ACS control register; 0 where the bridge has none, None where we may not see."""
    try:
        config = (device / "config").read_bytes()
    except (FileNotFoundError, PermissionError):
        return None
    return None if len(config) <= HEADER else _control_register(config)


def _control_register(config: bytes) -> int:
    seen, offset = set(), EXTENDED
    while offset >= EXTENDED and offset not in seen and offset + CONTROL + 2 <= len(config):
        seen.add(offset)
        (header,) = struct.unpack_from("<I", config, offset)
        if header in (0, 0xFFFF_FFFF):  # no capabilities; a device that does not answer
            break
        if header & 0xFFFF == ACS:
            (control,) = struct.unpack_from("<H", config, offset + CONTROL)
            return int(control)
        offset = header >> 20 & 0xFFC
    return 0
