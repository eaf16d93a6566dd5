"""An all-reduce over all GPUs by the NCCL that an engine would load: its sums checked, timed, its transport named.

NCCL runs as the user's environment has it, then with peer-to-peer switched off for contrast: what one does and the
other does not is peer-to-peer's doing. Each is a process of its own, driving all GPUs as nccl-tests does.
"""

from __future__ import annotations

import contextlib
import os
from typing import Final

import msgspec

from warmspare.host import engine_nccl
from warmspare.model import nccl_log
from warmspare.model.facts import Cause, Count, GbPerS, Outcome, Proof, Seconds, Text
from warmspare.trials.api import LeverFailed, NotTried, Steps, trial
from warmspare.trials.collective import MIB
from warmspare.trials.given import Peers
from warmspare.trials.ranks import RanksProcess

SIZES_MIB: Final = (1, 32, 256, 1024)
CONTRAST_SIZES_MIB: Final = (1, 32, 256)
ROUNDS: Final = 5
BUDGET_S: Final = 1.5
CONTRAST_BUDGET_S: Final = 0.6
LONGEST_S: Final = 0.5
"""A size is left out where one all-reduce of it would take longer: over a slow network it proves no more."""
NO_LIBRARY: Final = "no NCCL library was found: install torch, or your distribution's libnccl2"
LOG: Final = {"NCCL_DEBUG": "INFO", "NCCL_DEBUG_SUBSYS": "INIT,GRAPH,P2P,SHM,NET,NVLS,TUNING"}
P2P_OFF: Final = {"NCCL_P2P_DISABLE": "1"}


class AllreduceSize(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One size, in MiB a GPU: microseconds that one all-reduce takes, and what nccl-tests calls its bus bandwidth."""

    size_mib: Count
    time_us: Seconds
    busbw_gb_per_s: GbPerS


class NcclAllreduce(Proof, frozen=True, kw_only=True):
    """A value-checked all-reduce over all GPUs; bus bandwidth at the largest size, in decimal GB/s.

    `transport` and `algorithm` (of the largest size) are what NCCL's own log says; the outcome is that of NCCL as it
    is. `contrast` is how it went with peer-to-peer off, None where it did not come to that.
    """

    busbw_gb_per_s: GbPerS | None = None
    by_size: tuple[AllreduceSize, ...] = ()
    transport: Text | None = None
    algorithm: Text | None = None
    ranks: Count | None = None
    version: Text | None = None
    library: Text | None = None
    contrast: Outcome | None = None
    contrast_busbw_gb_per_s: GbPerS | None = None
    contrast_by_size: tuple[AllreduceSize, ...] = ()
    contrast_transport: Text | None = None


class Variant(msgspec.Struct, kw_only=True):
    """NCCL in one environment: what is added to it and tried, and what was seen, as far as it got."""

    name: str
    added: dict[str, str]
    sizes_mib: tuple[int, ...]
    rounds: int
    budget_s: float
    outcome: Outcome = Outcome(kind="done")
    version: str | None = None
    by_size: tuple[AllreduceSize, ...] = ()
    log: nccl_log.NcclLog = nccl_log.read("")

    @property
    def busbw_gb_per_s(self) -> float | None:
        """At the largest size."""
        return self.by_size[-1].busbw_gb_per_s if self.by_size else None

    @property
    def largest(self) -> int:
        """In bytes; 0 where none was timed."""
        return self.by_size[-1].size_mib * MIB if self.by_size else 0


@trial(
    deadline=80,
    touches="a twentieth of the free memory of every GPU, and what NCCL takes itself, in two processes of its own",
    quick=True,
)
def nccl_allreduce(steps: Steps, given: Peers) -> NcclAllreduce:
    """Every GPU must have the exact sum, whatever the speed."""
    library = steps.prepare("find NCCL", engine_nccl.find, os.environ)
    if library is None:
        raise NotTried(Cause.SKIPPED, NO_LIBRARY)
    usual = Variant(name="as it is", added={}, sizes_mib=SIZES_MIB, rounds=ROUNDS, budget_s=BUDGET_S)
    _try(steps, given, library.path, usual)
    contrast = Variant(
        name="P2P off", added=P2P_OFF, sizes_mib=CONTRAST_SIZES_MIB, rounds=ROUNDS, budget_s=CONTRAST_BUDGET_S
    )
    tried = False
    with contextlib.suppress(NotTried):  # ours, not NCCL's: nothing is known of it without P2P
        _try(steps, given, library.path, contrast)
        tried = True
    return NcclAllreduce(
        outcome=usual.outcome,
        busbw_gb_per_s=usual.busbw_gb_per_s,
        by_size=usual.by_size,
        transport=usual.log.transport_of(usual.largest),
        algorithm=usual.log.algorithm_of(usual.largest),
        ranks=len(given.gpus),
        version=usual.version,
        library=library.shown,
        contrast=contrast.outcome if tried else None,
        contrast_busbw_gb_per_s=contrast.busbw_gb_per_s,
        contrast_by_size=contrast.by_size,
        contrast_transport=contrast.log.transport_of(contrast.largest),
    )


def _try(steps: Steps, given: Peers, library: str, variant: Variant) -> None:
    """Carry it out, and keep what was seen: a failing lever ends this variant, not the trial.

    Raises:
        NotTried: it could not get as far as NCCL.
    """
    logs = f"nccl-{'off' if variant.added else 'on'}"
    added = {**LOG, **variant.added, "NCCL_DEBUG_FILE": str(steps.scratch / f"{logs}.%p.log")}
    try:
        with RanksProcess(steps, added) as ranks:
            _carry_out(ranks, (library, [(gpu.subject, gpu.id) for gpu in given.gpus]), variant)
    except LeverFailed as failed:
        variant.outcome = failed.outcome
    texts = (path.read_text("utf-8", "replace") for path in sorted(steps.scratch.glob(f"{logs}.*.log")))
    variant.log = nccl_log.read("\n".join(texts))
    variant.outcome = _explained(variant.outcome, variant.log.warnings)


def _explained(outcome: Outcome, warnings: tuple[str, ...]) -> Outcome:
    """With what NCCL warned of last, where it failed and did not say so itself: /dev/shm too small, an old driver."""
    if outcome.kind == "done" or not warnings or warnings[-1][:100] in outcome.detail:
        return outcome
    return msgspec.structs.replace(outcome, detail=f"{outcome.detail}; NCCL warned: {warnings[-1]}"[:300])


def _carry_out(ranks: RanksProcess, about: tuple[str, list[tuple[str, str]]], variant: Variant) -> None:
    library, gpus = about

    def step(name: str) -> str:
        return f"{name}, {variant.name}"

    sizes = ranks.prepare(step("take buffers"), "prepare", gpus, [size * MIB for size in variant.sizes_mib])
    variant.version = ranks.lever(step("load NCCL"), "load", library)
    count = ranks.lever(step("make communicators"), "join")
    for size in sizes:
        took_s = ranks.lever(step(f"all-reduce {size // MIB} MiB"), "reduce", size, variant.rounds, variant.budget_s)
        variant.by_size = (*variant.by_size, _timed(size, took_s, count))
        if took_s * _growth(sizes, size) > LONGEST_S:
            break
    ranks.lever(step("free communicators"), "leave")


def _timed(size: int, took_s: float, ranks: int) -> AllreduceSize:
    """Bus bandwidth is size / time * 2(n-1)/n: what each link must carry. Source: nccl-tests doc/PERFORMANCE.md."""
    busbw = size / took_s * 2 * (ranks - 1) / ranks / 1e9
    return AllreduceSize(size_mib=size // MIB, time_us=round(took_s * 1e6, 2), busbw_gb_per_s=round(busbw, 3))


def _growth(sizes: list[int], size: int) -> float:
    """How many times larger the next size is; 0 after the last."""
    later = [other for other in sizes if other > size]
    return later[0] / size if later else 0.0
