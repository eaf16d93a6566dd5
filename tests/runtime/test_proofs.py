"""When a proof counts: which is asked for, of which GPU, and what is said where there is none."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from warmspare.model.facts import HOST, Absent, Cause, Known, Outcome, Proof, Reading, Standing, fact_name
from warmspare.runtime.proofs import Proofs, _lacking, passed
from warmspare.trials.gpu_move import GpuMove
from warmspare.trials.gpu_suspend import GpuSuspend

DONE = Outcome(kind="done")
GOOD, CHANGED = GpuSuspend(outcome=DONE, bytes_survived=True), GpuSuspend(outcome=DONE, bytes_survived=False)
REFUSED = GpuSuspend(outcome=Outcome(kind="refused", step="restore", code="801 X", detail="a call"))
MOVED = GpuMove(outcome=DONE, bytes_survived=True)


def known(proof: Proof) -> Reading[Any]:
    return Known(value=proof, standing=Standing.TRIED, at=datetime.now(UTC))


def of(**gpus: Proof) -> Proofs:
    return {(fact_name(GpuSuspend), gpu): known(proof) for gpu, proof in gpus.items()}


def test_only_a_whole_cycle_counts() -> None:
    assert passed(GOOD)
    assert passed(MOVED)
    assert not passed(CHANGED)
    assert not passed(REFUSED)
    assert not passed(GpuSuspend(outcome=DONE))


@pytest.mark.parametrize(
    ("proofs", "gpus", "said"),
    [
        (of(gpu0=GOOD), {"gpu0"}, ""),
        (of(gpu0=GOOD, gpu1=REFUSED), {"gpu0"}, ""),
        (of(gpu0=GOOD), {"gpu0", "gpu1"}, "nothing has shown that this machine can do it on gpu1"),
        (of(gpu0=CHANGED), {"gpu0"}, "fail at it on gpu0 (gpu_suspend: it came back changed)"),
        (of(gpu0=REFUSED), {"gpu0"}, "(gpu_suspend: refused at restore: a call: 801 X)"),
        ({}, set(), "nothing has shown that this machine can do it on gpu0"),
        (
            {(fact_name(GpuSuspend), "gpu0"): Absent(cause=Cause.SKIPPED, detail="use --risk-restore")},
            {"gpu0"},
            "gpu_suspend: use --risk-restore",
        ),
    ],
)
def test_every_gpu_in_use_must_have_passed(proofs: Proofs, gpus: set[str], said: str) -> None:
    lacking = _lacking((GpuSuspend,), frozenset(gpus), proofs)
    assert said in lacking
    assert bool(said) == bool(lacking)


def test_a_move_wants_its_own_proof_too() -> None:
    both = {**of(gpu0=GOOD, gpu1=GOOD), (fact_name(GpuMove), HOST): known(MOVED)}
    assert not _lacking((GpuSuspend, GpuMove), frozenset({"gpu0", "gpu1"}), both)
    assert "(gpu_move)" in _lacking((GpuSuspend, GpuMove), frozenset({"gpu0"}), of(gpu0=GOOD))
