"""Which kinds of program survive a suspend and a resume on this driver: each is tried, for a full cycle."""

from __future__ import annotations

import os
from typing import ClassVar, Final, Self

from warmspare.control.checkpointer import Checkpointer
from warmspare.host import engine_nccl
from warmspare.model.facts import HOST, Cause, Count, Known, Outcome, Proof, Readings
from warmspare.probes.gpu import Mig
from warmspare.probes.mps import Mps
from warmspare.trials import workload_cycle
from warmspare.trials.api import NotTried, Steps, trial
from warmspare.trials.criugpu_roundtrip import CriugpuRoundtrip
from warmspare.trials.given import Gpus, May
from warmspare.trials.gpu_move import GpuMove
from warmspare.trials.workload_cells import Fate, MatrixCell
from warmspare.trials.workload_cycle import BLIND, NO_TIME, About
from warmspare.trials.workloads.api import USUAL, Host, Variant, Workload, found

CELL_PART: Final = 0.3
"""A cell of one process may take this part of the trial's patience: 45 of 600 seconds."""
LAST_PART: Final = 4
"""And none is begun with less than so many times that left: one that hangs has to be undone and ended as well."""
NO_CALLS: Final = "this driver lacks {calls}"
SEEN_BLIND: Final = "a planted fault was not seen in {kind}, {variant}: nothing it said can be believed"


class WorkloadMatrix(Proof, frozen=True, kw_only=True):
    """What became of each kind of program, in each variant; `gpus` is how many GPUs there were for it."""

    cells: tuple[MatrixCell, ...] = ()
    gpus: Count | None = None


def fate_of(proof: WorkloadMatrix, kind: str) -> Fate | None:
    """What became of this kind, suspended as this tool does it; None if it is not among those that were tried."""
    return next((cell.fate for cell in proof.cells if cell.kind == kind and cell.variant in USUAL), None)


class AllGpus(Gpus, frozen=True, kw_only=True):
    """All GPUs of the host, and whether MPS and MIG are there; `kinds` are those to try, empty for all."""

    RESTS_ON: ClassVar[tuple[type[Proof], ...]] = (CriugpuRoundtrip, GpuMove)
    """After all that weigh: what it loses or hangs may keep others off a GPU."""

    mps: bool = False
    mig: bool = False
    kinds: tuple[str, ...] = ()

    @classmethod
    def of(cls, readings: Readings, subject: str, _may: May | None = None) -> Self:
        """All that are there.

        Raises:
            NotTried: there is none.
        """
        gpus = super().of(readings, subject).gpus
        mps = readings.get(Mps, HOST)
        split = [readings.get(Mig, gpu.subject) for gpu in gpus]
        return cls(
            gpus=gpus,
            mps=isinstance(mps, Known) and mps.value.daemon,
            mig=any(isinstance(mig, Known) and mig.value.current == "on" for mig in split),
        )


@trial(
    deadline=600,
    touches="every GPU: programs of its own, never over a tenth of what is free of a GPU or of the host, which the"
    " driver suspends and resumes",
    restores=True,
)
def workload_matrix(steps: Steps, given: AllGpus) -> WorkloadMatrix:
    """Lock, checkpoint, restore, unlock; what each program holds is checked after it, and that it goes on.

    A program that hangs or is lost ends its own cell and no other. Every check is itself checked by a planted fault.
    """
    nccl = steps.prepare("find NCCL", engine_nccl.find, os.environ)
    host = Host(gpus=given.gpus, mps=given.mps, mig=given.mig, nccl=nccl.path if nccl else None)
    cells: list[MatrixCell] = []
    with Checkpointer() as levers:
        if lacking := steps.prepare("look for the calls", levers.lacking):
            raise NotTried(Cause.SKIPPED, NO_CALLS.format(calls=", ".join(lacking)))
        steps.prepare("start CUDA", levers.initialise)  # a restore needs it, and no cell is to pay for it
        for workload, variant in _chosen(given.kinds):
            about = About(workload, variant, host, CELL_PART * steps.patience_s)
            cells.append(steps(f"{workload.kind}, {variant.name}", _cell, steps, levers, about))
            if cells[-1].code == BLIND:
                raise NotTried(Cause.INVALID, SEEN_BLIND.format(kind=workload.kind, variant=variant.name))
    return WorkloadMatrix(outcome=Outcome(kind="done"), cells=tuple(cells), gpus=len(given.gpus))


def _chosen(kinds: tuple[str, ...]) -> list[tuple[Workload, Variant]]:
    return [(one, variant) for one in found() if not kinds or one.kind in kinds for variant in one.variants]


def _cell(steps: Steps, levers: Checkpointer, about: About) -> MatrixCell:
    if steps.left_s < LAST_PART * about.limit_s:
        kind, variant = about.workload.kind, about.variant.name
        return MatrixCell(kind=kind, variant=variant, fate="not-tried", detail=NO_TIME)
    return workload_cycle.tried(steps, levers, about)
