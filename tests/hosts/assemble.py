"""Assemble the synthetic hosts and rewrite every host's report.

    python tests/hosts/assemble.py

A recorded host is a snapshot as `warmspare snapshot -o tests/hosts/NAME.json` wrote it. A synthetic host answers
what its family's module in `machines` describes from published logs, and nothing else: what is not described
stays unasked, and nothing of the machine that a recording was made on shines through. A host's report, NAME.txt,
is what `warmspare judge -v` prints of it: read the change before you commit it.
"""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any, Final

from machines import SYNTHETIC
from machines.asking import Answers
from msgspec.structs import replace

from warmspare import catalogue
from warmspare.host.recorded import RecordedHost
from warmspare.judge import judge
from warmspare.model.facts import HOST, Absent, Cause, Known, Readings, Standing, fact_name
from warmspare.model.snapshot import Reader, Snapshot, encode
from warmspare.model.transcript import Call
from warmspare.probes.api import collect
from warmspare.report import terminal
from warmspare.report.view import TrackView, view
from warmspare.trials.engine_plan import EnginePlan

__all__ = ["SYNTHETIC", "assembled", "main", "report"]

HERE: Final = Path(__file__).parent
BASE: Final = "vm-container-no-gpu"
WHEN: Final = dt.datetime(2026, 11, 22, 12, tzinfo=dt.UTC)


def assembled(base: Snapshot, answers: Answers, notes: tuple[str, ...]) -> Snapshot:
    """A snapshot of the base's version and form, with those of the answers that today's probes ask for."""
    calls = tuple(Call(verb=v, args=a, answer=answer) for (v, a), answer in answers.items())
    asked = sorted({place for reading in _read(calls).values() for place in reading.refs})
    calls = tuple(calls[place] for place in asked)
    trial = Absent(cause=Cause.SKIPPED, detail="a synthetic host")
    known = _read(calls)
    known[fact_name(EnginePlan), HOST] = Known(value=EnginePlan(given=False), standing=Standing.OBSERVED, at=WHEN)
    for one in catalogue.trials():
        subjects = one.kind.subjects(Readings(known))
        known |= {(fact_name(proof), subject): trial for proof in one.proofs for subject in subjects}
    return replace(base, made_at=WHEN, readings=Readings(known), transcript=calls, notes=("synthetic", *notes))


def _read(calls: tuple[Call, ...]) -> dict[tuple[str, str], Any]:
    return dict(collect(RecordedHost(calls), catalogue.probes(), at=WHEN))


def report(snapshot: Snapshot) -> str:
    """What `warmspare judge -v` prints; of a synthetic host without the answers, which its module names already."""
    tracks = catalogue.tracks()
    judgement = judge(snapshot.readings, tracks)
    seen = view(snapshot, judgement, catalogue.rules(tracks), catalogue.remedies())
    if "synthetic" in snapshot.notes:
        seen = replace(seen, tracks=tuple(map(_without_answers, seen.tracks)))
    return terminal.render(seen, verbose=True)


def _without_answers(track: TrackView) -> TrackView:
    layers = tuple(
        replace(layer, checks=tuple(replace(check, evidence=()) for check in layer.checks)) for layer in track.layers
    )
    return replace(track, layers=layers)


def main() -> None:
    """Rewrite everything."""
    reader = Reader(catalogue.facts())
    frame = json.loads((HERE / f"{BASE}.json").read_bytes())
    # Its readings may be an older version's; a synthetic host needs none of them.
    base = reader.read(json.dumps({**frame, "readings": []}).encode())
    for name, (answers, notes) in SYNTHETIC.items():
        (HERE / f"{name}.json").write_bytes(encode(assembled(base, answers, notes)))
    for path in sorted(HERE.glob("*.json")):
        path.with_suffix(".txt").write_text(report(reader.read(path.read_bytes())), encoding="utf-8")


if __name__ == "__main__":
    main()
