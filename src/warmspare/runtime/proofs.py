"""Has this machine shown that it can do it? A fresh passing proof is looked for, else the trial is run.

Fresh: kept under the same kernel, driver, GPUs, CRIU and vLLM as the machine has now.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from warmspare import __version__, catalogue, state, survey
from warmspare.control.files import Unwritable
from warmspare.host.identity import identities
from warmspare.model.facts import HOST, Absent, Fact, Key, Known, Proof, Reading, Readings, fact_name
from warmspare.model.redact import redact
from warmspare.model.snapshot import Reader, Snapshot
from warmspare.probes.criu import CriuProgram
from warmspare.probes.driver import Driver
from warmspare.probes.gpus import GPU, Gpus
from warmspare.probes.kernel import Kernel
from warmspare.probes.software import PythonPackages
from warmspare.runtime.outcomes import NotActed
from warmspare.survey import Watcher
from warmspare.trials.given import May

RESTS_ON: Final[tuple[type[Fact], ...]] = (Kernel, Driver, Gpus, CriuProgram, PythonPackages)
"""The facts that `state.key` is made of."""
SKIPPED: Final = "not needed for this act"
Proofs = Mapping[Key, Reading[Any]]


def proven(
    wanted: Sequence[type[Proof]], gpus: Collection[str], watcher: Watcher, *, force: bool = False
) -> tuple[str, ...]:
    """Make sure that this machine has passed these trials on these GPUs (by UUID; none: on every one of them).

    Returns remarks: on what could not be kept, or cleared away.

    Raises:
        NotActed: it has not, and a trial did not pass now; nothing was touched.
    """
    if force:
        return ()
    readings = survey.glance(RESTS_ON, watcher)
    subjects = _subjects(readings, gpus)
    reader = Reader(catalogue.facts())
    if not _lacking(wanted, subjects, state.kept(_redacted(readings), reader, state.folder())):
        return ()
    trials = tuple(trial for trial in catalogue.trials() if not set(wanted).isdisjoint(trial.proofs))
    taken = survey.take(trials, SKIPPED, watcher, May(busy_ok=True))
    remarks = [f"could not be cleared away and was left: {thing}" for thing in taken.left]
    try:
        state.store(taken.redacted, reader, state.folder())
    except (OSError, Unwritable) as error:
        remarks.append(f"the proof was not kept: {error}")
    if lacking := _lacking(wanted, subjects, dict(taken.snapshot.readings.items())):
        why = f"{lacking}; `warmspare check criugpu` says more, --force does it all the same"
        raise NotActed(why, "refused")
    return tuple(remarks)


def passed(proof: Proof) -> bool:
    """Whether it ended well, and what it held came back as it was."""
    return proof.outcome.kind == "done" and getattr(proof, "bytes_survived", True) is True


def _subjects(readings: Readings, gpus: Collection[str]) -> frozenset[str]:
    """The names of these GPUs in the readings."""
    found = readings.get(Gpus)
    if not isinstance(found, Known):
        return frozenset()
    return frozenset(f"gpu{n}" for n, uuid in enumerate(found.value.ids) if uuid in gpus or not gpus)


def _lacking(wanted: Sequence[type[Proof]], subjects: frozenset[str], proofs: Proofs) -> str:
    """The first proof that is not there or did not pass, in words; empty if there is none."""
    for proof in wanted:
        for subject in sorted(subjects or {"gpu0"}) if proof.KIND == GPU else (HOST,):
            where = "" if subject == HOST else f" on {subject}"
            reading = proofs.get((fact_name(proof), subject))
            if not isinstance(reading, Known):
                why = f": {reading.detail or reading.cause.value}" if isinstance(reading, Absent) else ""
                return f"nothing has shown that this machine can do it{where} ({fact_name(proof)}{why})"
            if not passed(reading.value):
                outcome = reading.value.outcome
                how = outcome.kind if outcome.kind != "done" else "it came back changed"
                at = f" at {outcome.step}" if outcome.step else ""
                detail = "".join(f": {text}" for text in (outcome.detail, outcome.code) if text)
                return f"this machine was seen to fail at it{where} ({fact_name(proof)}: {how}{at}{detail})"
    return ""


def _redacted(readings: Readings) -> Readings:
    """As the kept ones are: the key is made of pseudonyms."""
    made = Snapshot(made_by=f"warmspare {__version__}", made_at=datetime.now(UTC), redacted=False, readings=readings)
    return redact(made, identities(state.secret(state.folder()))).readings
