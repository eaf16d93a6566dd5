"""A graph that is captured, launched and given up, on the stand-in driver."""

from __future__ import annotations

import graph_scenes as scenes
import pytest

from scenes import played
from standins import Drivers


@pytest.fixture(scope="module")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> Drivers:
    return Drivers(tmp_path_factory.mktemp("standins"))


def test_what_is_captured_is_done_as_often_as_it_is_launched(drivers: Drivers) -> None:
    found = played(drivers.world("counts"), scenes.counts)
    assert found == [[5, 6, 7, 8], [9, 10, 11, 12], [11, 12, 13, 14], True]


@pytest.mark.parametrize("call", ["cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags"])
def test_a_refusal_is_told_by_its_call(drivers: Drivers, call: str) -> None:
    lacking = played(drivers.world(call, lacks=(call,)), scenes.refused)
    assert lacking == [[call, None, "MISSING_SYMBOL"], [2]]


def test_a_capture_that_is_spoilt_is_refused_and_the_next_one_works(drivers: Drivers) -> None:
    waited, raised, words = played(drivers.world("spoilt"), scenes.spoilt)
    assert waited[1] not in (None, 0)
    assert (raised, words) == ("no such luck", [3])
