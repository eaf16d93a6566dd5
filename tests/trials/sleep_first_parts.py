"""The first parts of the trial of Sleep Mode, and one that comes after them. The keeper imports it by its place."""

from __future__ import annotations

from warmspare.trials.api import Steps, trial
from warmspare.trials.engine_given import EngineHost
from warmspare.trials.sleep_wake import try_parts
from warmspare.trials.sleeping import level_2, parts

CHOSEN = (*(part for part in parts.found() if part.stage <= parts.ORACLE), *level_2.PARTS)


@trial(deadline=120, touches="an engine", parts=lambda: tuple(part.proof for part in CHOSEN))
def first_parts(steps: Steps, host: EngineHost) -> None:
    """As the trial does it."""
    try_parts(steps, host, CHOSEN)
