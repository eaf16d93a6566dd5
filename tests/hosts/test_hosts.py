"""Every recorded host: its probes replayed, its report as approved, and the rank law over its readings."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest
from assemble import SYNTHETIC, assembled, report

from warmspare import catalogue
from warmspare.host.recorded import RecordedHost
from warmspare.judge import judge
from warmspare.model.facts import Absent, Known, Proof, Reading, Readings
from warmspare.model.snapshot import Reader, Snapshot, encode
from warmspare.model.verdicts import Judgement, State
from warmspare.probes.api import collect

HOSTS: Final = sorted(Path(__file__).parent.glob("*.json"))
READER: Final = Reader(catalogue.facts())
TRACKS: Final = catalogue.tracks()


def load(path: Path) -> Snapshot:
    return READER.read(path.read_bytes())


@pytest.fixture(params=HOSTS, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    return found


def said(reading: Reading[Proof]) -> object:
    """What a reading says, without when it was taken."""
    return reading.value if isinstance(reading, Known) else (reading.cause, reading.detail)


def test_the_probes_read_the_recording_as_they_read_the_host(path: Path) -> None:
    snapshot = load(path)
    replayed = collect(RecordedHost(snapshot.transcript), catalogue.probes())
    recorded = dict(snapshot.readings.items())
    assert {key: said(reading) for key, reading in replayed.items()} == {key: said(recorded[key]) for key in replayed}
    assert {key: r.refs for key, r in replayed.items()} == {key: recorded[key].refs for key in replayed}


def test_the_report_is_the_approved_one(path: Path) -> None:
    approved = path.with_suffix(".txt").read_text(encoding="utf-8")
    assert report(load(path)) == approved, "read the change, then run: python tests/hosts/assemble.py"


def test_the_file_is_written_as_it_is_read(path: Path) -> None:
    assert encode(load(path)) == path.read_bytes()


@pytest.mark.parametrize("name", SYNTHETIC)
def test_synthetic_hosts_are_assembled_as_described(name: str) -> None:
    here = Path(__file__).parent
    base = load(here / "vm-container-no-gpu.json")
    assert encode(assembled(base, *SYNTHETIC[name])) == (here / f"{name}.json").read_bytes()


def test_no_recording_names_anybody(path: Path) -> None:
    snapshot = load(path)
    assert snapshot.redacted


def ranks(judgement: Judgement) -> dict[tuple[str, str], int]:
    """The rank of every track and layer; a layer where nothing weighs ranks highest."""

    def rank(state: State | None) -> int:
        return 2 if state is None else state.verdict.rank

    tracks = {(track.id, ""): rank(track.state) for track in judgement.tracks}
    layers = {(t.id, layer.layer.value): rank(layer.state) for t in judgement.tracks for layer in t.layers}
    return {**tracks, **layers}


def test_taking_any_reading_away_raises_no_rank(path: Path) -> None:
    readings = load(path).readings
    before = ranks(judge(readings, TRACKS))
    for key in dict(readings.items()):
        after = ranks(judge(readings.without(key), TRACKS))
        raised = {where for where, rank in after.items() if rank > before[where]}
        assert not raised, f"without {key}"


def test_every_absence_has_its_cause(path: Path) -> None:
    readings: Readings = load(path).readings
    assert all(reading.detail for _, reading in readings.items() if isinstance(reading, Absent))
