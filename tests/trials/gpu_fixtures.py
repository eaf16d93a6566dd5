"""Fixtures of the trials that suspend, for `pytest_plugins`: a world on stand-in drivers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from gpu_world import World

from standins import Drivers


@pytest.fixture(scope="module")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> Drivers:
    """Stand-in drivers of this file's tests."""
    return Drivers(tmp_path_factory.mktemp("standins"))


@pytest.fixture
def world(drivers: Drivers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A world in which nothing may be left in the end."""
    world = World(drivers, tmp_path, monkeypatch)
    try:
        yield world
        assert world.corner.left_in_the_end() == {}
    finally:
        world.clear()
