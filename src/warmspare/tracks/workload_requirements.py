"""Which kinds of program were seen to survive a suspend here, and with which settings NCCL does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from warmspare.model.findings import Finding, met, not_applicable, undecided, unmet
from warmspare.tracks.shared import broken
from warmspare.trials.workload_cells import Fate, MatrixCell
from warmspare.trials.workload_matrix import WorkloadMatrix
from warmspare.trials.workloads.api import USUAL

BAD: Final[tuple[Fate, ...]] = ("wrong", "hung", "lost-on-restore", "lost-on-suspend")
NOT_SEEN: Final[tuple[Fate, ...]] = ("not-here", "not-tried")
NCCL: Final = "nccl"
ALL_SURVIVE = "all kinds of program that were tried survive: {kinds}"
SOME_ARE_LOST = "not every program survives: {fates}; these do: {kinds}"
SOME_ARE_REFUSED = "some programs are refused, and go on unharmed: {refused}; these survive: {kinds}"
NONE_TRIED = "no kind of program could be tried: {why}"


def workloads_survive(matrix: WorkloadMatrix) -> Finding:
    """Whether a program survives a suspend depends on what it uses; a checkpoint that succeeds says nothing yet.

    Each kind was taken through a full cycle, and its content checked. One that is refused goes on, and was seen to. One
    that is lost on restore was checkpointed without an error, and could not be brought back.

    Remedy: try-the-program-first
    Source: NVIDIA/cuda-checkpoint README (limits); measured on H100 and 2 x H200, driver 580.159.04.
    """
    if failed := broken(matrix):
        return failed
    usual = [cell for cell in matrix.cells if cell.variant in USUAL]
    survive = _kinds(cell for cell in usual if cell.fate == "survives")
    fates = tuple(_told(cell) for cell in usual if cell.fate in BAD)
    refused = _kinds(cell for cell in usual if cell.fate == "refused")
    if fates:
        return unmet(SOME_ARE_LOST, fates=fates, kinds=survive or "none", remedy="try-the-program-first")
    if refused:
        return unmet(SOME_ARE_REFUSED, refused=refused, kinds=survive or "none", remedy="try-the-program-first")
    if not survive:
        return undecided(NONE_TRIED, why=usual[0].detail if usual else "none is known")
    return met(ALL_SURVIVE, kinds=survive)


AS_IT_IS = "NCCL ranks that are suspended together survive as they are"
ALSO_WITH = "NCCL ranks were seen to survive when they were suspended {variants}; as they are, it was not tried"
NOT_AS_THEY_ARE = "as they are NCCL ranks do not survive ({fates}); they do when they are suspended {variants}"
WITH_NOTHING = "no setting was found with which NCCL ranks survive: {fates}"
NO_RANKS = "there were no ranks of NCCL to try: {why}"


def nccl_ranks_survive(matrix: WorkloadMatrix) -> Finding:
    """Engines with tensor parallelism sum over GPUs by NCCL, whose memory sharing a driver may not bring back.

    Remedy: try-the-program-first
    Source: NVIDIA/nccl#2350 (NCCL_CUMEM_HOST_ENABLE=0); NVIDIA/nvcf#1183 (P2P, NVLS and SHM off).
    """
    if failed := broken(matrix):
        return failed
    cells = [cell for cell in matrix.cells if cell.kind == NCCL]
    seen = [cell for cell in cells if cell.fate not in NOT_SEEN]
    if not seen:
        why = cells[0].detail if cells else "none is known"
        return not_applicable(NO_RANKS, why=why) if _is_not_here(cells) else undecided(NO_RANKS, why=why)
    survive = [cell for cell in seen if cell.fate == "survives"]
    if any(cell.variant in USUAL for cell in survive):
        return met(AS_IT_IS)
    if survive:
        variants = tuple(cell.variant for cell in survive)
        usual = tuple(_told(cell) for cell in seen if cell.variant in USUAL)
        if usual:
            return unmet(NOT_AS_THEY_ARE, fates=usual, variants=variants, remedy="try-the-program-first")
        return met(ALSO_WITH, variants=variants)
    return unmet(WITH_NOTHING, fates=tuple(_told(cell) for cell in seen), remedy="try-the-program-first")


def _is_not_here(cells: list[MatrixCell]) -> bool:
    return bool(cells) and all(cell.fate == "not-here" for cell in cells)


def _kinds(cells: Iterable[MatrixCell]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(cell.kind for cell in cells))


WORDS: Final[dict[Fate, str]] = {
    "wrong": "comes back wrong",
    "hung": "hung",
    "lost-on-restore": "lost on restore",
    "lost-on-suspend": "lost when its suspend was refused",
    "refused": "refused",
}


def _told(cell: MatrixCell) -> str:
    """Such as `peer-access: lost on restore (1 CUDA_ERROR_INVALID_VALUE)`."""
    where = "" if cell.variant in USUAL else f", {cell.variant}"
    code = f" ({cell.code})" if cell.code and cell.code != "hung" else ""
    return f"{cell.kind}{where}: {WORDS[cell.fate]}{code}"
