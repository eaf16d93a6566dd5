"""Whether the oracle can see: an answer compared before and after must change when the engine's weights do."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from warmspare.control.vllm import EngineFailed
from warmspare.model.facts import Outcome, Proof
from warmspare.trials.sleeping.answers import EARLY, apart
from warmspare.trials.sleeping.bench import ORDER_S, TOLERANCE, Bench
from warmspare.trials.sleeping.parts import ORACLE, Part

WELL_BEYOND: Final = 10 * TOLERANCE


class SleepOracle(Proof, frozen=True, kw_only=True):
    """The controls of the answers that cycles are judged by. `sees` is False for an oracle that is blind.

    `faults`: planted ones, in an engine of ours with a model made on the spot. Level 2 without a reload, and weights
    reloaded with one layer perturbed, must each change the answer; the originals must bring it back. `sensitivity`: in
    the user's own engine nothing is planted; one early token of the prompt is changed, and the log-probability of some
    token must move by `sensitivity`, well beyond the tolerance. `wrong` where the originals do not come back.
    """

    control: Literal["faults", "sensitivity"] | None = None
    sees_level_2_without_reload: bool | None = None
    sees_a_perturbed_layer: bool | None = None
    originals_come_back: bool | None = None
    sensitivity: Annotated[float, msgspec.Meta(ge=0)] | None = None
    sees: bool | None = None


def sleep_oracle(bench: Bench) -> SleepOracle:
    """The controls that its engine may be put through; the user's own model is tried after one that was made."""
    if bench.host.ask.url:
        return _sensitivity(bench)
    if bench.host.ask.model is None:
        return _faults(bench)
    with bench.another() as other:
        return _faults(other)


def _faults(bench: Bench) -> SleepOracle:
    steps, engine, made = bench.steps, bench.engine, bench.made_model()
    steps("control: sleep at level 2", engine.sleep, 2, within_s=ORDER_S)
    steps("control: wake without a reload", engine.wake, within_s=ORDER_S)
    level_2 = steps("control: ask it without its weights", _changed, bench)
    steps("control: load its weights again", engine.reload_weights, within_s=ORDER_S)
    back = not steps("control: ask it with its weights", _changed, bench)
    try:
        steps.prepare("perturb a layer", made.perturb)
        steps("control: load the perturbed weights", engine.reload_weights, within_s=ORDER_S)
        perturbed = steps("control: ask it with a layer perturbed", _changed, bench)
    finally:
        made.restore()
    steps("control: load the originals again", engine.reload_weights, within_s=ORDER_S)
    back = not steps("control: ask it with the originals", _changed, bench) and back
    problem = "with its own weights loaded again it answers otherwise than before"
    outcome = Outcome(kind="done") if back else Outcome(kind="wrong", step=steps.current, detail=problem)
    return SleepOracle(
        outcome=outcome,
        control="faults",
        sees_level_2_without_reload=level_2,
        sees_a_perturbed_layer=perturbed,
        originals_come_back=back,
        sees=level_2 and perturbed and back,
    )


def _changed(bench: Bench) -> bool:
    """Whether it answers otherwise than at first.

    Broken weights may yield what is no number, which a server refuses to write: as long as it lives, another answer.
    """
    try:
        return not bench.is_right(bench.answer())
    except EngineFailed as failed:
        if failed.how in ("hung", "died") or bench.has_ended():
            raise
        return True


def _sensitivity(bench: Bench) -> SleepOracle:
    by = moved(bench)
    return SleepOracle(outcome=Outcome(kind="done"), control="sensitivity", sensitivity=by, sees=by >= WELL_BEYOND)


def moved(bench: Bench) -> float:
    """By how much a log-probability moves where an early token of the prompt is changed."""
    changed = list(bench.prompt)
    changed[EARLY] = changed[EARLY + 1] if changed[EARLY] != changed[EARLY + 1] else changed[EARLY] + 1
    answer = bench.steps("control: ask it with a token changed", bench.fresh, tuple(changed), bench.tokens)
    return round(apart(answer, bench.reference), 6)


PARTS: Final = (Part(SleepOracle, sleep_oracle, ORACLE, found_too=True),)
