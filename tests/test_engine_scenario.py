"""The fake engine does what the real vLLM 0.26.0 was seen to do: tests/engine_scenario.py was played to both."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from engines import Fake, a_model
from standins import Drivers

SCENARIO: Final = Path(__file__).with_name("engine_scenario.py")
RECORDED: Final = Path(__file__).parent / "recordings" / "vllm-0.26.0.json"
LEAST: Final = 80
"""The rows that a recording has at least: one that ends early (`stopped_at`) is compared as far as it goes."""
OF_THE_MACHINE: Final = frozenset({"took_s"})
DIFFER: Final[dict[str, tuple[str, ...]]] = {
    "models": ("value",),
    "asleep 1: v1/models": ("value",),
    "awake: tokenize": ("value",),
    "awake: tokenize without model": ("value",),
    "asleep 1: tokenize": ("value",),
    "awake: stream": ("last_piece",),
}
"""What is not compared: the numbers and names of the two models, and what the recording does not tell."""


def comparable(rows: dict[str, Any]) -> dict[str, Any]:
    return {
        name: {key: value for key, value in row.items() if key not in {*OF_THE_MACHINE, *DIFFER.get(name, ())}}
        for name, row in rows.items()
    }


def test_the_fake_is_as_the_real_one(tmp_path: Path) -> None:
    (tmp_path / "drivers").mkdir()
    fake = Fake(Drivers(tmp_path / "drivers"), tmp_path / "world", "token-ms=2")
    out, model = tmp_path / "played.json", a_model(tmp_path / "model")
    command = [sys.executable, str(SCENARIO), "--start", sys.executable, str(model), "-o", str(out)]
    flags = ["--", "--gpu-memory-utilization", "0.5", "--max-model-len", "2048"]
    subprocess.run([*command, *flags], env=fake.whole_env, check=True, timeout=100, stdout=subprocess.DEVNULL)
    real, played = json.loads(RECORDED.read_text()), json.loads(out.read_text())
    assert "stopped_at" not in played
    both = [name for name in real["exchanges"] if name in played["exchanges"]]
    assert both == list(real["exchanges"])
    assert len(both) >= LEAST
    if "stopped_at" not in real:
        assert both == list(played["exchanges"])
    rows = comparable(played["exchanges"])
    assert {name: rows[name] for name in both} == comparable(real["exchanges"])
    assert real["start"]["processes"] == played["start"]["processes"]


def test_the_recording_tells_nothing_of_its_machine() -> None:
    assert not re.findall(r"/(?:tmp|home|root|work|usr|dev)\b|\d{4}-\d\d-\d\d|\d+\.\d+\.\d+\.\d+", RECORDED.read_text())
