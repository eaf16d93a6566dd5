"""The fake engine does what the real vLLM 0.26.0 was seen to do: tests/engine_scenario.py was played to both."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from engines import Fake, a_model
from standins import Drivers

SCENARIO: Final = Path(__file__).with_name("engine_scenario.py")
RECORDED: Final = Path(__file__).parent / "recordings" / "vllm-0.26.0.json"
RECORDING: Final = pytest.mark.skipif(
    not RECORDED.exists(), reason="needs a recording: tests/engine_scenario.py makes it on a GPU"
)
OF_THE_MACHINE: Final = frozenset({"took_s"})
DIFFER: Final[dict[str, tuple[str, ...]]] = {
    "models": ("value",),
    "asleep 1: v1/models": ("value",),
    "awake: tokenize": ("value",),
    "awake: tokenize without model": ("value",),
    "asleep 1: tokenize": ("value",),
}
"""What is not compared: the numbers and names of the two models."""


def comparable(rows: dict[str, Any]) -> dict[str, Any]:
    return {
        name: {key: value for key, value in row.items() if key not in {*OF_THE_MACHINE, *DIFFER.get(name, ())}}
        for name, row in rows.items()
    }


@RECORDING
def test_the_fake_is_as_the_real_one(tmp_path: Path) -> None:
    (tmp_path / "drivers").mkdir()
    fake = Fake(Drivers(tmp_path / "drivers"), tmp_path / "world", "token-ms=2")
    out, model = tmp_path / "played.json", a_model(tmp_path / "model")
    command = [sys.executable, str(SCENARIO), "--start", sys.executable, str(model), "-o", str(out)]
    flags = ["--", "--gpu-memory-utilization", "0.5"]
    subprocess.run([*command, *flags], env=fake.whole_env, check=True, timeout=100, stdout=subprocess.DEVNULL)
    real, played = json.loads(RECORDED.read_text()), json.loads(out.read_text())
    assert "stopped_at" not in real
    assert comparable(played["exchanges"]) == comparable(real["exchanges"])
    assert real["start"]["processes"] == played["start"]["processes"]


@RECORDING
def test_the_recording_tells_nothing_of_its_machine() -> None:
    assert not re.findall(r"/(?:tmp|home|root|work|usr|dev)\b|\d{4}-\d\d-\d\d|\d+\.\d+\.\d+\.\d+", RECORDED.read_text())
