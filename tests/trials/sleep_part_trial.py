"""One part of the trial of Sleep Mode, on an engine of its own. The keeper imports it by its place."""

from __future__ import annotations

from typing import Final

import msgspec

from warmspare.model.facts import Outcome, Proof, fact_name
from warmspare.trials.api import Steps, trial
from warmspare.trials.engine_given import EngineHost
from warmspare.trials.sleeping import asleep, honesty, in_flight, level_2, no_room, parallel, repeated, stopped, turns
from warmspare.trials.sleeping.bench import Bench

PARTS = {
    fact_name(part.proof): part
    for module in (asleep, honesty, in_flight, level_2, no_room, parallel, repeated, stopped, turns)
    for part in module.PARTS
}

PATIENCE_S: Final = 3.0


class Afterwards(Proof, frozen=True, kw_only=True):
    """What the bench knows of its engine after the part: why it is lost, or that it serves."""

    lost: str | None = None
    serves: bool | None = None


class OnePart(msgspec.Struct, frozen=True, kw_only=True):
    """Which, by the name of its proof; and where. `mib_before`: what the bench is to believe of before the start."""

    proof: str
    host: EngineHost
    mib_before: int | None = None


@trial(deadline=120, touches="an engine", parts=lambda: (*(part.proof for part in PARTS.values()), Afterwards))
def one_part(steps: Steps, given: OnePart) -> None:
    """An engine, unless the part starts its own; the part; and whether the engine serves."""
    part = PARTS[given.proof]
    for module in (asleep, in_flight, no_room):  # a minute, for real engines
        vars(module)["ANSWER_S"] = PATIENCE_S
    vars(stopped)["WITHIN_S"] = PATIENCE_S
    bench = Bench(steps, given.host, given.host.gpus[:1])
    if part.own_engine:
        steps.part(part.proof, lambda: part.run(bench))
        return
    with bench.another() as engine:
        if given.mib_before is not None:
            engine.mib_before = (given.mib_before,)
        steps.part(part.proof, lambda: part.run(engine))
        known = engine.lost
        serves = not engine.awake()
        steps.part(Afterwards, lambda: Afterwards(outcome=Outcome(kind="done"), lost=known, serves=serves))
