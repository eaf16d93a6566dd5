"""Probes reach the machine only through the host: with a recorded one they open, run and call nothing."""

from __future__ import annotations

import json
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


@pytest.mark.skipif(not HOSTS, reason="no host is recorded yet")
def test_the_fence_sees_a_probe_that_does() -> None:
    assert "open" in str(fenced("control")["done"])
