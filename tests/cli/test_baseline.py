"""`warmspare baseline` as its user runs it, on a machine whose GPUs are a stand-in driver's."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from conftest import CI, Tool
from standins import Drivers, compilers
from worlds import TOOL, is_one_line

pytestmark = pytest.mark.skipif(not compilers() and not CI, reason="needs a C compiler, or the wheel ziglang")
QUICKLY: Final = {"WARMSPARE_FIO": "/nope", "WARMSPARE_SYSBENCH": "/nope"}
FILE: Final = "run.json"


@pytest.fixture(scope="module")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """The environments of a machine with GPUs, of another one, and of one whose driver names none."""
    made = Drivers(tmp_path_factory.mktemp("standins"))
    plans = {
        "here": (),
        "other": ("nvmlDeviceGetHandleByIndex_v2 gpu3: returns 4",),
        "nameless": ("nvmlInit*: returns 9", "cuInit: returns 100"),
    }
    return {name: {**QUICKLY, **made.world(name, *plan)} for name, plan in plans.items()}


@pytest.fixture(scope="module")
def saved(drivers: dict[str, dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run of this machine, as save wrote it into a file."""
    folder = tmp_path_factory.mktemp("saved")
    env = {**os.environ, **drivers["here"], "WARMSPARE_STATE_DIR": str(folder / "state")}
    command = [*TOOL, "baseline", "save", "-o", str(folder / FILE)]
    ran = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=60)
    assert "trying host_speed: touches every CPU" in ran.stderr
    assert not (folder / "state").exists(), "a file was asked for"
    made: dict[str, Any] = json.loads((folder / FILE).read_text())
    what = "native" if made["run"]["kind"] == "bare-metal" and made["run"]["in_container"] is False else "not native"
    assert f"of the machine {made['run']['key']}" in ran.stdout
    assert what in ran.stdout
    return made


def written(folder: Path, made: dict[str, Any], **run: object) -> str:
    path = folder / FILE
    path.write_text(json.dumps({**made, "run": {**made["run"], **run}}))
    return str(path)


def far_faster(made: dict[str, Any]) -> dict[str, Any]:
    """The same run on a machine that was a thousand times as good in everything."""
    speed = made["run"]["speed"]
    factor = {True: 1000, False: 0.001}
    measures = [{**one, "value": one["value"] * factor[one["higher_is_better"]]} for one in speed["measures"]]
    return {**speed, "measures": measures}


def test_a_native_run_from_a_file_gives_the_fraction_and_is_kept_for_check(
    tool: Tool, tmp_path: Path, saved: dict[str, Any], drivers: dict[str, dict[str, str]]
) -> None:
    native = written(tmp_path, saved, kind="bare-metal", in_container=False, speed=far_faster(saved))
    ran = tool("baseline", "compare", native, env=drivers["here"])
    assert ran.returncode == 0, ran.stderr
    key, names = saved["run"]["key"], [one["name"] for one in saved["run"]["speed"]["measures"]]
    verdict = r"^([0-9.]+) of bare metal \(geometric mean of (\d+) figures, machine (\S+)\)$"
    found = re.search(verdict, ran.stdout, re.MULTILINE)
    assert found, ran.stdout
    assert (int(found[2]), found[3]) == (len(names), key)
    assert float(found[1]) < 0.1, "a thousandth of what was stored, give or take what else runs here"
    assert [
        line.split()[0] for line in ran.stdout.splitlines() if re.search(r" [0-9.]+$", line) and "  " in line
    ] == names
    assert f"stored: native, machine {key}" in ran.stdout

    snapshot = tool("snapshot", "--no-trials", "-o", "-", env=drivers["here"])
    entries = {entry["fact"]: entry["reading"] for entry in json.loads(snapshot.stdout)["readings"]}
    fact = entries["native_run"]["value"]
    assert (fact["key"], fact["stored"]["key"]) == (key, key), "redaction leaves it as it is"
    assert stat.S_IMODE((tmp_path / "state" / f"native-{key}.json").stat().st_mode) == 0o600


def test_a_guests_run_is_kept_as_what_it_is_and_never_called_bare_metal(
    tool: Tool, tmp_path: Path, saved: dict[str, Any], drivers: dict[str, dict[str, str]]
) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    kept = tmp_path / "state" / f"guest-{saved['run']['key']}.json"
    Path(written(tmp_path, saved, kind="wsl2", in_container=False)).rename(kept)
    ran = tool("baseline", "compare", env=drivers["here"])
    assert ran.returncode == 0, ran.stderr
    assert re.search(r"^[0-9.]+ of the stored wsl2 run; nothing is said of bare metal", ran.stdout, re.MULTILINE)
    assert not re.search(r"[0-9] of bare metal", ran.stdout)


@pytest.mark.parametrize("command", ["save", "compare"])
def test_without_a_gpus_uuid_nothing_is_measured(
    tool: Tool, tmp_path: Path, saved: dict[str, Any], drivers: dict[str, dict[str, str]], command: str
) -> None:
    named = (written(tmp_path, saved),) if command == "compare" else ()
    refuses(tool("baseline", command, *named, env=drivers["nameless"]), "nothing proves which machine this is")


def test_another_machines_run_is_refused_with_both_keys(
    tool: Tool, tmp_path: Path, saved: dict[str, Any], drivers: dict[str, dict[str, str]]
) -> None:
    named = written(tmp_path, saved, key="0" * 16)
    refuses(tool("baseline", "compare", named, env=drivers["here"]), f"{'0' * 16}, and this is {saved['run']['key']}")


def test_one_gpu_less_is_another_machine(
    tool: Tool, tmp_path: Path, saved: dict[str, Any], drivers: dict[str, dict[str, str]]
) -> None:
    said = refuses(tool("baseline", "compare", written(tmp_path, saved), env=drivers["other"]), "name a run of this")
    assert f"is of the machine {saved['run']['key']}, and this is " in said


def test_with_nothing_kept_it_says_how_to_keep(tool: Tool, drivers: dict[str, dict[str, str]]) -> None:
    refuses(tool("baseline", "compare", env=drivers["here"]), "run warmspare baseline save")


HOSTILE: Final[dict[str, Callable[[Path], object]]] = {
    "not there": lambda _: None,
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "huge": lambda path: path.write_bytes(b" " * 70_000),
    "a snapshot": lambda path: path.write_text('{"format": "warmspare-snapshot", "version": 1}'),
    "steering": lambda path: path.write_text('{"\\u001b]0;owned\\u0007": 1}'),
    "binary": lambda path: path.write_bytes(bytes(range(256))),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_before_anything_is_measured(
    tool: Tool, tmp_path: Path, drivers: dict[str, dict[str, str]], name: str
) -> None:
    HOSTILE[name](tmp_path / "bad\x1b[2J.json")
    refuses(
        tool("baseline", "compare", "bad\x1b[2J.json", cwd=tmp_path, env=drivers["here"]), "warmspare baseline save"
    )


def test_a_run_that_is_kept_and_was_spoilt_is_refused(
    tool: Tool, tmp_path: Path, saved: dict[str, Any], drivers: dict[str, dict[str, str]]
) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state" / f"native-{saved['run']['key']}.json").write_text("{}")
    refuses(tool("baseline", "compare", env=drivers["here"]), "save it again")


def test_a_folder_that_cannot_be_written_is_refused_with_what_to_do(
    tool: Tool, tmp_path: Path, drivers: dict[str, dict[str, str]]
) -> None:
    (tmp_path / "state").write_text("a file")
    refuses(tool("baseline", "save", env=drivers["here"]), "set WARMSPARE_STATE_DIR")


def test_a_native_run_that_cannot_be_kept_is_compared_all_the_same(
    tool: Tool, tmp_path: Path, saved: dict[str, Any], drivers: dict[str, dict[str, str]]
) -> None:
    (tmp_path / "state").write_text("a file")
    native = written(tmp_path, saved, kind="bare-metal", in_container=False)
    ran = tool("baseline", "compare", native, env=drivers["here"])
    assert ran.returncode == 0
    assert " of bare metal (" in ran.stdout
    assert "the run could not be kept" in ran.stderr


@pytest.mark.parametrize(
    ("at", "kept", "said"),
    [
        ("2020-01-01T00:00:00Z", "2021", "was kept, of 2021-01-01 00:00 UTC: not this file's, of 2020-01-01 00:00 UTC"),
        ("2021-01-01T00:00:00Z", "2021", "was kept, of 2021-01-01 00:00 UTC: the same"),
        ("2022-01-01T00:00:00Z", "2022", "of 2022-01-01 00:00 UTC, in place of that of 2021-01-01 00:00 UTC"),
    ],
)
def test_an_older_file_does_not_replace_the_native_run_that_is_kept(  # noqa: PLR0913, PLR0917 # fixtures, and a row
    tool: Tool, tmp_path: Path, saved: dict[str, Any], drivers: dict[str, dict[str, str]], at: str, kept: str, said: str
) -> None:
    native = {"kind": "bare-metal", "in_container": False}
    (tmp_path / "state").mkdir(mode=0o700)
    where = tmp_path / "state" / f"native-{saved['run']['key']}.json"
    Path(written(tmp_path, saved, **native, at="2021-01-01T00:00:00Z")).rename(where)
    ran = tool("baseline", "compare", written(tmp_path, saved, **native, at=at), env=drivers["here"])
    assert ran.returncode == 0, ran.stderr
    assert said in ran.stderr
    assert json.loads(where.read_text())["run"]["at"].startswith(kept)


@pytest.mark.parametrize("asked", [(), ("sav",), ("save", "x"), ("compare", "a", "b"), ("save", "-o", "/nope/x")])
def test_words_that_are_wrong_are_a_usage_error(tool: Tool, asked: tuple[str, ...]) -> None:
    ran = tool("baseline", *asked)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert is_one_line(ran.stderr)


def refuses(ran: subprocess.CompletedProcess[str], said: str) -> str:
    assert (ran.returncode, ran.stdout) == (1, ""), ran
    assert is_one_line(ran.stderr), ran.stderr
    assert said in ran.stderr
    assert "trying" not in ran.stderr
    return ran.stderr
