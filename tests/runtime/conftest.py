"""What the tests of the runtime share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from driver_model import Driver, Levers

from warmspare.runtime.journal import Journal
from warmspare.runtime.unit import Tools


@pytest.fixture
def driver(tmp_path: Path) -> Driver:
    """A driver that knows no process."""
    return Driver(tmp_path)


@pytest.fixture
def said() -> list[str]:
    """What was said while it worked."""
    return []


@pytest.fixture
def tools(driver: Driver, tmp_path: Path, said: list[str]) -> Iterator[Tools]:
    """What an act works with, on that driver."""
    with Journal.opened(tmp_path / "state") as journal, Levers(driver) as levers:
        yield Tools(journal, levers, driver.cards, said.append, lambda *_: None)
