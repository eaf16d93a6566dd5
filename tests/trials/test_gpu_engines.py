"""Sleep Mode's trial on a real vLLM: its quick form is GO and in time, and nothing outlives a tool killed -9.

It needs vLLM in the engine's Python. Last run: tests/hosts/README.md. `pytest -s` shows the figures.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import pytest
from test_gpu_trials import used

from leftovers import Corner, until

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(400)]
TOOL: Final = [sys.executable, "-m", "warmspare"]
QUICK_S: Final = 180.0
"""What the quick form may take on an H100."""
LOADED: Final = 2**30
"""Bytes more on a GPU, by which an engine in mid-start is known."""
GONE_S: Final = 60.0


@pytest.fixture
def corner(tmp_path: Path) -> Corner:
    return Corner(tmp_path / "scratch")


@pytest.fixture
def env(tmp_path: Path, corner: Corner) -> dict[str, str]:
    return {**os.environ, **corner.env, "WARMSPARE_STATE_DIR": str(tmp_path / "state")}


def test_the_quick_form_is_go_and_in_time(env: dict[str, str], corner: Corner) -> None:
    before, began = used(), time.monotonic()
    done = subprocess.run([*TOOL, "check", "sleep-mode", "--json", "-"], env=env, capture_output=True, check=False)
    took_s = time.monotonic() - began
    print(f"{took_s:.1f} s", done.stdout.decode())  # noqa: T201 # figures to record
    (track,) = (one for one in json.loads(done.stdout)["report"]["tracks"] if one["id"] == "sleep-mode")
    assert track["verdict"] == "GO", done.stderr.decode()
    assert (used(), corner.left_in_the_end()) == (before, {})
    assert took_s <= QUICK_S


def test_a_tool_killed_while_its_engine_starts_leaves_nothing(env: dict[str, str], corner: Corner) -> None:
    before = used()
    tool = subprocess.Popen([*TOOL, "check", "sleep-mode", "--", "--enforce-eager"], env=env)
    loaded = until(lambda: any(now - then > LOADED for now, then in zip(used(), before, strict=True)), QUICK_S)
    tool.send_signal(signal.SIGKILL)
    assert tool.wait() == -signal.SIGKILL
    killed = time.monotonic()
    assert loaded
    assert until(lambda: used() == before, GONE_S), used()
    print(f"gone {time.monotonic() - killed:.2f} s after the kill")  # noqa: T201 # a figure to record
    assert corner.left_in_the_end() == {}
