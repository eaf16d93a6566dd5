"""What is said of a real GPU, against nvidia-smi. Last run: see tests/hosts/README.md, host h100."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

Tool = Callable[..., subprocess.CompletedProcess[str]]
pytestmark = pytest.mark.gpu


def smi(*args: str) -> str:
    """What nvidia-smi prints."""
    return subprocess.run(["nvidia-smi", *args], capture_output=True, text=True, timeout=30, check=True).stdout


def used_mib() -> list[str]:
    return smi("--query-gpu=memory.used", "--format=csv,noheader,nounits").split()


def snapshot(tool: Tool) -> dict[str, Any]:
    ended = tool("snapshot", "--no-trials", "--no-redact", "-o", "-")
    assert ended.returncode == 0, ended.stderr
    return {entry["fact"]: entry["reading"] for entry in json.loads(ended.stdout)["readings"]}


def test_gpus_and_driver_are_those_of_nvidia_smi(tool: Tool) -> None:
    readings = snapshot(tool)
    assert readings["gpus"]["value"]["ids"] == re.findall(r"UUID: (GPU-[0-9a-f-]+)", smi("-L"))
    version = smi("--query-gpu=driver_version", "--format=csv,noheader").split()[0]
    assert readings["driver"]["value"]["kernel_version"] == version
    assert readings["driver"]["value"]["library"] is True


def test_every_source_counts_the_same_gpus(tool: Tool) -> None:
    gpus = snapshot(tool)["gpus"]["value"]
    assert set(gpus["seen"].values()) == {len(gpus["ids"])}


def test_looking_takes_no_memory_of_a_gpu(tool: Tool) -> None:
    before = used_mib()
    assert tool("check", "--no-trials").returncode in (1, 3)
    assert used_mib() == before


def test_without_its_trials_no_track_is_go_or_degraded(tool: Tool) -> None:
    report = json.loads(tool("check", "--json", "-").stdout)["report"]
    verdicts = {track["id"]: track["verdict"] for track in report["tracks"]}
    assert set(verdicts.values()) <= {"UNKNOWN", "NO-GO"}
    assert verdicts["baseline"] == "UNKNOWN"
