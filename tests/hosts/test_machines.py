"""What makes each synthetic host the machine it is: the few facts that its probes must read off it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest
from assemble import SYNTHETIC

from warmspare import catalogue
from warmspare.model.facts import Absent, Cause, Known
from warmspare.model.snapshot import Reader, Snapshot

HERE: Final = Path(__file__).parent
READER: Final = Reader(catalogue.facts())
Pins = dict[tuple[str, str], dict[str, Any]]

GEFORCE_REFUSAL: Final = {"read": "gpu", "write": "gpu", "nvlink": "unsupported"}
LINKED: Final = {"read": "ok", "write": "ok", "nvlink": "ok"}
BLOCKED: Final = "The operating system has blocked the request"

KNOWN: Final[dict[str, Pins]] = {
    "wsl2-nat-laptop": {
        ("platform", "host"): {"kind": "wsl2"},
        ("driver", "host"): {"kernel_version": "581.29", "module": None},
        ("driver_model", "gpu0"): {"current": "wddm"},
        ("gpu_access", "gpu0"): {"way": "gpu-pv"},
        ("cuda_library", "host"): {"origin": "wsl"},
        ("cuda_attributes", "gpu0"): {"managed_memory": True, "concurrent_managed_access": False},
    },
    "wsl2-mirrored-two-gpus": {
        ("wsl", "host"): {"networking_mode": "mirrored"},
        ("seccomp_of_pid1", "host"): {"mode": 2},
        ("gpus", "host"): {"count": 2},
        ("criu_seccomp_suspend", "host"): {"supported": False},
    },
    "wsl2-tcc-card": {
        ("nvml_library", "host"): {"found": True, "code": "17"},
        ("windows_driver", "host"): {"models": ("TCC",)},
    },
    "wsl2-tcc-beside-wddm": {
        ("gpus", "host"): {"count": 2, "ids": ("nvml:0", "nvml:1")},
        ("windows_driver", "host"): {"models": ("TCC", "WDDM")},
    },
    "wsl2-docker-desktop": {
        ("platform", "host"): {"kind": "wsl2"},
        ("container", "host"): {"inside": True, "engine": "docker"},
        ("gpu_access", "gpu0"): {"way": "gpu-pv"},
        ("seccomp", "host"): {"mode": 2},
        ("inside_mounts", "host"): {"devices": ("dxg",)},
    },
    "wsl2-amd": {
        ("gpus", "host"): {"count": 0},
        ("other_gpus", "host"): {"vendors": ("amd",)},
        ("driver", "host"): {"kernel_version": None},
    },
    "driver-470": {
        ("driver", "host"): {"kernel_version": "470.161.03", "module": "proprietary"},
        ("gpu_memory", "gpu0"): {"total_mib": 22731, "reserved_mib": None},
        ("pagemap_scan", "host"): {"works": False},
        ("clone3_set_tid", "host"): {"works": False},
    },
    "driver-535": {
        ("driver", "host"): {"kernel_version": "535.183.01", "module": "proprietary"},
        ("gpu_memory", "gpu0"): {"total_mib": 23034, "reserved_mib": 465},
        ("gpu_access", "gpu0"): {"way": "passthrough"},
        ("platform", "host"): {"kind": "vm", "hypervisor": "google"},
    },
    "driver-550": {
        ("driver", "host"): {"kernel_version": "550.54.15", "module": "open"},
        ("gpus", "host"): {"count": 8},
        ("nv_switches", "host"): {"addresses": tuple(f"0000:0{n}:00.0" for n in range(5, 9))},
        ("fabric", "gpu7"): {"state": "completed"},
        ("pair_topology", "gpu0→gpu7"): {"label": "NV18", "ancestor": "sys"},
    },
    "bare-metal-no-driver": {
        ("gpus", "host"): {"ids": ("0000:01:00.0",), "nvml": (None,)},
        ("driver", "host"): {"kernel_version": None},
        ("platform", "host"): {"kind": "bare-metal"},
    },
    "geforce-pair-gns": {
        ("pair_topology", "gpu0→gpu1"): {"label": "PHB"},
        ("peer_access", "gpu0→gpu1"): GEFORCE_REFUSAL,
        ("peer_access", "gpu1→gpu0"): GEFORCE_REFUSAL,
        ("pcie_link", "gpu0"): {"generation": 1, "width": 8, "max_generation": 5, "max_width": 16},
    },
    "geforce-one-bridge-of-four": {
        ("pair_topology", "gpu0→gpu1"): {"nvlinks": 4, "label": "NV4"},
        ("pair_topology", "gpu1→gpu0"): {"nvlinks": 4},
        **{("pair_topology", f"gpu{a}→gpu{b}"): {"nvlinks": 0} for a, b in ((0, 2), (0, 3), (1, 2), (2, 3), (3, 0))},
        ("peer_access", "gpu0→gpu1"): LINKED,
        ("peer_access", "gpu2→gpu3"): GEFORCE_REFUSAL,
        ("nv_link", "gpu0/link3"): {
            "state": "active",
            "gb_per_s": 14.062,
            "remote": "gpu",
            "remote_pci": "0000:21:00.0",
        },
        ("nv_link", "gpu2/link0"): {"state": "inactive", "gb_per_s": None, "remote_pci": None},
        ("nv_links_up", "gpu3"): {"numbers": (), "of": 4},
    },
    "kvm-guest-cns": {
        ("platform", "host"): {"kind": "vm", "hypervisor": "kvm"},
        ("peer_access", "gpu0→gpu1"): {"read": "chipset", "write": "chipset"},
        ("gpu_access", "gpu1"): {"way": "passthrough"},
    },
    "a100-board-without-switch": {
        **{("pair_topology", f"gpu{a}→gpu{b}"): {"label": "NV4"} for a in range(4) for b in range(4) if a != b},
        ("nv_links_up", "gpu0"): {"numbers": tuple(range(12)), "gb_per_s": 300.0},
        ("nv_link", "gpu0/link11"): {"version": "3.0", "gb_per_s": 25.0, "remote": "gpu"},
        ("nv_switches", "host"): {"addresses": ()},
    },
    "h100-nvl-bridged-pair": {
        ("pair_topology", "gpu0→gpu1"): {"label": "NV12"},
        ("nv_link", "gpu1/link0"): {"version": "4.0", "remote": "gpu", "remote_pci": "0000:4a:00.0"},
    },
    "b200-8": {
        ("pair_topology", "gpu0→gpu7"): {"label": "NV18"},
        ("nv_link", "gpu0/link0"): {"version": "5.0", "gb_per_s": 53.125, "remote": "switch", "remote_pci": None},
        ("nv_links_up", "gpu0"): {"gb_per_s": 956.25},
    },
    "fabric-manager-down": {
        ("cuda_init", "host"): {"code": 802, "name": "SYSTEM_NOT_READY"},
        ("fabric", "gpu0"): {"state": "in progress"},
        ("gpu_memory", "gpu7"): {"total_mib": 81559},
        ("gpus", "host"): {"count": 8},
        ("nv_links_up", "gpu0"): {"numbers": ()},
    },
    "error-802-guest": {
        ("cuda_init", "host"): {"code": 802, "name": "SYSTEM_NOT_READY"},
        ("gpus", "host"): {"count": 2},
        ("pair_topology", "gpu0→gpu1"): {"label": "NV12"},
        ("nv_link", "gpu0/link0"): {"remote": "switch", "remote_pci": None},
    },
    "mig-on": {
        ("mig", "gpu0"): {"current": "on"},
        ("gpus", "host"): {"ids": ("GPU-11111111-1111-4111-8111-111111111111",)},
        ("cuda_attributes", "gpu0"): {"vmm": True},
    },
    "dgx-spark": {
        ("gpu_identity", "gpu0"): {"name": "NVIDIA GB10", "compute_capability": "12.1"},
        ("kernel", "host"): {"machine": "aarch64"},
        ("driver", "host"): {"kernel_version": "580.126.09", "module": "open"},
        ("gpus", "host"): {"count": 1, "pci": ("000f:01:00.0",)},
        ("cuda_attributes", "gpu0"): {"pageable_memory_access": True},
        ("pcie_link", "gpu0"): {"generation": 1, "width": 1},
    },
    "azure-h100": {
        ("platform", "host"): {"kind": "vm", "hypervisor": "hyper-v"},
        ("gpus", "host"): {"count": 1, "pci": ("0001:00:00.0",)},
        ("other_gpus", "host"): {"vendors": ()},
        ("nv_links_up", "gpu0"): {"numbers": ()},
    },
    "proxmox-host": {
        ("platform", "host"): {"kind": "bare-metal", "hypervisor": None},
        ("gpu_identity", "gpu0"): {"compute_capability": "6.1"},
        ("other_gpus", "host"): {"vendors": ()},
        ("gpu_access", "gpu0"): {"way": "native"},
    },
    "vgpu-guest": {
        ("gpu_access", "gpu0"): {"way": "vgpu"},
        ("platform", "host"): {"kind": "vm", "hypervisor": "vmware"},
        ("cuda_attributes", "gpu0"): {"vmm": False, "managed_memory": False},
    },
    "gvisor": {
        ("platform", "host"): {"kind": "gvisor"},
        ("kcmp", "host"): {"works": False, "errno": "ENOSYS"},
    },
    "gvisor-nvproxy": {
        ("platform", "host"): {"kind": "gvisor"},
        ("gpus", "host"): {"count": 1},
        ("driver", "host"): {"kernel_version": "580.126.09", "module": None},
    },
}
ABSENT: Final[dict[str, dict[tuple[str, str], tuple[Cause, str]]]] = {
    "wsl2-tcc-card": {("gpus", "host"): (Cause.INVALID, BLOCKED)},
    "wsl2-tcc-beside-wddm": {
        ("gpu_identity", "gpu0"): (Cause.INVALID, "Unknown Error"),
        ("peer_access", "gpu0→gpu1"): (Cause.INVALID, "Unknown Error"),
        ("cuda_init", "host"): (Cause.UNASKED, "no published log"),
    },
    "wsl2-mirrored-two-gpus": {
        ("peer_access", "gpu0→gpu1"): (Cause.UNASKED, "not in this recording"),
        ("nv_links", "gpu0"): (Cause.UNASKED, "not in this recording"),
    },
    "gvisor": {("clone3_set_tid", "host"): (Cause.UNASKED, "not in this recording")},
    "fabric-manager-down": {
        ("peer_access", "gpu0→gpu1"): (Cause.UNASKED, "not in this recording"),
        ("cuda_attributes", "gpu7"): (Cause.INVALID, "cuInit failed with 802"),
    },
}


def load(name: str) -> Snapshot:
    return READER.read((HERE / f"synthetic-{name}.json").read_bytes())


def test_every_synthetic_host_is_pinned() -> None:
    assert {f"synthetic-{name}" for name in KNOWN} == set(SYNTHETIC)


@pytest.mark.parametrize("name", KNOWN)
def test_what_makes_the_host(name: str) -> None:
    readings = load(name).readings
    for (fact, subject), values in KNOWN[name].items():
        reading = dict(readings.items())[fact, subject]
        assert isinstance(reading, Known), (fact, subject, reading)
        assert {key: getattr(reading.value, key) for key in values} == values, (fact, subject)


@pytest.mark.parametrize("name", ABSENT)
def test_what_the_host_does_not_say(name: str) -> None:
    readings = dict(load(name).readings.items())
    for where, (cause, words) in ABSENT[name].items():
        reading = readings[where]
        assert isinstance(reading, Absent), (where, reading)
        assert reading.cause is cause, where
        assert words in reading.detail, where


@pytest.mark.parametrize("name", SYNTHETIC)
def test_a_synthetic_host_is_marked_and_names_its_sources(name: str) -> None:
    notes = READER.read((HERE / f"{name}.json").read_bytes()).notes
    assert notes[0] == "synthetic"
    assert [note for note in notes[1:] if not note.startswith("inferred: ")]
