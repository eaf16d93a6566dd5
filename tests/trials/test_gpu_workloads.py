"""The workload matrix on real GPUs: what must survive does, nothing hangs the trial, and nothing stays on a GPU.

Last run: tests/hosts/README.md. `pytest -s` shows the cells.
"""

from __future__ import annotations

from typing import Any, Final

import pytest
from test_gpu_peers import at_work
from test_gpu_trials import readings, used

from warmspare import catalogue
from warmspare.model.facts import HOST, Known, Outcome, Readings
from warmspare.trials.run import run
from warmspare.trials.workload_matrix import AllGpus, WorkloadMatrix
from warmspare.trials.workloads.api import found

__all__ = ["readings"]

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(700)]
TRIAL: Final = next(trial for trial in catalogue.trials() if trial.name == "workload_matrix")
SURVIVE: Final = ("plain", "pinned-memory", "vmm", "nvml", "cuda-graph", "child-context")


def test_every_kind_is_tried_and_what_is_known_to_survive_does(readings: Readings) -> None:
    before = used()
    ended = run(TRIAL, lambda _: None, AllGpus.of(readings, HOST))
    assert (ended.left, used(), at_work()) == ((), before, [])
    assert isinstance(ended.reading, Known), ended.reading
    proof: Any = ended.reading.value
    assert isinstance(proof, WorkloadMatrix)
    for cell in proof.cells:
        print(cell)  # noqa: T201 # to record
    assert proof.outcome == Outcome(kind="done")
    assert {cell.kind for cell in proof.cells} == {workload.kind for workload in found()}
    by_kind = {cell.kind: cell for cell in proof.cells}
    assert {kind: by_kind[kind].fate for kind in SURVIVE} == dict.fromkeys(SURVIVE, "survives")
    for cell in proof.cells:
        assert cell.fate != "wrong", cell
        assert cell.detail or cell.fate == "survives"
        if cell.fate == "survives":
            assert cell.freed_mib is not None
            assert cell.held_mib
            assert cell.freed_mib >= 0.9 * cell.held_mib
