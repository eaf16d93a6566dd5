"""What is said of a host's speed, branch by branch: a fraction of bare metal only against its own native run."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final, get_args

import pytest
from hand_made import Row, ask, holds, not_shown, table
from msgspec.structs import replace

from warmspare.model.facts import Outcome
from warmspare.tracks import speed_requirements
from warmspare.tracks.speed_requirements import NOTHING_SAID, host_speed_is_known
from warmspare.trials.speed import FileSystem, HostSpeed, Name, NativeRun, SpeedRun, measure

KEY: Final = "0123456789abcdef"
OTHER: Final = "fedcba9876543210"
AT: Final = datetime(2026, 11, 20, tzinfo=UTC)
EXT4: Final = (FileSystem(place="disk", type="ext4"),)
NOW: Final = HostSpeed(
    outcome=Outcome(kind="done"),
    measures=(measure("cpu_1_thread", 1.5), measure("cpu_n_threads", 6), measure("disk_create_ms", 0.4)),
    threads=4,
    file_systems=EXT4,
)
THEN: Final = replace(NOW, measures=(measure("cpu_1_thread", 3), measure("disk_create_ms", 0.2)))
RUN: Final = SpeedRun(key=KEY, at=AT, kernel="6.8", kind="bare-metal", in_container=False, speed=THEN)


def stored(run: SpeedRun | None, key: str | None = KEY) -> NativeRun:
    return NativeRun(key=key, stored=run)


NAME: Final = host_speed_is_known
BROKEN: Final = HostSpeed(outcome=Outcome(kind="died", step="cpu", code="signal 9"))
ROWS: Final = (
    Row(NAME, (NOW, stored(RUN)), "met", None, "0.50 of bare metal (geometric mean of 2 figures"),
    Row(NAME, (NOW, stored(RUN)), "met", None, f"native run of 2026-11-20, key {KEY}); cpu_n_threads 6 GB/s"),
    Row(NAME, (NOW, stored(RUN)), "met", None, "4 threads do 4.00 times what 1 does (cpu)"),
    Row(NAME, (NOW, stored(None)), "met", None, f"no native run of this machine (key {KEY}) is stored"),
    Row(NAME, (NOW, stored(None, None)), "met", None, "no GPU named its UUID"),
    Row(NAME, (NOW, stored(RUN, None)), "met", None, "no GPU named its UUID"),
    Row(NAME, (NOW, stored(replace(RUN, key=OTHER))), "met", None, f"native, of machine {OTHER}; this is {KEY}"),
    Row(NAME, (NOW, stored(replace(RUN, kind="wsl2"))), "met", None, "the stored run is wsl2, of machine"),
    Row(NAME, (NOW, stored(replace(RUN, in_container=True))), "met", None, "the stored run is bare-metal container"),
    Row(NAME, (NOW, stored(replace(RUN, in_container=None))), "met", None, "in what may be a container"),
    Row(NAME, (NOW, stored(replace(RUN, speed=replace(THEN, measures=())))), "met", None, "shares no figure"),
    Row(NAME, (NOW, {"host": NativeRun}), "undecided", None, "is not known (no answer)"),
    Row(NAME, (BROKEN, stored(RUN)), "unmet", None, "died at cpu (signal 9)"),
    Row(NAME, ({"host": HostSpeed}, stored(RUN)), "undecided", None, "no answer"),
)


@table(*ROWS)
def test_host_speed(row: Row) -> None:
    assert holds(row)


def test_every_requirement_and_each_of_its_remedies_is_shown() -> None:
    assert not_shown(ROWS, speed_requirements) == {}


@pytest.mark.parametrize("row", [row for row in ROWS if "bare metal (" not in row.words and row.facts[0] is NOW])
def test_without_the_machines_own_native_run_nothing_is_said_of_bare_metal(row: Row) -> None:
    is_compared = row.facts[1] == stored(RUN)
    assert is_compared or holds(row._replace(words=NOTHING_SAID))


def test_other_file_systems_are_left_out_of_the_mean() -> None:
    btrfs = replace(RUN, speed=replace(THEN, file_systems=(FileSystem(place="disk", type="btrfs"),)))
    assert holds(Row(NAME, (NOW, stored(btrfs)), "met", None, "0.50 of bare metal (geometric mean of 1 figures"))


def test_the_sentence_stays_short_however_much_was_measured() -> None:
    names = get_args(Name)
    all_of_them = replace(NOW, measures=tuple(measure(name, 123456) for name in names))
    text = ask(host_speed_is_known, all_of_them, stored(None)).finding.text
    assert len(text) < 480, text
    assert "tmpfs_create_ms" not in text
