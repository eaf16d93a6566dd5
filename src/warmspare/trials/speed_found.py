"""The figures of a host as they come in, and what could not be measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from warmspare.control import aside, speed_tools
from warmspare.trials.speed import Measure, Name, measure


class Found:
    """What was measured so far, and what could not be; `tell` hands it on, where it is measured aside."""

    def __init__(self, tell: aside.Tell | None = None) -> None:
        """Nothing yet; without `tell` it keeps what it is given."""
        self.measures: list[Measure] = []
        self.lacking: list[str] = []
        self._tell: aside.Tell = tell or self.take

    def take(self, told: Measure | str) -> None:
        """Keep a figure, or why there is none."""
        if isinstance(told, Measure):
            self.measures.append(told)
        else:
            self.lacking.append(told)

    def add(self, name: Name, value: float | None, why_none: str = "") -> None:
        """Take a figure; None is told with its reason, if one is given."""
        if value:
            self._tell(measure(name, value))
        elif why_none:
            self.lack(f"{name}: {why_none}")

    def lack(self, why: str) -> None:
        """Say what could not be measured."""
        self._tell(why[:200])

    def ask(self, name: Name, tool: Callable[..., float | None], *arguments: Any) -> None:  # noqa: ANN401 # the tool's
        """Take a figure of a tool that may not be installed, no lack; one that cannot be had costs no other."""
        try:
            self.add(name, tool(*arguments))
        except (speed_tools.Unusable, OSError) as error:
            self.add(name, None, (error.strerror if isinstance(error, OSError) else None) or str(error))
