"""CONTRIBUTING.md, tried by doing it: its five examples are put into a copy of the package and used."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

import warmspare
from standins import Drivers

ROOT: Final = Path(__file__).parent.parent
IMPORTS: Final = {
    "requirement": (
        "from warmspare.model.findings import Finding, met, unmet\nfrom warmspare.probes.overcommit import Overcommit\n"
    ),
    "track": (
        "from warmspare.model.tracks import Layer, Track\nfrom warmspare.tracks.shared import gpu_is_there\n"
        "from warmspare.tracks.baseline import pinned_memory_works\n"
    ),
    "trial": (
        "import os\nfrom warmspare.model.facts import Outcome, Proof, Seconds\n"
        "from warmspare.trials.api import Steps, trial\n"
    ),
}
REMEDY: Final = """
[allow-overcommit]
do = "sysctl vm.overcommit_memory=0"
changes = "the kernel's setting"
effort = "seconds"
"""


def docstring_first(block: str, imports: str) -> str:
    """The block with imports behind its docstring."""
    docstring, _, rest = block.partition("\n")
    return f"{docstring}\n{imports}{rest}"


@pytest.fixture
def extended(tmp_path: Path) -> Path:
    """A copy of the package with the examples in it."""
    package = tmp_path / "src/warmspare"
    shutil.copytree(Path(warmspare.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    probe, of_gpu, requirement, track, trial = re.findall(
        r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL
    )
    (package / "probes/overcommit.py").write_text(probe, encoding="utf-8")
    (package / "probes/gpu_temperature.py").write_text(of_gpu, encoding="utf-8")
    imports = IMPORTS["requirement"] + IMPORTS["track"]
    (package / "tracks/kv_cache.py").write_text(docstring_first(track, imports + requirement), encoding="utf-8")
    (package / "trials/file_roundtrip.py").write_text(docstring_first(trial, IMPORTS["trial"]), encoding="utf-8")
    with (package / "tracks/remedies.toml").open("a", encoding="utf-8") as file:
        file.write(REMEDY)
    return tmp_path


def run(where: Path, *args: str, **more: str) -> subprocess.CompletedProcess[str]:
    """The extended tool, with a CRIU that refuses everything."""
    criu = where / "criu"
    criu.write_text("#!/bin/sh\nexit 1\n")
    criu.chmod(0o755)
    environment = {
        **os.environ,
        "PYTHONPATH": str(where / "src"),
        "WARMSPARE_STATE_DIR": str(where / "state"),
        "WARMSPARE_CRIU": str(criu),
        **more,
    }
    command = [sys.executable, "-m", "warmspare", *args]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_a_newcomer_adds_a_probe_a_requirement_a_track_and_a_trial(extended: Path) -> None:
    ended = run(extended, "check", "--full", "--json", "-")
    assert ended.returncode in (1, 3), ended.stderr
    assert "trying file_roundtrip: touches one 1 MiB file of its own" in ended.stderr
    tracks: dict[str, Any] = {track["id"]: track for track in json.loads(ended.stdout)["report"]["tracks"]}
    assert tracks["kv-cache"]["question"] == "Can an engine keep its KV cache in host memory?"
    checks = {check["id"]: check for layer in tracks["kv-cache"]["layers"] for check in layer["checks"]}
    assert checks["memory_may_be_promised"]["mark"] in ("met", "unmet")
    assert "overcommit_memory" in " ".join(checks["memory_may_be_promised"]["evidence"])


def test_the_new_probe_is_asked_once_a_gpu(extended: Path) -> None:
    drivers = Drivers(extended).world("healthy")
    ended = run(extended, "snapshot", "--no-trials", "-o", "-", **drivers)
    entries = json.loads(ended.stdout)["readings"]
    asked = {e["subject"]: e["reading"]["detail"] for e in entries if e["fact"] == "gpu_temperature"}
    assert asked == {f"gpu{n}": "nvmlDeviceGetTemperature: Function Not Found" for n in range(4)}


def test_the_new_trial_ran_and_its_proof_is_kept(extended: Path) -> None:
    run(extended, "check", "--full")
    (kept,) = (extended / "state").glob("snapshot-*.json")
    readings = {entry["fact"]: entry["reading"] for entry in json.loads(kept.read_text())["readings"]}
    assert readings["file_roundtrip"]["value"]["outcome"]["kind"] == "done"
    assert readings["file_roundtrip"]["standing"] == "tried"


def test_the_new_ids_explain_themselves(extended: Path) -> None:
    told = run(extended, "explain", "memory_may_be_promised").stdout
    assert "a kernel that counts strictly refuses them" in " ".join(told.split())
    assert "sysctl vm.overcommit_memory=0" in told
