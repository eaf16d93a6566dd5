"""The trial that measures a host, for real: its figures, what it lacks, and that it leaves nothing behind."""

from __future__ import annotations

import errno
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from leftovers import Corner, small_disk
from warmspare.control import cpu_share, file_speed, host_memory, speed, speed_tools
from warmspare.model.facts import Known
from warmspare.trials import host_speed as measuring
from warmspare.trials import leftover, speed_files
from warmspare.trials.api import StepEvent, Trial, at_place
from warmspare.trials.host_speed import HostSpeed, host_speed
from warmspare.trials.run import Run, run
from warmspare.trials.speed_files import _folder
from warmspare.trials.speed_found import Found
from worlds import fake

TRIAL = at_place(f"{host_speed.__module__}:{host_speed.__name__}")
ALWAYS = {"cpu_1_thread", "cpu_n_threads", "process_start_ms"}
JOB = '{"jobs": [{"error": 0, "read": {"iops": 77}, "write": {"iops": 66}}]}'
SYSBENCH = """case $1 in
cpu) echo 'events per second: 55.5';;
memory) echo 'transferred (1000.00 MiB/sec)';;
esac"""


@pytest.fixture
def corner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Corner]:
    corner = Corner(tmp_path / "scratch")
    nothing = {"WARMSPARE_FIO": "/nope", "WARMSPARE_SYSBENCH": "/nope"}
    for name, value in {**corner.env, **nothing}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(tempfile, "tempdir", str(corner.scratch))
    yield corner
    assert corner.left_in_the_end() == {}


def measured(trial: Trial = TRIAL, told: list[StepEvent] | None = None) -> HostSpeed:
    ended = run(trial, (told if told is not None else []).append)
    assert ended.left == ()
    assert isinstance(ended.reading, Known), ended.reading
    assert isinstance(ended.reading.value, HostSpeed)
    return ended.reading.value


@pytest.mark.usefixtures("corner")
def test_it_measures_what_is_here() -> None:
    seen = measured()
    assert seen.outcome.kind == "done"
    assert seen.threads == measuring._threads() <= len(os.sched_getaffinity(0))  # noqa: SLF001 # what it counts
    names = [one.name for one in seen.measures]
    assert len(names) == len(set(names))
    assert set(names) >= ALWAYS
    for system in seen.file_systems:
        there = f"{system.place}_write_gb_per_s" in names
        assert there != any(lack.startswith(system.place) for lack in seen.lacking), "a figure, or why there is none"
    assert {system.type for system in seen.file_systems if system.place == "tmpfs"} <= {"tmpfs", "ramfs"}
    assert not any("fio" in name or "sysbench" in name for name in names)


@pytest.mark.usefixtures("corner")
def test_installed_tools_add_theirs_and_one_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARMSPARE_SYSBENCH", fake(tmp_path / "sysbench", SYSBENCH))
    broken = f"""case "$*" in *randwrite*) echo 'no O_DIRECT here' >&2; exit 1;; *) echo '{JOB}';; esac"""
    monkeypatch.setenv("WARMSPARE_FIO", fake(tmp_path / "fio", broken))
    seen = measured()
    found = {one.name: one.value for one in seen.measures}
    assert found["sysbench_cpu_per_s"] == 55.5
    assert found["sysbench_memory_gb_per_s"] == pytest.approx(1.04858)
    assert found["disk_fio_random_read_per_s"] == 77
    assert "disk_fio_random_write_per_s" not in found
    assert [lack for lack in seen.lacking if "fio" in lack] == [
        "disk_fio_random_write_per_s: fio ended with status 1: no O_DIRECT here"
    ]


@pytest.mark.parametrize(
    ("quota", "free", "threads"), [(None, 2**40, 64), (0.5, 2**40, 1), (2.5, 2**40, 3), (None, 64 * 2**20, 3)]
)
def test_there_are_as_many_threads_as_a_quota_and_a_tenth_of_memory_bear(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, free: int, threads: int
) -> None:
    monkeypatch.setattr(cpu_share, "cpus", lambda: 64)
    monkeypatch.setattr(cpu_share, "quota", lambda: quota)
    monkeypatch.setattr(host_memory, "free_bytes", lambda: free)
    assert measuring._threads() == threads  # noqa: SLF001 # a part of the trial


def test_a_figure_that_cannot_be_had_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> float:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))  # as a limit of processes does

    found = Found()
    monkeypatch.setattr(speed, "hashing", refuse)
    measuring._cpu(found, 64)  # noqa: SLF001 # a part of the trial
    assert found.lacking == [f"cpu_{n}: {os.strerror(errno.EAGAIN)}" for n in ("1_thread", "n_threads")]


@pytest.mark.root
def test_a_file_system_without_room_leaves_the_others_their_figures(corner: Corner) -> None:
    with small_disk(corner.scratch):
        seen = measured()
        assert seen.outcome.kind == "done"
        assert "tmpfs: a tenth of what is free is 0 MiB" in seen.lacking
        assert {one.name for one in seen.measures} >= ALWAYS


def test_held_up_in_the_middle_of_a_file_system_it_is_hung_there_and_leaves_nothing(
    corner: Corner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[StepEvent] = []
    monkeypatch.setenv("WARMSPARE_FIO", fake(tmp_path / "fio", "exec sleep 60"))
    ended: Run = run(_within(5.0), told.append)
    assert isinstance(ended.reading, Known), ended
    assert ended.reading.value.outcome.kind == "hung"
    assert corner.left() == {}


def _within(deadline_s: float) -> Trial:
    return Trial(TRIAL.name, TRIAL.function, TRIAL.proofs, deadline_s, TRIAL.touches, TRIAL.quick)


def test_a_folder_elsewhere_is_locked_named_like_the_scratch_folder_and_found_by_its_token(tmp_path: Path) -> None:
    scratch = tmp_path / f"{leftover.PREFIX}0123abcd-xyz"
    with _folder(tmp_path, scratch) as folder:
        assert folder.name.startswith(f"{leftover.PREFIX}0123abcd-")
        assert not leftover._is_stale(folder, "0123abcd")  # noqa: SLF001 # what another run's sweep would ask
    assert not folder.exists()


@pytest.mark.parametrize(
    ("point", "kind", "found"), [("/mnt/c", "9p", True), ("/", "9p", False), ("/mnt/c", "ext4", False)]
)
def test_the_windows_disk_is_measured_only_where_wsl_mounted_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, kind: str, *, found: bool
) -> None:
    windows, scratch = tmp_path / "windows", tmp_path / "scratch"
    windows.mkdir()
    monkeypatch.setattr(leftover, "WINDOWS_ROOTS", (windows,))
    monkeypatch.setattr(speed_files, "kind_of", lambda root, _: (point, kind) if root == windows else ("/", "ext4"))
    places = {place: (root, told) for place, root, told in speed_files.places_of(Found(), scratch)}
    assert places["disk"] == (tmp_path, "ext4")
    assert places.get("mnt_c") == ((windows, "9p") if found else None)


def test_whoever_clears_a_trial_away_looks_on_the_windows_disk_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftover, "WINDOWS_ROOTS", (tmp_path,))
    left = tmp_path / f"{leftover.PREFIX}0123abcd-xyz"
    left.mkdir()
    (left / "data").touch()
    assert leftover.clear("0123abcd") == []
    assert not left.exists()


def test_a_file_system_that_does_not_answer_costs_only_its_own_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang(*_: object) -> float:
        (tmp_path / "pid").write_text(str(os.getpid()))
        signal.pause()
        raise AssertionError

    monkeypatch.setattr(file_speed.Files, "creating", hang)
    monkeypatch.setattr(speed_files, "PLACE_S", 3.0)
    found = Found()
    speed_files.files_aside(found, "disk", (tmp_path, "nfs4"), tmp_path / f"{leftover.PREFIX}0123abcd-x")
    _end(int((tmp_path / "pid").read_text()))
    assert found.measures[0].name == "disk_write_gb_per_s"
    assert found.lacking[-1] == "disk (nfs4): it took longer than 3 s"


def test_a_file_system_that_does_not_say_what_it_is_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(root: Path, _: str) -> tuple[str, str]:
        if root == tmp_path:
            (tmp_path / "pid").write_text(str(os.getpid()))
            signal.pause()
        return "/", "ext4"

    monkeypatch.setattr(speed_files, "kind_of", ask)
    monkeypatch.setattr(speed_files, "FIND_S", 2.0)
    found = Found()
    places = speed_files.places_of(found, tmp_path / "scratch")
    _end(int((tmp_path / "pid").read_text()))
    assert [place for place, _, _ in places] == ["disk"]
    assert places[0][1] != tmp_path
    assert found.lacking == ["a folder for temporary files: it took longer than 2 s"]


def _end(stopped: int) -> None:
    """As the keeper does with all that a trial leaves."""
    os.kill(stopped, signal.SIGKILL)
    os.waitpid(stopped, 0)


def test_whatever_hangs_the_trial_keeps_its_deadline() -> None:
    roots = len({*leftover.scratch_roots(), *leftover.WINDOWS_ROOTS}) + 1
    files = 3 * speed_files.PLACE_S + roots * speed_files.FIND_S
    at_work = 4 * measuring.THROTTLED_S + speed_files.SLOT_S
    assert files + 2 * speed_tools.PATIENCE_S + at_work < TRIAL.deadline_s


@pytest.mark.parametrize("kind", ["overlay", "tmpfs", "ramfs", "rootfs", "unknown"])
def test_what_may_be_memory_takes_no_more_than_a_tenth_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(host_memory, "free_bytes", lambda: 60 * 2**20)
    found = Found()
    speed_files.files_aside(found, "disk", (tmp_path, kind), tmp_path / f"{leftover.PREFIX}0123abcd-x")
    assert (found.measures, found.lacking) == ([], ["disk: a tenth of what is free is 6 MiB"])


def test_a_cache_of_its_own_is_named_and_gives_no_reads(tmp_path: Path) -> None:
    found = Found()
    speed_files.files_aside(found, "disk", (tmp_path, "zfs"), tmp_path / f"{leftover.PREFIX}0123abcd-x")
    assert [lack for lack in found.lacking if "read" in lack] == [
        f"disk_{name}: zfs has a cache of its own, which stays" for name in ("read_gb_per_s", "random_read_per_s")
    ]
    assert not any("disk_r" in one.name for one in found.measures)


MIB: Final = 2**20


@pytest.mark.parametrize(
    ("free_mib", "caches_mib", "used_mib", "lacks"),
    [
        (20_000, (32, 32), (512, 512), 0),
        (20_000, (384, 768), (768, 1536), 0),
        (10_000, (384, 768), (768, 1000), 1),
        (2000, (384, 768), (200, 200), 2),
        (20_000, (0, 0), (512, 512), 0),
    ],
)
def test_memory_is_copied_past_the_caches_or_it_is_said(
    monkeypatch: pytest.MonkeyPatch, free_mib: int, caches_mib: tuple[int, int], used_mib: tuple[int, int], lacks: int
) -> None:
    used: list[int] = []

    def copying(_: int, total_bytes: int, *__: object) -> float:
        used.append(total_bytes // MIB)
        return 1.0

    monkeypatch.setattr(host_memory, "free_bytes", lambda: free_mib * MIB)
    monkeypatch.setattr(host_memory, "cache_bytes", lambda: tuple(mib * MIB for mib in caches_mib))
    monkeypatch.setattr(speed, "copying", copying)
    found = Found()
    measuring._memory(found, 4)  # noqa: SLF001 # a part of the trial
    assert tuple(used) == used_mib
    assert sum("may be the speed of caches" in lack for lack in found.lacking) == lacks == len(found.lacking)
