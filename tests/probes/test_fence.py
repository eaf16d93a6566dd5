"""Probes reach the machine only through the host: with a recorded one they open, run and call nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from warmspare import catalogue

HOSTS = sorted(path.name for path in (Path(__file__).parent.parent / "hosts").glob("*.json"))

FENCED = """
import json, sys
from datetime import UTC, datetime
from pathlib import Path
from warmspare import catalogue
from warmspare.host.recorded import RecordedHost
from warmspare.model.facts import Known
from warmspare.model.snapshot import Reader
from warmspare.probes.api import collect

probes, reader = catalogue.probes(), Reader(catalogue.facts())
snapshots = [reader.read(Path(name).read_bytes()) for name in sys.argv[2:]]
FENCE = ("open", "os.", "subprocess.", "socket.", "ctypes.", "shutil.", "glob.", "tempfile.", "urllib.", "import",
         "pty.", "signal.", "fcntl.", "mmap.", "resource.", "exec", "compile", "pathlib.")
done, up = [], False

def fence(event, args):
    if up and event.startswith(FENCE):
        done.append(f"{event} {args!r}"[:200])
        raise RuntimeError(f"a probe did {event}")

sys.addaudithook(fence)
if sys.argv[1] == "control":
    planted = lambda host: open("/proc/self/status").read()
    probes = (type(probes[0])(planted, probes[0].fact),)
known = 0
for snapshot in snapshots:
    up = True
    try:
        readings = collect(RecordedHost(snapshot.transcript), probes, at=datetime.now(UTC))
    except RuntimeError:
        readings = {}
    finally:
        up = False
    known += sum(isinstance(reading, Known) for reading in readings.values())
print(json.dumps({"done": done, "known": known}))
"""


def fenced(how: str) -> dict[str, object]:
    names = [str(Path(__file__).parent.parent / "hosts" / name) for name in HOSTS]
    command = [sys.executable, "-c", FENCED, how, *names]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return dict(json.loads(ran.stdout))


@pytest.mark.skipif(not HOSTS, reason="no host is recorded yet")
def test_probes_touch_nothing_but_the_host() -> None:
    seen = fenced("probes")
    assert seen["done"] == []
    assert isinstance(seen["known"], int)
    assert seen["known"] >= len(catalogue.probes()), "the probes did run"


REPOSITORY = Path(__file__).parents[2]
MODULES = ("os", "pathlib", "io", "shutil", "tempfile", "subprocess", "ctypes", "socket", "pynvml")


@pytest.mark.parametrize("place", ["probes/memory.py", "tracks/shared.py", "judge.py", "model/facts.py"])
def test_what_looks_and_judges_imports_nothing_that_reaches_the_machine(tmp_path: Path, place: str) -> None:
    pytest.importorskip("importlinter")
    shutil.copytree(REPOSITORY / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    with (tmp_path / "src" / "warmspare" / place).open("a") as file:
        file.write("".join(f"\nimport {name}" for name in MODULES))
    lint = "import importlinter.cli as c; c.lint_imports_command()"
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "src")}
    command = [sys.executable, "-c", lint, "--no-cache"]
    ran = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert ran.returncode == 1, ran.stderr
    module = f"warmspare.{place.removesuffix('.py').replace('/', '.')}"
    assert [name for name in MODULES if f"{module} -> {name} " not in ran.stdout] == []


@pytest.mark.skipif(not HOSTS, reason="no host is recorded yet")
def test_the_fence_sees_a_probe_that_does() -> None:
    assert "open" in str(fenced("control")["done"])
