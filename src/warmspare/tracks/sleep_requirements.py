"""What the trial of Sleep Mode must show: an engine that sleeps, wakes with the same answers, and survives requests."""

from __future__ import annotations

from typing import Final

import msgspec

from warmspare.model.facts import Absent, Cause, Known, Reading
from warmspare.model.findings import Finding, met, undecided, unmet
from warmspare.model.requirements import arises_if
from warmspare.tracks.plan_conditions import plan_has_data_parallelism, plan_has_level_2, plan_has_tensor_parallelism
from warmspare.tracks.shared import broken
from warmspare.trials.sleeping.asleep import RequestAsleep
from warmspare.trials.sleeping.cycles import SleepCycles
from warmspare.trials.sleeping.level_2 import SleepLevel2
from warmspare.trials.sleeping.oracle import SleepOracle
from warmspare.trials.sleeping.parallel import SleepDataParallel, SleepTensorParallel
from warmspare.trials.sleeping.start import EngineStart

LOOK: Final = "see-known-issues"
HELD = "slept in {sleep_s:.2f} s, freed {mib_freed} MiB, woke in {wake_s:.2f} s with the same tokens ({cycles} cycles)"
OTHER_TOKENS = "the engine that woke gave other tokens"
NOTHING_FREED = "the engine slept, and no VRAM was seen freed"
NO_START = "no engine to put to sleep: {text}"
NOT_TRIED = "not tried: {detail}"
BLIND = "the oracle is blind: {why} did not change the answer, so that equal answers say nothing"
NO_CONTROL = "what the answers are compared by was not shown to see a fault: {why}"
OTHER_PROMPT: Final = "another prompt"
LEVEL_2: Final = "weights that were dropped"
A_LAYER: Final = "a perturbed layer"


def sleep_cycles_hold(
    cycles: Reading[SleepCycles], oracle: Reading[SleepOracle], start: Reading[EngineStart]
) -> Finding:
    """`/health` says 200 asleep and wedged alike: only freed VRAM and the same tokens after waking count.

    Equal answers count only where planted faults were seen to change them.

    Remedy: see-known-issues
    Remedy: start-it-by-hand
    Source: vllm-project/vllm#15483, #24879, #44395; measured on H100 with vLLM 0.26.0.
    """
    if isinstance(cycles, Absent):
        return _no_start(start) or undecided(NOT_TRIED, detail=cycles.detail or cycles.cause.value, cause=cycles.cause)
    proof = cycles.value
    if proof.tokens_equal is False:
        return unmet(OTHER_TOKENS, remedy=LOOK)
    if failed := broken(proof):
        return _to_look_up(failed)
    if (proof.mib_freed or 0) <= 0:
        return unmet(NOTHING_FREED, remedy=LOOK)
    if blind := _blind(oracle):
        return blind
    values = {"sleep_s": proof.sleep_s or 0.0, "wake_s": proof.wake_s or 0.0, "cycles": proof.cycles}
    return met(HELD, mib_freed=proof.mib_freed, **values)


def _to_look_up(failed: Finding) -> Finding:
    """What failed, with the remedy of all failures here where it has none of its own."""
    return failed if failed.remedy or failed.cause else msgspec.structs.replace(failed, remedy=LOOK)


def _no_start(start: Reading[EngineStart]) -> Finding | None:
    """An engine that does not start with these flags cannot be put to sleep, and nobody need try on."""
    failed = broken(start.value) if isinstance(start, Known) else None
    if failed is None:
        return None
    if failed.cause:
        return undecided(NO_START, text=failed.text, cause=failed.cause, remedy=failed.remedy)
    return unmet(NO_START, text=failed.text, remedy="start-it-by-hand")


def _blind(oracle: Reading[SleepOracle]) -> Finding | None:
    """Why equal answers say nothing, or None where the oracle was seen to see."""
    if isinstance(oracle, Absent):
        return undecided(NO_CONTROL, why=oracle.detail or oracle.cause.value, cause=oracle.cause)
    proof = oracle.value
    if proof.sees:
        return None
    if failed := broken(proof):
        return undecided(NO_CONTROL, why=failed.text, cause=Cause.CRASHED)
    if proof.control == "sensitivity":
        return undecided(BLIND, why=OTHER_PROMPT, cause=Cause.INVALID)
    why = LEVEL_2 if proof.sees_level_2_without_reload is False else A_LAYER
    return undecided(BLIND, why=why, cause=Cause.INVALID)


SERVED = "a request that came while it slept was answered rightly once it woke"
SERVED_ASLEEP = "a request was answered at once, with {tokens} tokens, though the engine said that it slept"
REFUSED = "a request that came while it slept was refused ({status}), and the engine lived"
LOST = "a request that came while it slept was never answered, also not after it woke"
FATAL = "a request that came while it slept ended the engine"
SERVED_WRONGLY = "a request that came while it slept was answered with other tokens once it woke"
SERVES_NO_MORE = "after a request that came while it slept the engine answers no other one rightly"


def requests_survive_sleep(proof: RequestAsleep) -> Finding:
    """A server gets requests at any time: one that finds it asleep must be served or refused, and harm nothing.

    Remedy: see-known-issues
    Source: vllm-project/vllm#15483 (fixed in 0.17.0).
    """
    if proof.end in ("fatal", "lost"):
        return unmet(FATAL if proof.end == "fatal" else LOST, remedy=LOOK)
    if proof.end == "served_asleep":
        return unmet(SERVED_ASLEEP, tokens="the right" if proof.tokens_equal else "other", remedy=LOOK)
    if proof.serves_after is False:
        return unmet(SERVES_NO_MORE, remedy=LOOK)
    if proof.end == "served" and proof.tokens_equal is False:
        return unmet(SERVED_WRONGLY, remedy=LOOK)
    if failed := broken(proof):
        return _to_look_up(failed)
    return met(SERVED) if proof.end == "served" else met(REFUSED, status=proof.status)


BOTH_HELD = "on both GPUs it slept, freed {freed} MiB, and woke with the same tokens"
ONE_KEPT = "asleep it freed nothing on {subjects}"
SAYS_AWAKE = "it slept, and said that it did not"


@arises_if(plan_has_data_parallelism)
def data_parallel_sleeps(proof: SleepDataParallel) -> Finding:
    """With data parallelism each rank must sleep and wake; an idle one that computes on took the engine down.

    Remedy: see-known-issues
    Source: vllm-project/vllm#24879, #44395 (fixed in 0.17.0 and 0.24.0).
    """
    return _of_two(proof)


@arises_if(plan_has_tensor_parallelism)
def tensor_parallel_sleeps(proof: SleepTensorParallel) -> Finding:
    """With tensor parallelism all ranks must sleep and wake together.

    Remedy: see-known-issues
    Source: vllm-project/vllm#45520, #32714.
    """
    return _of_two(proof)


def _of_two(proof: SleepDataParallel | SleepTensorParallel) -> Finding:
    shares = proof.shares or ()
    if proof.tokens_equal is False:
        return unmet(OTHER_TOKENS, remedy=LOOK)
    if kept := tuple(share.subject for share in shares if not share.mib_freed):
        return unmet(ONE_KEPT, subjects=kept, remedy=LOOK)
    if failed := broken(proof):
        return failed
    if proof.is_sleeping_asleep is False:
        return unmet(SAYS_AWAKE, remedy=LOOK)
    return met(BOTH_HELD, freed=tuple(str(share.mib_freed) for share in shares))


CAME_BACK = (
    "level 2: asleep in {sleep_s:.2f} s, awake with its weights reloaded in {wake_s:.2f} s, with the same tokens"
)
NOT_BACK = "level 2: with its weights reloaded the engine still gave other tokens"
GARBAGE = "; without a reload it answers garbage, with 200"


def level_2_comes_back(proof: SleepLevel2) -> Finding:
    """Level 2 drops the weights too, and needs no host memory; woken without a reload it answers garbage, with 200.

    Remedy: see-known-issues
    Source: vLLM documentation, Sleep Mode; vllm-project/vllm#29341, #54235.
    """
    if proof.tokens_equal_after_reload is False:
        return unmet(NOT_BACK, remedy=LOOK)
    if failed := broken(proof):
        return failed
    sentence = CAME_BACK + GARBAGE if proof.garbage_without_reload else CAME_BACK
    return met(sentence, sleep_s=proof.sleep_s or 0.0, wake_s=proof.wake_s or 0.0)


@arises_if(plan_has_level_2)
def the_level_used_comes_back(proof: SleepLevel2) -> Finding:
    """Level 2 drops the weights; they must be reloaded after each wake, and then the answers must be the same.

    Remedy: see-known-issues
    Source: vLLM documentation, Sleep Mode; vllm-project/vllm#29341.
    """
    return level_2_comes_back(proof)
