"""Experiments that tell a little of a file that says too much: what they tell, and what they keep to themselves."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmspare.host.experiments import (
    docker_runtimes,
    iommu_options,
    nvidia_mounts,
    shared_memory,
    wsl_drivers,
)

SECRET: Final = "hunter2"  # noqa: S105 # a planted one


Planted = Callable[[ModuleType, str, str], dict[str, object]]


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Planted:
    """Put a text in the place of the file that an experiment reads, and run it."""

    def run(module: ModuleType, name: str, text: str) -> dict[str, object]:
        path = tmp_path / "file"
        path.write_text(text, encoding="utf-8")
        monkeypatch.setattr(module, name, path)
        answer: dict[str, object] = module.run()
        assert SECRET not in json.dumps(answer)
        return answer

    return run


@pytest.mark.parametrize(
    ("line", "options"),
    [
        (
            f"BOOT_IMAGE=/vmlinuz root=UUID=x rd.luks.key={SECRET} intel_iommu=on iommu=pt",
            ["intel_iommu=on", "iommu=pt"],
        ),
        (
            "amd_iommu=off iommu.passthrough=1 iommu.strict=0",
            ["amd_iommu=off", "iommu.passthrough=1", "iommu.strict=0"],
        ),
        ("quiet pci=realloc=off,noats", ["pci=realloc=off,noats"]),
        ("pci=disable_acs_redir=pci:8086:2030;0000:15:01.0", ["pci=disable_acs_redir=pci:8086:2030;0000:15:01.0"]),
        ("pcie_acs_override=downstream,multifunction", ["pcie_acs_override=downstream,multifunction"]),
        (f"iommu=off -- --token {SECRET} iommu=pt", ["iommu=off"]),
        (f'note="a iommu={SECRET} b" iommu=pt', ["iommu=pt"]),
        (f'note="a iommu={SECRET}', []),
        (f"iommu={'a' * 200}{SECRET} swiommu=on iommu", []),
        ("", []),
    ],
)
def test_of_the_command_line_only_the_iommus_words(planted: Planted, line: str, options: list[str]) -> None:
    assert planted(iommu_options, "COMMAND_LINE", line + "\n") == {"options": options}


@given(line=st.text(max_size=300) | st.lists(st.sampled_from(['"', "iommu=pt", " ", "--", "pci=", "a"])).map("".join))
def test_any_command_line_is_read(line: str) -> None:
    words = iommu_options.WORD.findall(line)
    assert all(isinstance(word, str) for word in words)


SHARED: Final = f"/home/alice/my\\040{SECRET}"
MOUNTS: Final = f"""\
22 27 0:21 / /proc rw,relatime - proc proc rw
29 27 254:16 / /usr/local/nvidia ro,nosuid,nodev,relatime - squashfs /dev/vdb ro,errors=continue
31 25 0:27 / /dev/shm rw,relatime - tmpfs tmpfs rw,size=536870912k
40 27 8:1 {SHARED} {SHARED} rw - ext4 /dev/sda1 rw
41 27 8:1 /a /usr/lib/x86_64-linux-gnu/libcuda.so.550.54.15 ro,nosuid - ext4 /dev/sda1 rw
42 27 8:1 /a /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.550.54.15 ro,nosuid - ext4 /dev/sda1 rw
43 27 8:1 /a /usr/bin/nvidia-smi ro,nosuid - ext4 /dev/sda1 rw
44 24 0:6 /nvidia0 /dev/nvidia0 ro,nosuid - devtmpfs udev rw
45 24 0:6 /nvidiactl /dev/nvidiactl ro,nosuid - devtmpfs udev rw
46 24 0:6 /nvidia-uvm /dev/nvidia-uvm ro,nosuid - devtmpfs udev rw
47 22 0:40 / /proc/driver/nvidia/gpus/0000:17:00.0 ro - proc proc rw
48 27 8:1 /h /home/alice/{SECRET}/libcuda.so.1/notes rw - ext4 /dev/sda1 rw
49 27 0:50 / /usr/lib/wsl/drivers ro,nosuid - 9p drivers ro,aname=drivers
50 24 0:6 /dxg /dev/dxg rw - devtmpfs udev rw

51
"""


def test_of_the_mounts_only_nvidias(planted: Planted) -> None:
    assert planted(nvidia_mounts, "MOUNTS", MOUNTS) == {
        "libraries": ["libcuda.so.550.54.15", "libnvidia-ml.so.550.54.15"],
        "devices": ["dxg", "nvidia-uvm", "nvidia0", "nvidiactl"],
        "programs": ["nvidia-smi"],
        "folders": ["/proc/driver/nvidia", "/usr/lib/wsl/drivers", "/usr/local/nvidia"],
    }


def test_no_mounts_are_none(planted: Planted) -> None:
    assert set(map(str, planted(nvidia_mounts, "MOUNTS", "").values())) == {"[]"}


@given(line=st.text(max_size=200))
def test_any_line_has_a_place(line: str) -> None:
    assert isinstance(nvidia_mounts._place(line), str)  # noqa: SLF001 # the parser itself


NOTHING: Final = {
    "found": True,
    "valid": True,
    "nvidia": False,
    "default": False,
    "cdi": False,
    "experimental": False,
}
NVIDIAS: Final = {"nvidia": {"args": [SECRET], "path": "nvidia-container-runtime"}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (json.dumps({"runtimes": NVIDIAS}), {**NOTHING, "nvidia": True}),
        (json.dumps({"runtimes": NVIDIAS, "default-runtime": "nvidia"}), {**NOTHING, "nvidia": True, "default": True}),
        (json.dumps({"features": {"cdi": True}, "proxies": {"http-proxy": SECRET}}), {**NOTHING, "cdi": True}),
        ('{"experimental": true}', {**NOTHING, "experimental": True}),
        ('{"experimental": "yes"}', NOTHING),
        ("{}", NOTHING),
        ('{"runtimes": [], "features": 3, "default-runtime": null}', NOTHING),
        ("[]", {**NOTHING, "valid": False}),
        (f"{SECRET} = {{", {**NOTHING, "valid": False}),
        ("[" * 100_000, {**NOTHING, "valid": False}),
        ("", {**NOTHING, "valid": False}),
    ],
)
def test_of_dockers_configuration_only_nvidias(planted: Planted, text: str, expected: dict[str, bool]) -> None:
    assert planted(docker_runtimes, "FILE", text) == expected


def test_no_configuration_is_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker_runtimes, "FILE", tmp_path / "none")
    assert docker_runtimes.run() == {**NOTHING, "found": False}


def test_shared_memory_is_what_its_file_system_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "FOLDER", tmp_path / "none")
    assert shared_memory.run() == {"found": False, "size": None, "free": None}
    for blocks, size, free in ((16384, 67108864, 40960), (0, None, None)):
        seen = SimpleNamespace(f_blocks=blocks, f_frsize=4096, f_bavail=10)
        monkeypatch.setattr(os, "statvfs", lambda _, seen=seen: seen)
        assert shared_memory.run() == {"found": True, "size": size, "free": free}


INBOX: Final = ("nvraid.inf_amd64_0b1e", "nvdimm.inf_amd64_9c2d", "mdmgl001.inf_amd64_e09a", "amdgpio2.inf_amd64_aa")


@pytest.mark.parametrize(
    ("packages", "vendors"),
    [
        ({}, []),
        ({"nv_dispi.inf_amd64_6f3cfb7117944855": []}, ["nvidia"]),
        ({"nvmii.inf_amd64_dc83e8227e4d659f": ["nvlddmkm.sys", "nvcuda64.dll"]}, ["nvidia"]),
        ({"nvhqig.inf_amd64_56b1629f0ce88717": ["libnvidia-ml.so.1"]}, ["nvidia"]),
        ({"nvhda.inf_amd64_9fb9ca6ebbf0a797": ["nvhda64v.sys"]}, []),
        ({"u0420529.inf_amd64_94ad5a6c4d1a04e2": []}, ["amd"]),
        ({"c0318486.inf_amd64_11ba0b4b7cc81d52": []}, ["amd"]),
        ({"iigd_dch.inf_amd64_55f589032bab5285": ["igdkmd64.sys"]}, ["intel"]),
        (
            {"u0420529.inf_amd64_94ad5a6c4d1a04e2": [], "nv_dispsi.inf_amd64_7cc7738d8e428783": ["libcuda.so.1.1"]},
            ["amd", "nvidia"],
        ),
    ],
)
def test_a_driver_store_names_the_makers_of_displays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packages: dict[str, list[str]], vendors: list[str]
) -> None:
    monkeypatch.setattr(wsl_drivers, "STORE", tmp_path / "drivers")
    monkeypatch.setattr(wsl_drivers, "LIBRARIES", tmp_path / "lib")
    for name, files in {**{name: ["a.sys"] for name in INBOX}, **packages}.items():
        (tmp_path / "drivers" / name).mkdir(parents=True)
        for file in files:
            (tmp_path / "drivers" / name / file).touch()
    (tmp_path / "drivers" / "nvnote.txt").touch()
    assert wsl_drivers.run() == {"found": True, "vendors": vendors}
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libd3d12.so").touch()
    assert wsl_drivers.run() == {"found": True, "vendors": vendors}
    (tmp_path / "lib" / "libcuda.so.1").touch()
    assert wsl_drivers.run() == {"found": True, "vendors": sorted({*vendors, "nvidia"})}


def test_no_driver_store_is_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wsl_drivers, "STORE", tmp_path / "drivers")
    monkeypatch.setattr(wsl_drivers, "LIBRARIES", tmp_path / "lib")
    assert wsl_drivers.run() == {"found": False, "vendors": []}


def test_a_package_that_may_not_be_looked_into_may_be_nvidias(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "nvxyz.inf_amd64_1"
    package.mkdir()

    def refuse(_folder: Path) -> bool:
        raise PermissionError

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert wsl_drivers._vendor(package) == "nvidia"  # noqa: SLF001 # the parser itself
