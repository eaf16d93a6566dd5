"""Access control services are read off the bridges' own configuration space, however little of it is shown."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmspare.host.experiments import pci_acs

BRIDGE, GPU, SOUND = "0x060400\n", "0x030200\n", "0x040300\n"
NVIDIA, INTEL = "0x10de\n", "0x8086\n"
AER, ACS, SECONDARY = 0x0001, 0x000D, 0x0019
ALL_THAT_LINUX_SETS: Final = 0x001D
"""Source validation, request and completion redirect, upstream forwarding. Source: Linux pci_std_enable_acs."""


def config(*capabilities: tuple[int, int, int], control: int = 0, size: int = 4096) -> bytes:
    """Configuration space with a chain of extended capabilities: (offset, id, next)."""
    space = bytearray(4096)
    for offset, identity, after in capabilities:
        struct.pack_into("<I", space, offset, identity | 1 << 16 | after << 20)
        if identity == ACS:
            struct.pack_into("<HH", space, offset + 4, 0x001F, control)
    return bytes(space[:size])


def plant(bus: Path, way: str, kind: str, space: bytes | None, vendor: str = INTEL) -> None:
    """A device by its place in the tree, linked from the bus as in sysfs."""
    folder = bus.parent / "tree/pci0000:15" / way
    folder.mkdir(parents=True)
    (folder / "class").write_text(kind)
    (folder / "vendor").write_text(vendor)
    if space is not None:
        (folder / "config").write_bytes(space)
    (bus / folder.name).symlink_to(folder)


def plant_gpu(bus: Path, *ways: str, kind: str = GPU, vendor: str = NVIDIA) -> None:
    for way in ways:
        plant(bus, way, kind, config((0x100, ACS, 0), control=ALL_THAT_LINUX_SETS), vendor)


@pytest.fixture
def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    found = tmp_path / "bus"
    found.mkdir()
    monkeypatch.setattr(pci_acs, "DEVICES", found)
    return found


def test_no_bus_is_an_answer(bus: Path) -> None:
    bus.rmdir()
    assert pci_acs.run() == {"bus": False, "bridges": 0, "readable": 0, "redirecting": []}


def test_a_bus_without_bridges(bus: Path) -> None:
    plant_gpu(bus, "0000:00:06.0")
    (bus / "0000:00:07.0").mkdir()  # pulled out meanwhile
    assert pci_acs.run() == {"bus": True, "bridges": 0, "readable": 0, "redirecting": []}


@pytest.mark.parametrize(
    ("control", "redirects"),
    [
        (0, False),
        (0x0001, False),  # source validation
        (0x0002, False),  # translation blocking
        (0x0004, True),  # request redirect
        (0x0008, True),  # completion redirect
        (0x0010, False),  # upstream forwarding
        (ALL_THAT_LINUX_SETS, True),
        (0x0051, False),
    ],
)
def test_a_bridge_redirects_by_two_bits(bus: Path, control: int, *, redirects: bool) -> None:
    plant(bus, "0000:15:01.0", BRIDGE, config((0x100, AER, 0x148), (0x148, ACS, 0), control=control))
    plant_gpu(bus, "0000:15:01.0/0000:17:00.0")
    expected = ["0000:15:01.0"] if redirects else []
    assert pci_acs.run() == {"bus": True, "bridges": 1, "readable": 1, "redirecting": expected}


@pytest.mark.parametrize(
    ("space", "readable"),
    [
        (config(size=64), 0),  # as an ordinary user
        (b"", 0),
        (None, 0),
        (config(size=256), 1),  # no PCI Express, or no way to its extended space
        (config(), 1),
        (b"\xff" * 4096, 1),  # does not answer
        (config((0x100, AER, 0x148), (0x148, SECONDARY, 0)), 1),
        (config((0x100, AER, 0x148), (0x148, SECONDARY, 0x100)), 1),  # a circle
        (config((0x100, AER, 0xFFC)), 1),  # over the end
        (config((0x100, AER, 0x040)), 1),  # back into the first part
        (config((0x100, ACS, 0), control=ALL_THAT_LINUX_SETS, size=0x104), 1),  # cut short
    ],
)
def test_what_shows_no_control_register_redirects_nothing(bus: Path, space: bytes | None, readable: int) -> None:
    plant(bus, "0000:15:01.0", BRIDGE, space)
    plant_gpu(bus, "0000:15:01.0/0000:17:00.0")
    assert pci_acs.run() == {"bus": True, "bridges": 1, "readable": readable, "redirecting": []}


def test_each_bridge_is_counted_by_itself(bus: Path) -> None:
    redirecting = config((0x100, ACS, 0), control=ALL_THAT_LINUX_SETS)
    for address, space in (
        ("0000:15:01.0", redirecting),
        ("0000:15:02.0", config()),
        ("0000:15:02.0/0000:16:00.0", config(size=64)),
    ):
        plant(bus, address, BRIDGE, space)
    plant_gpu(bus, "0000:15:01.0/0000:17:00.0", "0000:15:02.0/0000:16:00.0/0000:18:00.0")
    assert pci_acs.run() == {"bus": True, "bridges": 3, "readable": 2, "redirecting": ["0000:15:01.0"]}


@pytest.mark.parametrize(
    ("kind", "vendor"), [(SOUND, NVIDIA), ("0x068000\n", NVIDIA), (GPU, INTEL), ("0x010802\n", "0x144d\n")]
)
def test_a_bridge_above_anything_but_an_nvidia_gpu_does_not_count(bus: Path, kind: str, vendor: str) -> None:
    redirecting = config((0x100, ACS, 0), control=ALL_THAT_LINUX_SETS)
    plant(bus, "0000:15:01.0", BRIDGE, redirecting)
    plant_gpu(bus, "0000:15:01.0/0000:17:00.0", kind=kind, vendor=vendor)
    assert pci_acs.run() == {"bus": True, "bridges": 0, "readable": 0, "redirecting": []}
    plant(bus, "0000:15:02.0", BRIDGE, redirecting)
    plant_gpu(bus, "0000:15:02.0/0000:18:00.0")
    assert pci_acs.run() == {"bus": True, "bridges": 1, "readable": 1, "redirecting": ["0000:15:02.0"]}


def test_what_stands_above_a_gpu_and_is_no_bridge_does_not_count(bus: Path) -> None:
    plant(bus, "0000:15:01.0", BRIDGE, config())
    plant(bus, "0000:15:01.0/0000:16:00.0", "0x010400\n", config())  # a controller with a PCI domain of its own
    plant(bus, "0000:15:01.0/0000:16:00.0/pci10000:00/10000:00:01.0", BRIDGE, config())
    plant_gpu(bus, "0000:15:01.0/0000:16:00.0/pci10000:00/10000:00:01.0/10000:01:00.0")
    assert pci_acs.run() == {"bus": True, "bridges": 2, "readable": 2, "redirecting": []}


@given(space=st.binary(max_size=600))
def test_any_bytes_end_and_give_a_register(space: bytes) -> None:
    control = pci_acs._control_register(space)  # noqa: SLF001 # the parser itself
    assert 0 <= control <= 0xFFFF
