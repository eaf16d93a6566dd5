"""Stored runs: which machine they are of, what is refused of a file, and what a survey says of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
from msgspec.structs import replace

from warmspare import catalogue, runs
from warmspare.model.facts import HOST, Absent, Cause, Fact, Known, Outcome, Readings, Standing, fact_name
from warmspare.model.redact import Identities, redact
from warmspare.model.snapshot import Reader, Snapshot, encode
from warmspare.probes.gpus import Gpus
from warmspare.probes.platform import Container, Platform
from warmspare.runs import BadRun, cpu_model, decode, kept, key_of, machine_key, made, native_run, store
from warmspare.trials.speed import FileSystem, HostSpeed, NativeRun, SpeedRun, measure

AT: Final = datetime(2026, 11, 22, tzinfo=UTC)
UUID: Final = "GPU-6E3c0a5b-9d1e-4f7a-8b2c-0123456789ab"
OTHER: Final = "GPU-11111111-2222-3333-4444-555555555555"
KEY: Final = "0123456789abcdef"
SPEED: Final = HostSpeed(
    outcome=Outcome(kind="done"),
    measures=(measure("cpu_1_thread", 1.5), measure("disk_create_ms", 0.2)),
    threads=4,
    file_systems=(FileSystem(place="disk", type="ext4"),),
)
RUN: Final = SpeedRun(key=KEY, at=AT, kernel="6.8", kind="bare-metal", in_container=False, speed=SPEED)
INTEL: Final = (
    "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Some CPU @ 2.00GHz\nflags\t\t: fpu\n\nprocessor\t: 1\n"
)
ARM: Final = "processor\t: 0\nBogoMIPS\t: 2000.00\nCPU implementer\t: 0x41\nCPU part\t: 0xd4f\n"


def gpus(*ids: str) -> Readings:
    none = (None,) * len(ids)
    return readings(Gpus(ids=ids, seen={"nvml": len(ids)}, nvml=none, pci=none, silent={}, instead=()))


def readings(*facts: Fact) -> Readings:
    known = {(fact_name(type(f)), HOST): Known(value=f, standing=Standing.OBSERVED, at=AT) for f in facts}
    return Readings(known)


def test_the_key_is_of_the_cpu_and_of_all_gpus_in_any_order_and_case() -> None:
    key = machine_key("a", [UUID, OTHER])
    assert key == machine_key("a", [OTHER, UUID.upper()])
    assert re.fullmatch("[0-9a-f]{16}", key or "")
    assert len({key, machine_key("b", [UUID, OTHER]), machine_key("a", [UUID]), machine_key("a", [OTHER])}) == 4


@pytest.mark.parametrize("ids", [[], ["0000:01:00.0"], ["GPU-"], [f"{UUID}0"], [f"{UUID}\n"], [f"MIG-{UUID}"]])
def test_without_a_uuid_there_is_no_key(ids: list[str]) -> None:
    assert machine_key("a", ids) is None
    assert key_of(gpus(*ids)) is None


def test_gpus_that_could_not_be_read_give_no_key() -> None:
    assert key_of(Readings()) is None


def test_the_cpus_model_is_read_on_x86_and_arm() -> None:
    assert cpu_model(INTEL) == "Some CPU @ 2.00GHz"
    assert cpu_model(ARM) == "0x41 0xd4f"
    assert cpu_model("") == ""


def test_a_run_comes_back_as_it_was_kept(tmp_path: Path) -> None:
    where = tmp_path / "state"
    assert kept(KEY, where, native=True) is None
    path = store(RUN, where)
    assert path.stat().st_mode & 0o777 == 0o600
    assert kept(KEY, where, native=True) == RUN
    guest = replace(RUN, kind="wsl2")
    assert store(guest, where) != path, "a guest's run never stands in the native one's place"
    assert (kept(KEY, where, native=True), kept(KEY, where, native=False)) == (RUN, guest)


def test_where_it_ran_is_what_the_readings_say() -> None:
    known = readings(
        Platform(kind="wsl2", hypervisor="hyper-v", signals=()), Container(inside=False, engine=None, signals=())
    )
    assert made(known, KEY, SPEED, AT).called == "wsl2"
    unknown = made(Readings(), KEY, SPEED, AT)
    assert (unknown.kind, unknown.in_container, unknown.is_native) == (None, None, False)


Edit = Callable[[dict[str, Any]], object]
EDITS: Final[dict[str, Edit]] = {
    "another format": lambda made: made.update(format="warmspare-snapshot"),
    "newer": lambda made: made.update(version=2),
    "an unknown field": lambda made: made.update({"\x1b[2J": 1}),
    "no key": lambda made: made["run"].update(key=None),
    "a key in words": lambda made: made["run"].update(key="x" * 16),
    "a key with a line's end": lambda made: made["run"].update(key=f"{KEY}\n"),
    "no zone": lambda made: made["run"].update(at="2026-11-22T00:00:00"),
    "another kind": lambda made: made["run"].update(kind="native"),
    "an endless kernel": lambda made: made["run"].update(kernel="x" * 201),
    "another fact": lambda made: made["run"]["speed"].update(fact="gpus"),
    "no figures": lambda made: made["run"]["speed"].update(measures=[]),
    "a trial that died": lambda made: made["run"]["speed"]["outcome"].update(kind="died"),
    "too many figures": lambda made: made["run"]["speed"].update(measures=made["run"]["speed"]["measures"] * 33),
    "a figure twice": lambda made: made["run"]["speed"].update(measures=made["run"]["speed"]["measures"] * 2),
    "an unknown figure": lambda made: made["run"]["speed"]["measures"][0].update(name="\x1b[31m"),
    "a figure of nothing": lambda made: made["run"]["speed"]["measures"][0].update(value=0),
    "a figure next to nothing": lambda made: made["run"]["speed"]["measures"][0].update(value=5e-324),
    "a figure without end": lambda made: made["run"]["speed"]["measures"][0].update(value=1e300),
    "another unit": lambda made: made["run"]["speed"]["measures"][0].update(unit="ms"),
    "another direction": lambda made: made["run"]["speed"]["measures"][0].update(higher_is_better=False),
}
RAW: Final = {
    "empty": b"",
    "nothing": b"null",
    "binary": bytes(range(256)),
    "deep": b"[" * 60_000,
    "not UTF-8": b'{"format": "\xff"}',
    "truncated": runs.encode(RUN)[:200],
    "too large": b" " * (runs.SIZE_LIMIT + 1),
    "infinite": runs.encode(RUN).replace(b"1.5", b"Infinity"),
    "absurd": runs.encode(RUN).replace(b"1.5", b"9" * 5000),
}


@pytest.mark.parametrize("name", [*EDITS, *RAW])
def test_a_file_that_is_no_run_is_refused_in_one_plain_line(name: str) -> None:
    data = RAW.get(name)
    if data is None:
        file = json.loads(runs.encode(RUN))
        EDITS[name](file)
        data = json.dumps(file).encode()
    with pytest.raises(BadRun) as refused:
        decode(data)
    assert re.fullmatch(r"[ -~]{1,300}", str(refused.value)), refused.value


def test_a_survey_finds_the_native_run_of_its_machine_alone(tmp_path: Path) -> None:
    here = gpus(UUID)
    key = key_of(here)
    assert key
    store(replace(RUN, key=key), tmp_path)
    store(RUN, tmp_path)
    found = native_run(here, tmp_path)
    assert isinstance(found, Known)
    assert (found.standing, found.value.key, found.value.stored) == (Standing.OBSERVED, key, replace(RUN, key=key))
    guest = native_run(gpus(OTHER), tmp_path)
    assert isinstance(guest, Known)
    assert guest.value.stored is None
    nobody = native_run(Readings(), tmp_path)
    assert isinstance(nobody, Known)
    assert (nobody.value.key, nobody.value.stored) == (None, None)


def test_what_is_kept_and_cannot_be_used_is_an_absence_with_its_cause(tmp_path: Path) -> None:
    here, where = gpus(UUID), tmp_path / "state"
    key = key_of(here) or ""
    path = store(replace(RUN, key=key), where)
    path.write_bytes(b"garbage")
    spoilt = native_run(here, where)
    path.write_bytes(runs.encode(RUN))
    another = native_run(here, where)
    path.write_bytes(runs.encode(replace(RUN, key=key, kind="vm")))
    guest = native_run(here, where)
    path.write_bytes(runs.encode(replace(RUN, key=key)))
    where.chmod(0o777)
    anybodys = native_run(here, where)
    for reading, cause, words in (
        (spoilt, Cause.INVALID, "JSON"),
        (another, Cause.INVALID, KEY),
        (guest, Cause.INVALID, "vm"),
        (anybodys, Cause.DENIED, "not a folder of ours alone"),
    ):
        assert isinstance(reading, Absent)
        assert reading.cause is cause
        assert words in reading.detail


def test_redaction_leaves_the_key_and_no_uuid() -> None:
    here = gpus(UUID)
    key = key_of(here)
    fact = NativeRun(key=key, stored=replace(RUN, key=key or ""))
    snapshot = Snapshot(made_by="x", made_at=AT, redacted=False, readings=Readings({
        **dict(here.items()), **dict(readings(fact, SPEED).items()),
    }))  # fmt: skip
    clean = redact(snapshot, Identities(hosts=("disk", "native"), users=("cpu", "key"), key=b"secret"))
    assert clean.readings.get(NativeRun) == snapshot.readings.get(NativeRun)
    assert clean.readings.get(HostSpeed) == snapshot.readings.get(HostSpeed)
    written = encode(clean)
    assert UUID.encode() not in written
    assert Reader(catalogue.facts()).read(written) == clean
