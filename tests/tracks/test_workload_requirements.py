"""What the workload matrix says, branch by branch."""

from __future__ import annotations

from typing import Final

from hand_made import Row, holds, not_shown, table

from warmspare.model.facts import Outcome
from warmspare.tracks import workload_requirements as requirements
from warmspare.tracks.workload_requirements import nccl_ranks_survive, workloads_survive
from warmspare.trials.workload_cells import Fate, MatrixCell
from warmspare.trials.workload_matrix import WorkloadMatrix

MET, UNMET, UNDECIDED, NOT = "met", "unmet", "undecided", "not_applicable"
FIRST: Final = "try-the-program-first"


def cell(kind: str, fate: Fate, variant: str = "alone", code: str | None = None, detail: str = "") -> MatrixCell:
    return MatrixCell(kind=kind, variant=variant, fate=fate, code=code, detail=detail)


def matrix(*cells: MatrixCell) -> WorkloadMatrix:
    return WorkloadMatrix(outcome=Outcome(kind="done"), cells=cells)


HUNG: Final = WorkloadMatrix(outcome=Outcome(kind="hung", step="nccl, together", detail="no end within 600 s"))
PLAIN: Final = cell("plain", "survives")
PINNED: Final = cell("pinned-memory", "survives")
MANAGED: Final = cell("managed-memory", "refused", code="801 CUDA_ERROR_NOT_SUPPORTED")
PEERS: Final = cell("peer-access", "lost-on-restore", code="1 CUDA_ERROR_INVALID_VALUE")
NO_MPS: Final = cell("mps-client", "not-here", detail="no MPS daemon is there")
RANKS: Final = cell("nccl", "lost-on-restore", "together", "801 CUDA_ERROR_NOT_SUPPORTED")
RANKS_SURVIVE: Final = cell("nccl", "survives", "together")
NO_P2P: Final = cell("nccl", "survives", "together, P2P and SHM off")
SLOW: Final = cell("nccl", "hung", "one by one", "hung")
ALONE: Final = cell("nccl", "not-here", "together", detail="it takes two GPUs, and there is one")
UNTRIED: Final = cell("nccl", "not-tried", "together", detail="the program gave no answer")

FOUND: Final = (
    Row(workloads_survive, (HUNG,), UNMET, None, "hung at nccl, together (no code)"),
    Row(workloads_survive, (matrix(PLAIN, PINNED, NO_MPS),), MET, None, "were tried survive: plain, pinned-memory"),
    Row(workloads_survive, (matrix(PLAIN, MANAGED),), UNMET, FIRST, "are refused, and go on unharmed: managed-memory"),
    Row(workloads_survive, (matrix(MANAGED),), UNMET, FIRST, "these survive: none"),
    Row(
        workloads_survive, (matrix(PLAIN, PEERS, MANAGED, NO_P2P),), UNMET, FIRST,
        "not every program survives: peer-access: lost on restore (1 CUDA_ERROR_INVALID_VALUE); these do: plain",
    ),
    Row(workloads_survive, (matrix(PLAIN, cell("vmm", "wrong")),), UNMET, FIRST, "vmm: comes back wrong; these"),
    Row(
        workloads_survive, (matrix(cell("plain", "lost-on-suspend", code="2 OOM")),), UNMET, FIRST,
        "plain: lost when its suspend was refused (2 OOM); these do: none",
    ),
    Row(workloads_survive, (matrix(NO_MPS),), UNDECIDED, None, "could be tried: no MPS daemon is there"),
    Row(workloads_survive, (matrix(),), UNDECIDED, None, "none is known"),
    Row(nccl_ranks_survive, (HUNG,), UNMET, None, "hung at nccl, together"),
    Row(nccl_ranks_survive, (matrix(PLAIN, RANKS_SURVIVE, SLOW),), MET, None, "suspended together survive as they are"),
    Row(
        nccl_ranks_survive, (matrix(RANKS, NO_P2P),), UNMET, FIRST,
        "as they are NCCL ranks do not survive (nccl: lost on restore (801 CUDA_ERROR_NOT_SUPPORTED)); they do when"
        " they are suspended together, P2P and SHM off",
    ),
    Row(
        nccl_ranks_survive, (matrix(UNTRIED, NO_P2P),), MET, None,
        "were seen to survive when they were suspended together, P2P and SHM off; as they are, it was not tried",
    ),
    Row(
        nccl_ranks_survive, (matrix(RANKS, SLOW),), UNMET, FIRST,
        "NCCL ranks survive: nccl: lost on restore (801 CUDA_ERROR_NOT_SUPPORTED), nccl, one by one: hung",
    ),
    Row(nccl_ranks_survive, (matrix(ALONE),), NOT, None, "it takes two GPUs"),
    Row(nccl_ranks_survive, (matrix(UNTRIED, ALONE),), UNDECIDED, None, "the program gave no answer"),
    Row(nccl_ranks_survive, (matrix(),), UNDECIDED, None, "none is known"),
)  # fmt: skip


@table(*FOUND)
def test_the_matrix_in_words(row: Row) -> None:
    assert holds(row)


def test_every_one_of_them_is_asked_with_each_remedy() -> None:
    assert not_shown(FOUND, requirements) == {}
