"""A survey's trials on GPUs that misbehave: what one hang costs the others."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from conftest import CI
from standins import Drivers, compilers
from warmspare import catalogue, survey
from warmspare.model.facts import HOST, Absent, Cause, Known, Outcome, Proof, Standing, fact_name
from warmspare.probes.api import collect
from warmspare.probes.driver import Driver
from warmspare.trials.api import StepEvent, Trial
from warmspare.trials.given import May
from warmspare.trials.gpu_suspend import GpuSuspend
from warmspare.trials.peer_copy import PeerCopy
from warmspare.trials.run import Run


@pytest.mark.skipif(not compilers() and not CI, reason="needs a C compiler, or the wheel ziglang")
def test_after_a_hang_the_other_pairs_are_given_less_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in Drivers(tmp_path).world("healthy").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WARMSPARE_STATE_DIR", str(tmp_path / "state"))
    given: list[float] = []

    def hung_at_first(trial: Trial, _progress: Callable[[StepEvent], None], _given: object) -> Run:
        given.append(trial.deadline_s)
        outcome = Outcome(kind="done" if given[1:] else "hung", step="copy")
        proof: Proof = PeerCopy(outcome=outcome)
        known = Known(value=proof, standing=Standing.TRIED, at=datetime.now(UTC))
        return Run({fact_name(PeerCopy): known})

    monkeypatch.setattr(survey, "run", hung_at_first)
    chosen = [trial for trial in catalogue.trials() if trial.name == "peer_copy"]
    survey.take(chosen, "not asked", survey.Watcher())
    assert given == [chosen[0].deadline_s, *[survey.AFTER_A_HANG_S] * 11]


@pytest.mark.skipif(not compilers() and not CI, reason="needs a C compiler, or the wheel ziglang")
@pytest.mark.parametrize(
    ("module", "may", "is_tried"),
    [
        ("proprietary", None, True),
        ("open", None, False),
        ("open", May(busy_ok=True), False),
        ("open", May(risk_restore=True), True),
    ],
)
def test_on_an_open_module_that_is_not_known_nothing_is_restored_unless_it_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, may: May | None, *, is_tried: bool
) -> None:
    for name, value in Drivers(tmp_path).world("healthy").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WARMSPARE_STATE_DIR", str(tmp_path / "state"))
    tried: list[str] = []

    def collected(*arguments: Any, **more: Any) -> dict[Any, Any]:  # noqa: ANN401 # as the survey calls it
        driver = Driver(kernel_version="999.88.77", module=module)  # type: ignore[arg-type]
        known = Known(value=driver, standing=Standing.OBSERVED, at=datetime.now(UTC))
        return {**collect(*arguments, **more), (fact_name(Driver), HOST): known}

    def run(trial: Trial, *_: object) -> Run:
        tried.append(trial.name)
        return Run({fact_name(trial.proofs[0]): Absent(cause=Cause.SKIPPED)})

    monkeypatch.setattr(survey, "collect", collected)
    monkeypatch.setattr(survey, "run", run)
    chosen = [trial for trial in catalogue.trials() if trial.name in ("gpu_suspend", "cuda_compute")]
    seen = survey.take(chosen, "not asked", survey.Watcher(), may).snapshot.readings.get(GpuSuspend, "gpu0")
    assert set(tried) == {"cuda_compute", *(["gpu_suspend"] if is_tried else [])}
    assert isinstance(seen, Absent)
    assert ("--risk-restore" in seen.detail) != is_tried
