"""A survey's trials on GPUs that misbehave: what one hang costs the others."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from conftest import CI
from standins import Drivers, compilers
from warmspare import catalogue, survey
from warmspare.model.facts import Known, Outcome, Standing
from warmspare.trials.api import StepEvent, Trial
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
        return Run(Known(value=PeerCopy(outcome=outcome), standing=Standing.TRIED, at=datetime.now(UTC)))

    monkeypatch.setattr(survey, "run", hung_at_first)
    chosen = [trial for trial in catalogue.trials() if trial.name == "peer_copy"]
    survey.take(chosen, "not asked", survey.Watcher())
    assert given == [chosen[0].deadline_s, *[survey.AFTER_A_HANG_S] * 11]
