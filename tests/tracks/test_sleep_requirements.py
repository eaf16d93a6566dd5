"""What the proofs of Sleep Mode say, branch by branch."""

from __future__ import annotations

from typing import Any, Final

from hand_made import Given, Row, holds, not_shown, table
from msgspec.structs import replace

from warmspare.model.engine_flags import parse
from warmspare.model.facts import Outcome
from warmspare.tracks import sleep_notes as notes
from warmspare.tracks import sleep_requirements as sleep
from warmspare.trials.engine_plan import EnginePlan
from warmspare.trials.sleeping.asleep import RequestAsleep
from warmspare.trials.sleeping.cycles import SleepCycles
from warmspare.trials.sleeping.honesty import SleepHonesty
from warmspare.trials.sleeping.in_flight import RequestInFlight, Way
from warmspare.trials.sleeping.level_2 import SleepLevel2
from warmspare.trials.sleeping.no_room import WakeWithoutRoom
from warmspare.trials.sleeping.oracle import SleepOracle
from warmspare.trials.sleeping.parallel import Share, SleepDataParallel, SleepTensorParallel
from warmspare.trials.sleeping.repeated import SleepRepeated
from warmspare.trials.sleeping.room import SleepRoom
from warmspare.trials.sleeping.start import EngineStart
from warmspare.trials.sleeping.stopped import EngineStop
from warmspare.trials.sleeping.turns import EnginesTakeTurns

MET, UNMET, UNDECIDED, NOT_HERE = "met", "unmet", "undecided", "not_applicable"
LOOK: Final = "see-known-issues"
DONE: Final = Outcome(kind="done")
WRONG: Final = Outcome(kind="wrong", step="compare", detail="other tokens")
DIED: Final = Outcome(kind="died", step="wake", code="signal 11", detail="the engine has ended")
DENIED: Final = Outcome(kind="refused", step="start", code="denied", detail="no rights")

START: Final = EngineStart(
    outcome=DONE, vllm="0.26.0", model="made small", cold_start_s=65.25, mib_awake=42905, first_token_warm_s=0.01
)
STOP: Final = EngineStop(outcome=DONE, mib_before=480, mib_after=480, back_s=1.25)
CYCLES: Final = SleepCycles(
    outcome=DONE, cycles=4, sleep_s=0.32, wake_s=0.35, mib_freed=40447, tokens_equal=True, residue_mib=2458,
    residue_growth_mib=0, first_token_warm_s=0.011, first_token_after_wake_s=0.012,
)  # fmt: skip
SEES: Final = SleepOracle(
    outcome=DONE, control="faults", sees_level_2_without_reload=True, sees_a_perturbed_layer=True,
    originals_come_back=True, sees=True,
)  # fmt: skip
BLIND: Final = replace(SEES, sees_level_2_without_reload=False, sees=False)
BLIND_TO_A_LAYER: Final = replace(SEES, sees_a_perturbed_layer=False, sees=False)
INSENSITIVE: Final = SleepOracle(outcome=DONE, control="sensitivity", sensitivity=0.0001, sees=False)
NOT_BACK: Final = replace(SEES, outcome=WRONG, originals_come_back=False, sees=False)


def cycles(oracle: SleepOracle | None = SEES, outcome: Outcome = DONE, **changed: Any) -> tuple[Given, ...]:  # noqa: ANN401 # the proof's own
    found = (replace(CYCLES, outcome=outcome, **changed), *((oracle,) if oracle else ()), START)
    return tuple(found)


def asleep(end: Any, outcome: Outcome = DONE, **more: Any) -> tuple[Given, ...]:  # noqa: ANN401 # likewise
    return (RequestAsleep(outcome=outcome, end=end, **more),)


def plan(*flags: str, level: Any = 1) -> EnginePlan:  # noqa: ANN401 # likewise
    return EnginePlan(given=True, flags=parse(flags), level=level)


def share(subject: str, asleep: int) -> Share:
    return Share(subject=subject, mib_before=0, mib_awake=40000, mib_asleep=asleep, mib_after=40000)


TWO: Final = (share("gpu0", 2000), share("gpu1", 2500))
DATA: Final = SleepDataParallel(outcome=DONE, shares=TWO, tokens_equal=True, is_sleeping_asleep=True)
TENSOR: Final = SleepTensorParallel(outcome=DONE, shares=TWO, tokens_equal=True, is_sleeping_asleep=True)
DP, TP, LEVEL_2 = plan("-dp", "2"), plan("-tp", "2"), plan(level=2)
BACK: Final = SleepLevel2(
    outcome=DONE, sleep_s=0.1, wake_s=1.5, tokens_equal_after_reload=True, garbage_without_reload=True
)

WEIGHS: Final = (
    Row(sleep.sleep_cycles_hold, cycles(), MET, None, "slept in 0.32 s, freed 40447 MiB, woke in 0.35 s"),
    Row(sleep.sleep_cycles_hold, cycles(tokens_equal=False, outcome=WRONG), UNMET, LOOK, "gave other tokens"),
    Row(sleep.sleep_cycles_hold, cycles(outcome=DIED), UNMET, LOOK, "died at wake (signal 11)"),
    Row(sleep.sleep_cycles_hold, cycles(outcome=DENIED), UNDECIDED, "run-as-root", "want of rights"),
    Row(sleep.sleep_cycles_hold, cycles(mib_freed=0), UNMET, LOOK, "no VRAM was seen freed"),
    Row(sleep.sleep_cycles_hold, cycles(mib_freed=-4), UNMET, LOOK, "no VRAM was seen freed"),
    Row(sleep.sleep_cycles_hold, cycles(BLIND), UNDECIDED, None, "the oracle is blind: weights that were dropped"),
    Row(sleep.sleep_cycles_hold, cycles(BLIND_TO_A_LAYER), UNDECIDED, None, "blind: a perturbed layer"),
    Row(sleep.sleep_cycles_hold, cycles(INSENSITIVE), UNDECIDED, None, "blind: another prompt"),
    Row(sleep.sleep_cycles_hold, cycles(NOT_BACK), UNDECIDED, None, "not shown to see a fault: wrong at compare"),
    Row(sleep.sleep_cycles_hold, cycles(oracle=None), UNDECIDED, None, "not shown to see a fault: not in this"),
    Row(sleep.sleep_cycles_hold, cycles(BLIND, tokens_equal=False), UNMET, LOOK, "gave other tokens"),
    Row(sleep.sleep_cycles_hold, (START, SEES), UNDECIDED, None, "not tried: not in this recording"),
    Row(
        sleep.sleep_cycles_hold, (replace(START, outcome=DIED),), UNMET, "start-it-by-hand",
        "no engine to put to sleep: died",
    ),
    Row(sleep.sleep_cycles_hold, (replace(START, outcome=DENIED),), UNDECIDED, "run-as-root", "want of rights"),
    Row(sleep.requests_survive_sleep, asleep("served", tokens_equal=True), MET, None, "answered rightly once it woke"),
    Row(sleep.requests_survive_sleep, asleep("refused", status=503), MET, None, "was refused (503)"),
    Row(sleep.requests_survive_sleep, asleep("lost", WRONG), UNMET, LOOK, "never answered"),
    Row(sleep.requests_survive_sleep, asleep("fatal", DIED), UNMET, LOOK, "ended the engine"),
    Row(sleep.requests_survive_sleep, asleep("served", WRONG, tokens_equal=False), UNMET, LOOK, "with other tokens"),
    Row(sleep.requests_survive_sleep, asleep("served", WRONG, serves_after=False), UNMET, LOOK, "no other one"),
    Row(
        sleep.requests_survive_sleep, asleep("served_asleep", WRONG, status=200, tokens_equal=True), UNMET, LOOK,
        "answered at once, with the right tokens, though the engine said that it slept",
    ),
    Row(
        sleep.requests_survive_sleep, asleep("served_asleep", WRONG, status=200, tokens_equal=False), UNMET, LOOK,
        "answered at once, with other tokens",
    ),
    Row(sleep.requests_survive_sleep, asleep("refused", WRONG, serves_after=False), UNMET, LOOK, "no other one"),
    Row(sleep.requests_survive_sleep, asleep(None, DIED), UNMET, LOOK, "died at wake"),
    Row(sleep.data_parallel_sleeps, (DP, DATA), MET, None, "on both GPUs it slept, freed 38000, 37500 MiB"),
    Row(sleep.data_parallel_sleeps, (plan(),), NOT_HERE, None, "data parallelism is not what is to be run"),
    Row(sleep.data_parallel_sleeps, (DP,), UNDECIDED, None, "not tried"),
    Row(sleep.data_parallel_sleeps, (DATA,), UNDECIDED, None, "not known: engine_plan"),
    Row(sleep.data_parallel_sleeps, (DP, replace(DATA, outcome=DIED, shares=None)), UNMET, None, "died at wake"),
    Row(sleep.data_parallel_sleeps, (DP, replace(DATA, is_sleeping_asleep=False)), UNMET, LOOK, "said that it did not"),
    Row(sleep.tensor_parallel_sleeps, (TP, TENSOR), MET, None, "on both GPUs"),
    Row(sleep.tensor_parallel_sleeps, (plan(), TENSOR), NOT_HERE, None, "tensor parallelism is not what"),
    Row(sleep.tensor_parallel_sleeps, (TP, replace(TENSOR, tokens_equal=False)), UNMET, LOOK, "other tokens"),
    Row(
        sleep.tensor_parallel_sleeps, (TP, replace(TENSOR, shares=(TWO[0], share("gpu1", 40000)))), UNMET, LOOK,
        "asleep it freed nothing on gpu1",
    ),
    Row(sleep.the_level_used_comes_back, (LEVEL_2, BACK), MET, None, "awake with its weights reloaded in 1.50 s"),
    Row(sleep.the_level_used_comes_back, (plan(), BACK), NOT_HERE, None, "level 2 is not what"),
    Row(
        sleep.the_level_used_comes_back, (LEVEL_2, replace(BACK, tokens_equal_after_reload=False)), UNMET, LOOK,
        "still gave other tokens",
    ),
    Row(sleep.level_2_comes_back, (BACK,), MET, None, "without a reload it answers garbage, with 200"),
    Row(sleep.level_2_comes_back, (replace(BACK, outcome=DIED, tokens_equal_after_reload=None),), UNMET, None, "died"),
    Row(sleep.level_2_comes_back, (replace(BACK, tokens_equal_after_reload=False),), UNMET, LOOK, "other tokens"),
)  # fmt: skip


@table(*WEIGHS)
def test_what_weighs(row: Row) -> None:
    assert holds(row)


def test_every_requirement_and_each_of_its_remedies_is_shown() -> None:
    assert not_shown(WEIGHS, sleep) == {}


# --- notes -----------------------------------------------------------------------------------------------------------

ABORTED: Final = Way(ended="aborted", finish_reason="abort", tokens_got=12, tokens_right=True, alive=True)
FINISHED: Final = replace(ABORTED, ended="finished", finish_reason="length", tokens_got=200)
TOLD: Final = RequestInFlight(outcome=DONE, abort=ABORTED, wait=FINISHED, keep=replace(FINISHED, ended="resumed"))
LOST: Final = Way(ended="lost", tokens_got=3, alive=False)
UNHARMED: Final = SleepRepeated(
    outcome=DONE, sleep_while_asleep=200, wake_while_awake=200, bad_tags=200, bad_level=400, serves_after=True
)
HONEST: Final = SleepHonesty(
    outcome=DONE, health_awake=200, health_asleep=200, is_sleeping_awake=False, is_sleeping_asleep=True,
    is_sleeping_partly=True, is_sleeping_level_2=True, metric_awake="awake", metric_asleep="weights_offloaded",
    metric_level_2="discard_all",
)  # fmt: skip
TURNS: Final = EnginesTakeTurns(outcome=DONE, swaps=6, swap_s=0.7, tokens_equal=True)
NO_ROOM: Final = WakeWithoutRoom(outcome=DONE, status=500, then="recovers", recovers=True)
ROOM: Final = SleepRoom(outcome=DONE, needed_mib=400, had=True, how="available")

BESIDE: Final = (
    Row(notes.engine_gives_its_memory_back, (STOP,), MET, None, "free again, 1.25 s from the order to stop"),
    Row(notes.engine_gives_its_memory_back, (replace(STOP, back_s=None),), MET, None, "after its end all its VRAM"),
    Row(notes.engine_gives_its_memory_back, (replace(STOP, outcome=WRONG),), UNMET, None, "wrong at compare"),
    Row(notes.engine_starts, (START,), MET, None, "vLLM 0.26.0 with made small: first token 65.25 s after its start"),
    Row(notes.engine_starts, (replace(START, found=True, cold_start_s=None),), MET, None, "was there already"),
    Row(notes.engine_starts, (replace(START, outcome=DIED),), UNMET, None, "died at wake"),
    Row(notes.graphs_survive_sleep, (CYCLES, START), MET, None, "waking in 0.01 s, of a warm engine in 0.01 s, of a"),
    Row(notes.graphs_survive_sleep, (CYCLES, replace(START, cold_start_s=None)), MET, None, "start in an unknown"),
    Row(notes.graphs_survive_sleep, (replace(CYCLES, outcome=DIED), START), UNMET, None, "died at wake"),
    Row(notes.sleep_leaves_no_growth, (CYCLES,), MET, None, "asleep it keeps 2458 MiB, and 0 MiB more after 4 cycles"),
    Row(notes.sleep_leaves_no_growth, (replace(CYCLES, residue_growth_mib=64),), MET, None, "and 64 MiB more"),
    Row(notes.sleep_leaves_no_growth, (replace(CYCLES, residue_growth_mib=65),), UNMET, None, "65 MiB more after"),
    Row(notes.sleep_leaves_no_growth, (replace(CYCLES, outcome=DIED),), UNMET, None, "died at wake"),
    Row(notes.host_memory_for_sleep_is_had, (ROOM,), MET, None, "400 MiB of host memory, 1.5 times the weights"),
    Row(
        notes.host_memory_for_sleep_is_had, (replace(ROOM, had=False, how="limit"),), UNMET, "raise-memory-limit",
        "not to be had (the cgroup's limit)",
    ),
    Row(notes.host_memory_for_sleep_is_had, (SleepRoom(outcome=DIED),), UNMET, None, "died at wake"),
    Row(
        notes.requests_in_flight_are_told, (TOLD,), MET, None,
        "abort aborted after 12 tokens, wait finished after 200 tokens, keep resumed after 200 tokens",
    ),
    Row(
        notes.requests_in_flight_are_told, (replace(TOLD, outcome=WRONG, abort=LOST),), UNMET, LOOK,
        "abort lost after 3 tokens, and the engine did not live on",
    ),
    Row(
        notes.requests_in_flight_are_told, (replace(TOLD, keep=replace(FINISHED, tokens_right=False)),), UNMET, LOOK,
        "keep finished after 200 tokens, with other tokens",
    ),
    Row(
        notes.requests_in_flight_are_told, (replace(TOLD, keep=Way(status=400, alive=True)),), MET, None,
        "keep refused (400)",
    ),
    Row(notes.requests_in_flight_are_told, (RequestInFlight(outcome=DIED),), UNMET, None, "died at wake"),
    Row(notes.repeated_sleep_is_harmless, (UNHARMED,), MET, None, "sleep while asleep: 200, wake while awake: 200"),
    Row(notes.repeated_sleep_is_harmless, (replace(UNHARMED, bad_tags="hung"),), UNMET, LOOK, "bad tags: hung"),
    Row(
        notes.repeated_sleep_is_harmless, (replace(UNHARMED, bad_level_lost_weights=True),), UNMET, LOOK,
        "the weights were lost",
    ),
    Row(notes.repeated_sleep_is_harmless, (replace(UNHARMED, serves_after=False),), UNMET, LOOK, "not answer rightly"),
    Row(notes.repeated_sleep_is_harmless, (replace(UNHARMED, outcome=DIED),), UNMET, None, "died at wake"),
    Row(notes.state_is_told_honestly, (HONEST,), MET, None, "/health is 200 asleep too"),
    Row(notes.state_is_told_honestly, (replace(HONEST, health_asleep=503),), MET, None, "told the truth"),
    Row(
        notes.state_is_told_honestly, (replace(HONEST, metric_partly="awake"),), MET, None,
        "its metric says awake when only a part is back",
    ),
    Row(
        notes.state_is_told_honestly, (replace(HONEST, is_sleeping_partly=False),), UNMET, LOOK,
        "partly awake it said that it did not sleep",
    ),
    Row(
        notes.state_is_told_honestly, (replace(HONEST, metric_asleep="awake"),), UNMET, LOOK,
        "asleep, the metric is awake",
    ),
    Row(notes.state_is_told_honestly, (SleepHonesty(outcome=DIED),), UNMET, None, "died at wake"),
    Row(notes.engines_take_turns, (TURNS,), MET, None, "took turns on one GPU 6 times, 0.70 s a swap"),
    Row(notes.engines_take_turns, (replace(TURNS, tokens_equal=False),), UNMET, LOOK, "one gave other tokens"),
    Row(notes.engines_take_turns, (EnginesTakeTurns(outcome=DIED),), UNMET, None, "died at wake"),
    Row(notes.wake_without_room_recovers, (NO_ROOM,), MET, None, "was refused (500), and with room again it woke"),
    Row(notes.wake_without_room_recovers, (replace(NO_ROOM, then="wedged"),), UNMET, LOOK, "it wakes no more"),
    Row(notes.wake_without_room_recovers, (WakeWithoutRoom(outcome=DIED),), UNMET, None, "died at wake"),
)  # fmt: skip


@table(*BESIDE)
def test_what_is_noted(row: Row) -> None:
    assert holds(row)


def test_every_note_and_each_of_its_remedies_is_shown() -> None:
    assert not_shown(BESIDE, notes) == {}
