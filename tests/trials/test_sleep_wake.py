"""Sleep Mode tried on an engine that goes by vLLM's name, well or in each known way not; and that nothing is left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sleep_scene import (
    CYCLES,
    World,
    absent,
    at_step,
    drivers,
    host,
    interrupt,
    kill_keeper,
    outcome,
    value,
    world,
)

from engines import a_model
from warmspare.model.facts import Cause, Known
from warmspare.trials.given import EngineAsk
from warmspare.trials.sleeping.bench import RESERVE_S
from warmspare.trials.sleeping.cycles import SleepCycles
from warmspare.trials.sleeping.level_2 import SleepLevel2
from warmspare.trials.sleeping.oracle import SleepOracle
from warmspare.trials.sleeping.room import SleepRoom
from warmspare.trials.sleeping.start import EngineStart

__all__ = ["drivers", "world"]


def test_a_healthy_engine(world: Callable[..., World]) -> None:
    ended = world().tried()
    kinds = {name: reading.value.outcome.kind for name, reading in ended.readings.items() if isinstance(reading, Known)}
    assert kinds == dict.fromkeys(ended.readings, "done")
    start, cycles, oracle = value(ended, EngineStart), value(ended, SleepCycles), value(ended, SleepOracle)
    assert (start.vllm, start.model, start.found, start.gpus) == ("0.26.0", "made tiny", False, ("gpu0",))
    assert 0 < (start.ready_s or 0) < (start.cold_start_s or 0)
    assert cycles.cycles == CYCLES
    before, asleep, awake = cycles.mib_before or 0, cycles.mib_asleep or 0, cycles.mib_awake or 0
    assert 0 < before < asleep < awake == cycles.mib_after
    assert (cycles.mib_freed, cycles.residue_mib, cycles.residue_growth_mib) == (awake - asleep, asleep - before, 0)
    assert (cycles.tokens_equal, cycles.logprobs_within, cycles.freed_by) == (True, 0.0, "nvml")
    assert None not in (cycles.sleep_s, cycles.wake_s, cycles.first_token_after_wake_s, cycles.first_token_warm_s)
    assert (oracle.control, oracle.sees, oracle.originals_come_back) == ("faults", True, True)
    room_ = value(ended, SleepRoom)
    assert (room_.needed_mib, room_.had) == (1, True)


@pytest.mark.parametrize(
    ("word", "step", "tokens_equal"),
    [
        ("memory-not-freed", "sleep 1", True),
        ("memory-half-freed", "sleep 1", True),
        ("garbage-after-level-1", "wake 1", False),
        ("drift-after-wake", "wake 1", True),
    ],
)
def test_a_cycle_that_is_not_what_it_says(
    world: Callable[..., World], word: str, step: str, *, tokens_equal: bool
) -> None:
    ended = world(word).tried()
    cycles = value(ended, SleepCycles)
    assert (cycles.outcome.kind, cycles.outcome.step, cycles.cycles) == ("wrong", step, 1)
    assert cycles.tokens_equal is tokens_equal
    assert (cycles.logprobs_within == 0.0) is (step == "sleep 1")


def test_what_leaks_is_told(world: Callable[..., World]) -> None:
    cycles = value(world("leak-each-cycle").tried(), SleepCycles)
    assert cycles.outcome.kind == "done"
    assert cycles.residue_growth_mib


@pytest.mark.parametrize(
    ("word", "level_2", "perturbed"), [("blind", False, False), ("level-2-keeps-weights", False, True)]
)
def test_an_oracle_that_is_blind(world: Callable[..., World], word: str, *, level_2: bool, perturbed: bool) -> None:
    oracle = value(world(word).tried(), SleepOracle)
    assert (oracle.sees_level_2_without_reload, oracle.sees_a_perturbed_layer) == (level_2, perturbed)
    assert (oracle.outcome.kind, oracle.sees, oracle.originals_come_back) == ("done", False, True)


@pytest.mark.parametrize(
    ("word", "kind", "step", "code"),
    [
        ("fail-on-sleep", "refused", "sleep 1", "HTTP 500"),
        ("fail-on-wake@2", "refused", "wake 2", "HTTP 500"),
        ("crash-on-sleep", "died", "sleep 1", "HTTP 500"),
        ("crash-on-wake", "died", "wake 1", "HTTP 500"),
        ("dead-after-sleep-200", "died", "wake 1", "HTTP 500"),
    ],
)
def test_an_engine_that_fails_in_a_cycle(
    world: Callable[..., World], word: str, kind: str, step: str, code: str
) -> None:
    ended = world(word).tried()
    told = value(ended, SleepCycles).outcome
    assert (told.kind, told.step, told.code) == (kind, step, code)
    if word == "fail-on-sleep":  # and it is awake
        assert outcome(ended, SleepOracle) == ("refused", "control: sleep at level 2")
    elif word == "fail-on-wake@2":  # the next wake goes well
        assert outcome(ended, SleepOracle) == ("done", None)
    else:
        assert absent(ended, SleepOracle).detail.startswith("not reached: the engine does not serve")


@pytest.mark.parametrize(
    ("word", "kind", "said"),
    [
        ("cannot-import", "died", "ImportError: libcudart.so.13"),
        ("die-at-start", "died", "failed to be inspected"),
        ("no-sleep-flag", "died", "unrecognized arguments: --enable-sleep-mode"),
        ("no-dev-endpoints", "refused", "POST /reset_prefix_cache"),
    ],
)
def test_an_engine_that_does_not_come_to_answer(world: Callable[..., World], word: str, kind: str, said: str) -> None:
    ended = world(word).tried()
    start = value(ended, EngineStart).outcome
    assert start.kind == kind
    assert said in start.detail
    for proof in (SleepCycles, SleepOracle, SleepLevel2):
        assert absent(ended, proof).detail == "not reached: the engine did not come to answer"


def test_a_start_cut_short_by_the_trials_own_time_is_no_failure_of_the_engine(world: Callable[..., World]) -> None:
    found = absent(world("hang-at-start").run_within(RESERVE_S + 2), EngineStart)
    assert found.cause is Cause.TIMEOUT
    assert "when the time of the trial was over" in found.detail


def test_a_lost_engine_is_started_anew_with_full(world: Callable[..., World]) -> None:
    ended = world("crash-on-wake@3").tried(host(full=True))
    assert outcome(ended, SleepCycles) == ("died", "wake 3")
    assert outcome(ended, SleepOracle) == ("done", None)
    assert outcome(ended, SleepLevel2)[0] in ("done", "died")


def test_one_that_is_too_old_is_not_started(world: Callable[..., World]) -> None:
    ended = world(vllm="0.6.3").tried(host(vllm="0.6.3.post1"))
    for proof in (EngineStart, SleepCycles):
        assert absent(ended, proof).detail == "vLLM 0.6.3.post1 is too old: Sleep Mode is tried from 0.8 on"


def test_a_build_without_the_tags_is_not_taken_for_an_old_one(world: Callable[..., World]) -> None:
    assert value(world().tried(host(vllm="0.1.dev1+g0a1b2c3")), SleepCycles).outcome.kind == "done"


def test_the_users_model_after_the_controls_on_one_that_is_made(world: Callable[..., World], tmp_path: Path) -> None:
    steps: list[str] = []
    model = a_model(tmp_path / "theirs")
    entered = world()
    ended = entered.run(host(EngineAsk(model=str(model))), lambda event: steps.append(event.name))
    entered.assert_nothing_left()
    assert steps.index("perturb a layer") < steps.index("sleep 1")
    assert value(ended, SleepOracle).sees
    assert (value(ended, EngineStart).model, value(ended, SleepCycles).cycles) == ("theirs", CYCLES)
    assert steps.count("spawn an engine") == 4  # its beginning and its end, of two


def test_a_users_model_whose_answers_say_nothing(world: Callable[..., World], tmp_path: Path) -> None:
    model = a_model(tmp_path / "theirs")
    ended = world("blind=theirs").tried(host(EngineAsk(model=str(model))))
    assert value(ended, SleepOracle).sees
    assert absent(ended, SleepCycles).detail.startswith("not reached: another prompt does not change the answers")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--port", "1"), "--port: this is set here"),
        (("--load-format", "dummy"), "--load-format dummy: whole layers of weights that vLLM makes up may be lost"),
        (("--tensor-parallel-size", "4"), "these flags ask for 4 GPUs, and 1 may be used"),
    ],
)
def test_flags_that_cannot_be(world: Callable[..., World], flags: tuple[str, ...], said: str) -> None:
    assert absent(world().tried(host(EngineAsk(flags=flags))), EngineStart).detail.startswith(said)


def test_no_gpu_has_room(world: Callable[..., World]) -> None:
    entered = world()
    entered.plan("memory gpu?: gives 900")
    found = absent(entered.run(), EngineStart)
    assert found.detail == "gpu0 has 900 MiB free, and the smallest engine takes 1024 MiB"


@pytest.mark.parametrize("when", ["start the engine", "sleep 2", "control: load the perturbed weights"])
@pytest.mark.parametrize("begun", [True, False])
def test_nothing_is_left_after_ctrl_c(world: Callable[..., World], when: str, *, begun: bool) -> None:
    entered = world("copy-ms=50")
    with pytest.raises(KeyboardInterrupt):
        entered.run(progress=interrupt(when, begun=begun))
    entered.assert_nothing_left()


@pytest.mark.parametrize("when", ["start the engine", "start the engine: loading weights", "sleep 2"])
def test_nothing_is_left_when_the_keeper_is_killed(world: Callable[..., World], when: str) -> None:
    entered = world("copy-ms=50", "orphan-core")
    entered.run(progress=at_step(when, kill_keeper))
    entered.assert_nothing_left()
