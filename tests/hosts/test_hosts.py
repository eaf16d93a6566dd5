"""Every recorded host: its probes replayed, its report as approved, and the rank law over its readings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest
from assemble import SYNTHETIC, assembled, report

from warmspare import catalogue
from warmspare.host.recorded import RecordedHost
from warmspare.judge import judge
from warmspare.model.facts import Absent, Cause, Known, Proof, Reading, Readings, fact_name
from warmspare.model.findings import Finding, Status
from warmspare.model.requirements import Rule
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


def findings(judgement: Judgement) -> dict[tuple[str, str], Finding]:
    """Every requirement's finding, and every paper's, by track."""
    checks = [(track.id, check) for track in judgement.tracks for layer in track.layers for check in layer.checks]
    said = {(track, paper.id): paper.finding for track, check in checks for paper in check.papers}
    return {**said, **{(track, check.id): check.finding for track, check in checks}}


def rests_on(rule: Rule) -> frozenset[str]:
    """The facts that a requirement depends on, inventories of its subjects included."""
    facts = {dependency.fact for dependency in rule.asked}
    kinds = [fact.KIND for fact in facts]
    while kinds:
        kind = kinds.pop()
        if kind.inventory:
            facts.add(kind.inventory)
            kinds.append(kind.inventory.KIND)
    return frozenset(map(fact_name, facts))


def gates(track: str) -> frozenset[str]:
    """The facts that decide whether other requirements of a track arise at all."""
    table = TRACKS[track][1]
    rules = [weighed.rule for weighed in table.weighed if weighed.rule.function in table.gates]
    return frozenset(fact for rule in rules for fact in rests_on(rule))


RESTS_ON: Final = {name: rests_on(rule) for name, rule in catalogue.rules(TRACKS).items()}
GATES: Final = {track: gates(track) for track in TRACKS}
UNREADABLE: Final = Absent(cause=Cause.INVALID, detail="GPU is lost")


def test_what_cannot_be_read_makes_just_what_rests_on_it_undecided_and_raises_no_rank(path: Path) -> None:
    readings = load(path).readings
    whole = judge(readings, TRACKS)
    before, said = ranks(whole), findings(whole)
    for key in dict(readings.items()):
        without = judge(readings.plus({key: UNREADABLE}), TRACKS)
        raised = {where for where, rank in ranks(without).items() if rank > before[where]}
        assert not raised, f"without {key}"
        for (track, name), finding in findings(without).items():
            if finding == said[track, name]:
                continue
            assert key[0] in RESTS_ON[name] | GATES[track], f"without {key}: {name} in {track} became {finding}"
            allowed = {Status.UNDECIDED, said[track, name].status}  # the same where others decide it too
            assert finding.status in allowed or key[0] in GATES[track], (key, name, finding)


def test_a_gpu_of_which_nothing_can_be_read_makes_no_verdict_better(path: Path) -> None:
    readings = load(path).readings
    before = ranks(judge(readings, TRACKS))
    for gpu in sorted({name for _, subject in dict(readings.items()) for name in re.findall(r"gpu\d+", subject)}):
        about = {key for key in dict(readings.items()) if gpu in re.findall(r"gpu\d+", key[1])}
        after = ranks(judge(readings.plus(dict.fromkeys(about, UNREADABLE)), TRACKS))
        assert not {where for where, rank in after.items() if rank > before[where]}, f"without all of {gpu}"


def test_every_finding_names_a_remedy_of_its_requirement(path: Path) -> None:
    rules = catalogue.rules(TRACKS)
    shared = {"run-as-root", "newer-kernel"}  # what `ability` and `broken` say for all of theirs
    for (_, name), finding in findings(judge(load(path).readings, TRACKS)).items():
        assert finding.remedy in {None, *rules[name].remedies, *shared}, name


def test_every_absence_has_its_cause(path: Path) -> None:
    readings: Readings = load(path).readings
    assert all(reading.detail for _, reading in readings.items() if isinstance(reading, Absent))
