"""What is said of real GPUs, against nvidia-smi. Last run: see tests/hosts/README.md, hosts h100, h200-x2, h200-x4."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

import pynvml
import pytest

Tool = Callable[..., subprocess.CompletedProcess[str]]
pytestmark = pytest.mark.gpu
ANSI: Final = re.compile(r"\x1b\[[0-9;]*m")
Said = dict[tuple[str, str], dict[str, Any]]


def smi(*args: str) -> str:
    """What nvidia-smi prints, without colours."""
    ran = subprocess.run(["nvidia-smi", *args], capture_output=True, text=True, timeout=30, check=True)
    return ANSI.sub("", ran.stdout)


def queried(field: str) -> list[str]:
    return smi(f"--query-gpu={field}", "--format=csv,noheader,nounits").splitlines()


@pytest.fixture
def seen(tool: Tool) -> Said:
    """Every known reading of this machine, by fact and subject."""
    ended = tool("snapshot", "--no-trials", "--no-redact", "-o", "-")
    assert ended.returncode == 0, ended.stderr
    entries = json.loads(ended.stdout)["readings"]
    return {(e["fact"], e["subject"]): e["reading"]["value"] for e in entries if e["reading"]["is"] == "known"}


@pytest.fixture
def described() -> list[dict[str, str]]:
    """`nvidia-smi -q`, a GPU a dictionary, its keys joined by slashes: `FB Memory Usage/Total`."""
    gpus: list[dict[str, str]] = []
    path: list[tuple[int, str]] = []
    for line in smi("-q").splitlines():
        depth = len(line) - len(line.lstrip())
        name, _, value = (part.strip() for part in line.partition(" : "))
        if re.match(r"GPU [0-9A-F]{8}:", line):
            gpus.append({"": line.split()[1]})
            path = []
        elif gpus and name:
            path = [*((d, n) for d, n in path if d < depth), (depth, name)]
            gpus[-1]["/".join(n for _, n in path)] = value
    return gpus


def matrix(text: str) -> list[list[str]]:
    """The cells between GPUs of a `topo` matrix."""
    rows = [line.split("\t") for line in text.splitlines() if re.match(r" ?GPU\d+\t", line)]
    return [[cell.strip() for cell in row[1 : len(rows) + 1]] for row in rows]


def pairs(count: int) -> Iterator[tuple[int, int, str]]:
    for a in range(count):
        for b in range(count):
            if a != b:
                yield a, b, f"gpu{a}→gpu{b}"


def test_every_source_names_the_gpus_of_nvidia_smi(seen: Said, described: list[dict[str, str]]) -> None:
    gpus = seen["gpus", "host"]
    assert gpus["ids"] == [gpu["GPU UUID"] for gpu in described]
    assert set(gpus["seen"].values()) == {len(described)}
    assert seen["cuda_devices", "host"]["count"] == len(described)
    assert gpus["nvml"] == [*range(len(described))]
    assert [f"0000{address.upper()}" for address in gpus["pci"]] == [gpu[""] for gpu in described]


def test_driver_and_libraries_are_of_the_version_nvidia_smi_says(seen: Said) -> None:
    version = queried("driver_version")[0]
    assert seen["driver", "host"]["kernel_version"] == version
    assert seen["nvml_library", "host"]["version"] == version
    assert seen["cuda_library", "host"]["version"] in (version, None)
    assert seen["cuda_library", "host"]["cuda_version"] == re.search(r"CUDA Version\s*: (\S+)", smi("-q"))[1]  # type: ignore[index]
    assert seen["cuda_init", "host"] == {"fact": "cuda_init", "code": 0, "name": "SUCCESS"}


SWITCH: Final = {"Enabled": "on", "Disabled": "off", "N/A": "unsupported"}


def test_every_gpu_is_described_as_by_nvidia_smi(seen: Said, described: list[dict[str, str]]) -> None:
    for n, (told, capability) in enumerate(zip(described, queried("compute_cap"), strict=True)):

        def ours(fact: str, subject: str = f"gpu{n}") -> dict[str, Any]:
            return {name: value for name, value in seen[fact, subject].items() if name != "fact"}

        def mib(name: str, told: dict[str, str] = told) -> int:
            return int(told[f"FB Memory Usage/{name}"].split()[0])

        link = "PCI/GPU Link Info"
        assert ours("gpu_identity") == {"name": told["Product Name"], "compute_capability": capability}
        assert ours("gpu_memory") == {
            "total_mib": mib("Total"),
            "reserved_mib": mib("Reserved"),
            "used_mib": mib("Used"),
            "free_mib": mib("Free"),
        }
        for fact, section in (("mig", "MIG Mode"), ("ecc", "ECC Mode")):
            assert ours(fact) == {
                "current": SWITCH[told[f"{section}/Current"]],
                "pending": SWITCH[told[f"{section}/Pending"]],
            }
        assert ours("persistence") == {"mode": SWITCH[told["Persistence Mode"]]}
        assert ours("compute_mode") == {"mode": told["Compute Mode"].lower().replace("_", "-")}
        assert ours("driver_model") == {"current": {"N/A": None}[told["Driver Model/Current"]]}
        assert (
            ours("gpu_access")["way"]
            == {"Pass-Through": "passthrough", "None": "native"}[told["GPU Virtualization Mode/Virtualization Mode"]]
        )
        assert ours("pcie_link") == {
            "generation": int(told[f"{link}/PCIe Generation/Current"]),
            "max_generation": int(told[f"{link}/PCIe Generation/Max"]),
            "width": int(told[f"{link}/Link Width/Current"].rstrip("x")),
            "max_width": int(told[f"{link}/Link Width/Max"].rstrip("x")),
        }
        assert ours("gpu_processes") == {"compute": 0, "graphics": 0, "mps": 0}
        assert told["Processes"] == "None"
        fabric = ours("fabric")
        assert fabric["state"] == {"N/A": "unsupported"}.get(told["Fabric/State"], told["Fabric/State"].lower())
        if fabric["state"] == "completed":
            assert told["Fabric/Status"] == {0: "Success"}[fabric["status"]]
            assert fabric["clique"] == int(told["Fabric/CliqueId"])


def test_topology_is_that_of_topo_m(seen: Said, described: list[dict[str, str]]) -> None:
    text = smi("topo", "-m")
    cells = matrix(text)
    for a, b, pair in pairs(len(described)):
        way = seen["pair_topology", pair]
        assert cells[a][b] == (f"NV{way['nvlinks']}" if way["nvlinks"] else way["ancestor"].upper())
    for line in text.splitlines():
        if found := re.match(r" ?GPU(\d+)\t", line):
            nodes = line.split("\t")[len(described) + 2].strip()
            assert nodes == ",".join(map(str, seen["gpu_numa", f"gpu{found[1]}"]["nodes"]))


GRANTS: Final = {"OK": "ok", "CNS": "chipset", "GNS": "gpu", "TNS": "topology", "DR": "regkey", "NS": "unsupported"}


@pytest.mark.parametrize(("letter", "what"), [("r", "read"), ("w", "write"), ("n", "nvlink"), ("a", "atomics")])
def test_grants_are_those_of_topo_p2p(seen: Said, described: list[dict[str, str]], letter: str, what: str) -> None:
    cells = matrix(smi("topo", "-p2p", letter))
    for a, b, pair in pairs(len(described)):
        assert seen["peer_access", pair][what] == GRANTS[cells[a][b]]


def test_links_are_those_of_nvlink_s(seen: Said, described: list[dict[str, str]]) -> None:
    told = {
        n: re.findall(r"Link (\d+): ([\d.]+) GB/s", part)
        for n, part in enumerate(smi("nvlink", "-s").split("GPU ")[1:])
    }
    for n in range(len(described)):
        up = [(number, speed) for number, speed in told.get(n, ())]
        ours = seen["nv_links_up", f"gpu{n}"]
        assert ours["numbers"] == [int(number) for number, _ in up]
        for number, speed in up:
            assert f"{seen['nv_link', f'gpu{n}/link{number}']['gb_per_s']:.3f}" == speed


def test_the_nccl_is_the_one_that_torch_maps(seen: Said) -> None:
    look = "import torch; print(*{line.split()[-1] for line in open('/proc/self/maps') if 'libnccl' in line})"
    ran = subprocess.run(["python3", "-c", look], capture_output=True, text=True, timeout=100, check=False)
    if ran.returncode:
        pytest.skip("python3 here has no torch")
    loaded = seen["nccl_loaded", "host"]["library"]
    tail = loaded["path"].removeprefix("…/")
    assert ran.stdout.strip().endswith(tail.split("site-packages/")[-1])


OF_CUINIT_MIB: Final = 8
"""What the driver itself takes of a GPU while any process that called cuInit lives: 3.3 MiB were seen on an H200."""


def test_looking_takes_no_memory_of_a_gpu(tool: Tool) -> None:
    pynvml.nvmlInit()
    handles = [pynvml.nvmlDeviceGetHandleByIndex(n) for n in range(pynvml.nvmlDeviceGetCount())]

    def used() -> list[int]:
        return [pynvml.nvmlDeviceGetMemoryInfo(handle, pynvml.nvmlMemory_v2).used for handle in handles]

    before, during, over = used(), list[tuple[list[int], int]](), threading.Event()

    def watch() -> None:
        while not over.is_set():
            during.append((used(), sum(len(pynvml.nvmlDeviceGetComputeRunningProcesses(h)) for h in handles)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        assert tool("check", "--no-trials").returncode in (1, 3)
    finally:
        over.set()
        watcher.join()
    most = max(now - then for sample, _ in during for now, then in zip(sample, before, strict=True))
    print(f"{len(during)} looks; at most {most / 2**20:.2f} MiB of a GPU more than before")  # noqa: T201 # a figure to record
    assert len(during) > 10, "it was watched"
    assert not any(processes for _, processes in during), "no process of ours has a context"
    assert most <= OF_CUINIT_MIB * 2**20
    assert used() == before


def test_without_its_trials_no_track_is_go_or_degraded(tool: Tool) -> None:
    report = json.loads(tool("check", "--no-trials", "--json", "-").stdout)["report"]
    verdicts = {track["id"]: track["verdict"] for track in report["tracks"]}
    assert set(verdicts.values()) <= {"UNKNOWN", "NO-GO"}
    assert verdicts["baseline"] == "UNKNOWN"
