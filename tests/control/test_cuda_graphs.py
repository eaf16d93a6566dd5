"""Graphs on the stand-in driver: what was captured is done when it is launched, in the order of its capture."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import checkpoint_scenes as scenes
import pytest

from conftest import CI
from scenes import played
from standins import Drivers, compilers

pytestmark = pytest.mark.skipif(not compilers() and not CI, reason="needs a C compiler, or the wheel ziglang")
INVALID: Final = [1, "CUDA_ERROR_INVALID_VALUE"]
ILLEGAL_STATE: Final = [401, "CUDA_ERROR_ILLEGAL_STATE"]


def test_a_graph_does_what_was_captured_and_what_cannot_be_is_refused(tmp_path: Path) -> None:
    assert played(Drivers(tmp_path).world("honest"), scenes.graphs) == {
        "captured": 0,
        "launched twice": [14, 12],
        "a graph in a graph": 21,
        "the default stream": ["cuStreamBeginCapture_v2", 900, "CUDA_ERROR_UNNAMED"],
        "no such mode": ["cuStreamBeginCapture_v2", *INVALID],
        "an end without a beginning": ["cuStreamEndCapture", *ILLEGAL_STATE],
        "no graph": ["cuGraphInstantiateWithFlags", *INVALID],
        "no executable": ["cuGraphLaunch", *INVALID],
        "begun twice": ["cuStreamBeginCapture_v2", *ILLEGAL_STATE],
        "a wait": ["cuStreamSynchronize", 900, "CUDA_ERROR_UNNAMED"],
        "its end": ["cuStreamEndCapture", 901, "CUDA_ERROR_UNNAMED"],
        "after that": None,
        "its memory is gone": ["cuGraphLaunch", 700, "CUDA_ERROR_ILLEGAL_ADDRESS"],
    }
