"""What the track sleep-mode says: paper by known issues, proofs that refute it, a plan that asks for more."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
from msgspec.structs import replace

from warmspare import catalogue
from warmspare.judge import judge
from warmspare.model.engine_flags import parse
from warmspare.model.facts import HOST, Fact, Known, Outcome, Readings, Standing, fact_name, known
from warmspare.model.snapshot import Reader
from warmspare.model.verdicts import Check, State, TrackJudgement, Verdict
from warmspare.probes.software import PythonPackages
from warmspare.trials.engine_plan import EnginePlan
from warmspare.trials.sleeping.asleep import RequestAsleep
from warmspare.trials.sleeping.cycles import SleepCycles
from warmspare.trials.sleeping.oracle import SleepOracle
from warmspare.trials.sleeping.parallel import SleepDataParallel
from warmspare.trials.sleeping.start import EngineStart

HOSTS: Final = Path(__file__).parent.parent / "hosts"
TRACKS: Final = catalogue.tracks()
DONE: Final = Outcome(kind="done")
WSL2: Final = "synthetic-wsl2-mirrored-two-gpus"
NATIVE: Final = "synthetic-b200-8"
START: Final = EngineStart(outcome=DONE, vllm="0.26.0", model="made small")
CYCLES: Final = SleepCycles(outcome=DONE, cycles=4, sleep_s=0.3, wake_s=0.3, mib_freed=40000, tokens_equal=True)
SEES: Final = SleepOracle(outcome=DONE, control="faults", sees=True)
SERVED: Final = RequestAsleep(outcome=DONE, end="served", tokens_equal=True)
ALL: Final[tuple[Fact, ...]] = (START, CYCLES, SEES, SERVED)


def host(name: str, *facts: Fact, vllm: str = "0.26.0", plan: EnginePlan | None = None) -> Readings:
    """A host with this version of vLLM, these proofs, and what is to be run; the flags are none unless said."""
    readings = Reader(catalogue.facts()).read((HOSTS / f"{name}.json").read_bytes()).readings
    packages = replace(known(readings, PythonPackages), vllm=vllm)
    return readings.plus(
        {(fact_name(type(fact)), HOST): _tried(fact) for fact in (packages, plan or EnginePlan(given=False), *facts)}
    )


def _tried(fact: Fact) -> Known[Any]:
    return Known(value=fact, standing=Standing.TRIED, at=datetime(2026, 11, 22, tzinfo=UTC))


def track(readings: Readings) -> TrackJudgement:
    return judge(readings, {"sleep-mode": TRACKS["sleep-mode"]}).tracks[0]


def check(judged: TrackJudgement, name: str) -> Check:
    return next(c for layer in judged.layers for c in layer.checks if c.id == name)


def test_an_engine_that_passes_is_go() -> None:
    judged = track(host(NATIVE, *ALL))
    assert (judged.state, judged.unproven) == (State(Verdict.GO), ())


@pytest.mark.parametrize(
    ("vllm", "name", "state"),
    [
        ("0.26.0", NATIVE, State(Verdict.UNKNOWN)),
        ("0.33.0", NATIVE, State(Verdict.UNKNOWN)),
        ("0.16.0", NATIVE, State(Verdict.NO_GO, expected=True)),
        ("0.29.0", WSL2, State(Verdict.NO_GO, expected=True)),
        ("0.30.0", WSL2, State(Verdict.UNKNOWN)),
    ],
)
def test_before_the_trial_known_issues_speak(vllm: str, name: str, state: State) -> None:
    assert track(host(name, vllm=vllm)).state == state


@pytest.mark.parametrize("name", [NATIVE, WSL2])
def test_what_was_tried_outweighs_what_is_known(name: str) -> None:
    judged = track(host(name, *ALL, vllm="0.29.0" if name == WSL2 else "0.16.0"))
    assert judged.state == State(Verdict.GO)
    paper = "sleep_cycles_hold" if name == WSL2 else "requests_survive_sleep"
    assert check(judged, f"{paper}_by_known_issues").role == "refuted"


@pytest.mark.parametrize(
    ("changed", "state"),
    [
        (replace(CYCLES, tokens_equal=False), State(Verdict.NO_GO)),
        (replace(CYCLES, mib_freed=0), State(Verdict.NO_GO)),
        (replace(SEES, sees=False, sees_a_perturbed_layer=False), State(Verdict.UNKNOWN)),
        (replace(SERVED, end="fatal", outcome=Outcome(kind="died", step="complete")), State(Verdict.NO_GO)),
        (replace(SERVED, end="refused", status=503), State(Verdict.GO)),
    ],
)
def test_each_need_decides(changed: Fact, state: State) -> None:
    proofs = {type(fact): fact for fact in (*ALL, changed)}
    assert track(host(NATIVE, *proofs.values())).state == state


def test_an_engine_that_does_not_start_is_no_go() -> None:
    died = replace(START, outcome=Outcome(kind="died", step="start", detail="RuntimeError: UVA is not available"))
    judged = track(host(NATIVE, died))
    assert judged.state == State(Verdict.NO_GO)
    assert "UVA is not available" in check(judged, "sleep_cycles_hold").finding.text


def test_data_parallelism_weighs_only_where_it_is_to_be_run() -> None:
    wanted = EnginePlan(given=True, flags=parse(("-dp", "2")))
    assert track(host(NATIVE, *ALL, vllm="0.33.0", plan=wanted)).state == State(Verdict.DEGRADED)
    proof = SleepDataParallel(outcome=DONE, tokens_equal=True, is_sleeping_asleep=True)
    assert track(host(NATIVE, *ALL, proof, plan=wanted)).state == State(Verdict.GO)
    broke = replace(proof, tokens_equal=False)
    assert track(host(NATIVE, *ALL, broke, plan=wanted)).state == State(Verdict.DEGRADED)
    assert track(host(NATIVE, *ALL, broke)).state == State(Verdict.GO)


def test_a_known_issue_of_the_plan_degrades_what_is_not_yet_tried() -> None:
    wanted = EnginePlan(given=True, flags=parse(("-dp", "2")))
    judged = track(host(NATIVE, *ALL, vllm="0.23.0", plan=wanted))
    assert judged.state == State(Verdict.DEGRADED, expected=True)
    assert check(judged, "data_parallel_sleeps_by_known_issues").role == "speaks"
