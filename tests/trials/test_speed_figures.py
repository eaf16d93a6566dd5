"""The arithmetic of two runs: its laws, and what a measure may be."""

from __future__ import annotations

import typing
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmspare.model.facts import Outcome
from warmspare.trials.speed import (
    PLACES,
    FileSystem,
    HostSpeed,
    Measure,
    Name,
    SpeedRun,
    geometric_mean,
    measure,
    moved,
    pairs,
    within,
)

DONE: Final = Outcome(kind="done")
NAMES: Final[tuple[Name, ...]] = typing.get_args(Name)
VALUES: Final = st.floats(min_value=1e-6, max_value=1e6)
TYPES: Final = st.sampled_from(["ext4", "btrfs", "tmpfs", "9p"])


def speed_of(figures: dict[Name, float], types: dict[Any, str] | None = None) -> HostSpeed:
    systems = tuple(FileSystem(place=place, type=kind) for place, kind in (types or {}).items())
    measures = tuple(measure(name, value) for name, value in figures.items())
    return HostSpeed(outcome=DONE, measures=measures, threads=4, file_systems=systems)


SPEEDS: Final = st.builds(
    speed_of,
    st.dictionaries(st.sampled_from(NAMES), VALUES, min_size=1),
    st.dictionaries(st.sampled_from(PLACES), TYPES),
)


@given(SPEEDS)
def test_a_run_against_itself_is_one(speed: HostSpeed) -> None:
    found = pairs(speed, speed)
    assert len(found) == len(speed.measures)
    assert geometric_mean(found) == 1


@given(SPEEDS, SPEEDS)
def test_swapping_the_runs_inverts_the_mean(one: HostSpeed, other: HostSpeed) -> None:
    there, back = pairs(one, other), pairs(other, one)
    assert {pair.now.name for pair in there} == {pair.now.name for pair in back}
    if there:
        assert geometric_mean(there) * geometric_mean(back) == pytest.approx(1)


@given(SPEEDS, st.sampled_from(NAMES), st.floats(min_value=1.1, max_value=100))
def test_better_is_above_one_whichever_way_the_unit_goes(speed: HostSpeed, name: Name, factor: float) -> None:
    figures: dict[Name, float] = {one.name: one.value for one in speed.measures} | {name: 1.0}
    before = speed_of(figures)
    better = speed_of({**figures, name: factor if measure(name, 1).higher_is_better else 1 / factor})
    found = pairs(before, better)
    assert geometric_mean(found) > 1 > geometric_mean(pairs(better, before))
    assert geometric_mean(found) == pytest.approx(factor ** (1 / len(found)), rel=1e-4)


@given(SPEEDS, SPEEDS)
def test_a_place_on_another_file_system_is_compared_in_no_figure(one: HostSpeed, other: HostSpeed) -> None:
    gone = {place for place, then, today in moved(one, other) if then != today}
    assert not [pair for pair in pairs(one, other) for place in gone if pair.now.name.startswith(f"{place}_")]


def test_every_figure_has_its_unit_and_direction_and_not_another() -> None:
    for name in NAMES:
        made = measure(name, 1.0)
        assert made.higher_is_better is (made.unit != "ms")
        for change in ({"unit": "ms" if made.unit != "ms" else "GB/s"}, {"higher_is_better": made.unit == "ms"}):
            with pytest.raises(msgspec.ValidationError, match=name):
                msgspec.convert({**msgspec.to_builtins(made), **change}, Measure)
    assert {name: measure(name, 1).unit for name in ("cpu_1_thread", "disk_create_ms", "disk_random_read_per_s")} == {
        "cpu_1_thread": "GB/s",
        "disk_create_ms": "ms",
        "disk_random_read_per_s": "1/s",
    }


@pytest.mark.parametrize("value", [0, -1, 5e-324, 1e13, "1", None])
def test_no_figure_is_zero_negative_or_absurd(value: object) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({**msgspec.to_builtins(measure("cpu_1_thread", 1)), "value": value}, Measure)


def test_no_figures_have_no_mean() -> None:
    with pytest.raises(ValueError, match="no figure is in both"):
        geometric_mean(pairs(speed_of({"cpu_1_thread": 1}), speed_of({"cpu_n_threads": 1})))


def test_ratios_within_a_host_are_those_whose_figures_are_there() -> None:
    figures: dict[Name, float] = {"cpu_1_thread": 2, "cpu_n_threads": 7, "disk_write_gb_per_s": 2,
                                  "tmpfs_write_gb_per_s": 5, "mnt_c_write_gb_per_s": 0.2}  # fmt: skip
    assert within(speed_of(figures)) == (
        "4 threads do 3.50 times what 1 does (cpu)",
        "tmpfs writes at 2.50 times the disk's speed",
        "mnt_c writes at 0.10 times the disk's speed",
    )
    assert within(speed_of({})) == ()


@pytest.mark.parametrize(
    ("kind", "in_container", "called"),
    [
        ("bare-metal", False, "native"),
        ("bare-metal", True, "bare-metal container"),
        ("bare-metal", None, "bare-metal in what may be a container"),
        ("wsl2", False, "wsl2"),
        ("vm", True, "vm container"),
        (None, False, "unknown platform"),
    ],
)
def test_only_bare_metal_outside_a_container_is_native(kind: Any, in_container: bool | None, called: str) -> None:  # noqa: ANN401, FBT001 # a kind
    at = datetime(2026, 11, 22, tzinfo=UTC)
    run = SpeedRun(key="0" * 16, at=at, kernel=None, kind=kind, in_container=in_container, speed=speed_of({}))
    assert (run.called, run.is_native) == (called, called == "native")
