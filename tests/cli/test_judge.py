"""`warmspare judge`: hostile files are refused in one line, and the same file gives the same bytes everywhere."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from conftest import Tool
from warmspare import catalogue
from warmspare.model.snapshot import SIZE_LIMIT, BadSnapshot, Reader
from worlds import TOOL, as_nobody, in_world, is_calm, is_one_line, reachable

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\x7f\x00\r\u202e\u2066\u200f\u2028\x85\ufeff\ue000\U000e0041EVIL"
Edit = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A snapshot of this machine."""
    folder = tmp_path_factory.mktemp("survey")
    command = [*TOOL, "snapshot", "--no-trials", "-o", str(folder / "s.json")]
    subprocess.run(command, check=True, env={**os.environ, "WARMSPARE_STATE_DIR": str(folder / "state")})
    return folder / "s.json"


def refused(tool: Tool, *args: str, **more: Any) -> str:  # noqa: ANN401 # subprocess.run's
    ran = tool("judge", *args, "--md", "-", **more)
    assert (ran.returncode, ran.stdout) == (2, ""), ran
    assert is_one_line(ran.stderr), ran.stderr
    assert ran.stderr.startswith("warmspare: ")
    return str(ran.stderr)


def deep(depth: int) -> str:
    return "[" * depth + "]" * depth


RAW: dict[str, bytes] = {
    "empty": b"",
    "nothing": b"null",
    "foreign and steering": b'{"format": "\\u001b]0;owned\\u0007\\u202e", "version": 1}',
    "no version": b'{"format": "warmspare-snapshot"}',
    "newer": b'{"format": "warmspare-snapshot", "version": 2, "new": {}}',
    "far newer": b'{"format": "warmspare-snapshot", "version": 9223372036854775808}',
    "absurdly new": b'{"format": "warmspare-snapshot", "version": 1' + b"0" * 5000 + b"}",
    "version in words": b'{"format": "warmspare-snapshot", "version": "1"}',
    "deep": deep(200_000).encode(),
    "deep inside": b'{"format": "warmspare-snapshot", "version": 1, "x": ' + deep(100_000).encode() + b"}",
    "steering key": b'{"format": "warmspare-snapshot", "version": 1, "\\u001b[31m\\u202e": 1}',
    "binary": bytes(range(256)) * 64,
    "zeros": bytes(4096),
    "not UTF-8": b'{"format": "\xff\xfe", "version": 1}',
    "UTF-16": '{"format": "warmspare-snapshot"}'.encode("utf-16"),
    "half a pair": b'{"format": "\\ud800", "version": 1}',
    "pickle": pickle.dumps({"format": "warmspare-snapshot"}),
    "terminal": EVIL.encode(),
}


@pytest.mark.parametrize("name", RAW)
def test_what_is_no_snapshot_is_refused(tool: Tool, tmp_path: Path, name: str) -> None:
    (tmp_path / "bad.json").write_bytes(RAW[name])
    assert "bad.json: " in refused(tool, "bad.json", cwd=tmp_path)


def first_known(made: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(entry["reading"] for entry in made["readings"] if entry["reading"]["is"] == "known")
    return found


EDITS: dict[str, Edit] = {
    "unknown field": lambda made: made.update({EVIL: 1}),
    "unknown fact": lambda made: made["readings"][0].update(fact=f"fact{EVIL}"),
    "another subject": lambda made: made["readings"][0].update(subject=f"gpu{EVIL}"),
    "a pair's subject": lambda made: made["readings"][0].update(subject="gpu0→gpu1"),
    "twice": lambda made: made["readings"].append(made["readings"][0]),
    "a huge number": lambda made: first_known(made).update(refs=[10**400]),
    "a negative number": lambda made: first_known(made).update(refs=[-1]),
    "past the end": lambda made: first_known(made).update(refs=[10**6]),
    "another fact's value": lambda made: first_known(made).update(value={"fact": "gpus", "ids": [], "seen": {}}),
    "a value of no fact": lambda made: first_known(made).update(value={"fact": EVIL}),
    "a number for text": lambda made: made.update(made_by=1),
    "no time": lambda made: made.update(made_at="yesterday"),
    "endless time": lambda made: made["transcript"][0].update(took_s=1e308),
    "an unknown verb": lambda made: made["transcript"][0].update(verb=f"exec{EVIL}"),
    "an answer of no kind": lambda made: made["transcript"][0].update(answer={"is": EVIL}),
    "too long a string": lambda made: made.update(made_by="x" * 70_000),
    "too many entries": lambda made: made.update(notes=[""] * 65),
}


@pytest.mark.parametrize("name", EDITS)
def test_a_snapshot_with_one_wrong_place_is_refused(tool: Tool, survey: Path, tmp_path: Path, name: str) -> None:
    made = json.loads(survey.read_bytes())
    EDITS[name](made)
    (tmp_path / "bad.json").write_text(json.dumps(made))
    refused(tool, str(tmp_path / "bad.json"))


@pytest.mark.parametrize("number", ["1e999", "NaN", "-Infinity", "1" + "0" * 5000])
def test_numbers_beyond_measure_are_refused(tool: Tool, survey: Path, tmp_path: Path, number: str) -> None:
    made = json.loads(survey.read_bytes())
    made["transcript"][0]["took_s"] = "HERE"
    (tmp_path / "bad.json").write_text(json.dumps(made).replace('"HERE"', number))
    refused(tool, str(tmp_path / "bad.json"))


def test_truncated_anywhere_is_refused(tool: Tool, survey: Path) -> None:
    data = survey.read_text()
    for length in (1, len(data) // 2, len(data.rstrip()) - 1):
        refused(tool, "-", input=data[:length])


@pytest.mark.parametrize("depth", [100, 500, 900, 1_100, 50_000])
def test_nesting_where_any_value_may_stand(tool: Tool, survey: Path, tmp_path: Path, depth: int) -> None:
    made = json.loads(survey.read_bytes())
    made["transcript"] = [{"verb": "nvml", "args": ["x"], "answer": {"is": "gave", "value": "HERE"}, "took_s": 0}]
    for entry in made["readings"]:
        entry["reading"]["refs"] = [0]
    (tmp_path / "deep.json").write_text(json.dumps(made).replace('"HERE"', deep(depth)))
    ran = tool("judge", "-v", str(tmp_path / "deep.json"))
    assert ran.returncode in (0, 1, 3, 4) or is_one_line(ran.stderr), ran.stderr
    assert "Traceback" not in ran.stderr


def test_what_is_no_file_is_refused_at_once(tool: Tool, survey: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    with (tmp_path / "huge").open("wb") as huge:
        huge.truncate(SIZE_LIMIT + 2**20)
    for name, said in {
        str(tmp_path): "Is a directory",
        str(tmp_path / "pipe"): "not a regular file",
        "/dev/zero": "not a regular file",
        "/dev/tty": "",
        str(tmp_path / "missing"): "No such file",
        str(tmp_path / "loop"): "symbolic links",
        f"{survey}/under": "Not a directory",
        "x" * 300: "name too long",
        "": "Is a directory",
        "\x1b[31m\u202e": "x1b[31m",
        str(tmp_path / "huge"): f"over {SIZE_LIMIT // 2**20} MiB",
    }.items():
        assert said in refused(tool, "--", name, timeout=20)
    for stream, said in ((Path("/dev/zero"), f"over {SIZE_LIMIT // 2**20} MiB"), (Path("/dev/null"), "")):
        with stream.open() as stdin:
            assert said in refused(tool, "-", stdin=stdin)
    assert refused(tool, str(survey), str(tmp_path / "missing")) == refused(tool, str(tmp_path / "missing"), "/x")


@pytest.mark.root
def test_what_may_not_be_read_is_refused(survey: Path, tmp_path: Path) -> None:
    closed = f"{reachable()}\nmount -t tmpfs -o mode=755 none /mnt; cp {survey} /mnt/s.json; chmod 600 /mnt/s.json"
    ran = in_world(closed, *as_nobody(*TOOL, "judge", "/mnt/s.json"), env={"PATH": os.environ["PATH"]})
    assert (ran.returncode, ran.stdout) == (2, "")
    assert is_one_line(ran.stderr)
    assert "/mnt/s.json: Permission denied" in ran.stderr
    assert not (tmp_path / "s.json").exists()


def strings(thing: Any) -> Iterator[tuple[Any, Any]]:  # noqa: ANN401 # any JSON
    """Every place of a string, as its container and key."""
    for key, value in thing.items() if isinstance(thing, dict) else enumerate(thing):
        if isinstance(value, str):
            yield thing, key
        elif isinstance(value, dict | list):
            yield from strings(value)


def test_no_string_of_a_snapshot_steers_a_terminal(tool: Tool, survey: Path, tmp_path: Path) -> None:
    made, reader = json.loads(survey.read_bytes()), Reader(catalogue.facts())
    made["notes"] = ["a note"]
    changed = 0
    for place, key in list(strings(made)):
        old, place[key] = place[key], f"{EVIL}{place[key]}{EVIL}"
        try:
            reader.read(json.dumps(made).encode())
            changed += 1
        except BadSnapshot:
            place[key] = old
    assert changed > 100
    (tmp_path / "evil.json").write_text(json.dumps(made))
    for args in (["-v"], ["-v", str(tmp_path / "evil.json")], ["--json", "-"], ["--md", "-"]):
        ran: Any = tool("judge", str(tmp_path / "evil.json"), *args, text=False)
        assert ran.returncode in (0, 1, 3, 4), ran.stderr
        assert is_calm(ran.stdout)
        assert is_calm(ran.stderr)
        assert b"EVIL" in ran.stdout
    name = f"{EVIL.replace(chr(0), '')}.json"
    (tmp_path / name).write_bytes(survey.read_bytes())
    named: Any = tool("judge", name, name, cwd=tmp_path, text=False)
    assert is_calm(named.stdout)


WORLDS: dict[str, dict[str, str]] = {
    "C": {"LC_ALL": "C"},
    "C.UTF-8": {"LC_ALL": "C.UTF-8"},
    "ASCII": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    "ASCII by name": {"PYTHONIOENCODING": "ascii:strict"},
    "another hash": {"PYTHONHASHSEED": "1"},
    "narrow": {"COLUMNS": "40", "LINES": "5"},
    "another zone": {"TZ": "Asia/Kathmandu"},
    "colours": {"FORCE_COLOR": "1", "CLICOLOR_FORCE": "1", "TERM": "xterm-256color", "COLORTERM": "truecolor"},
    "nothing": {"PATH": "", "HOME": "/nonexistent", "LANG": "ru_RU.KOI8-R"},
}


def test_the_same_snapshot_gives_the_same_bytes(tool: Tool, survey: Path, tmp_path: Path) -> None:
    for args in (["-v"], ["--json", "-"]):
        here: Any = tool("judge", str(survey), *args, text=False, env={"PYTHONHASHSEED": "0"})
        assert here.stdout.decode()
        for name, world in WORLDS.items():
            there = tool("judge", str(survey), *args, text=False, env=world, cwd=tmp_path)
            assert (there.stdout, there.returncode) == (here.stdout, here.returncode), name


def test_a_snapshot_says_what_check_said(tool: Tool, tmp_path: Path) -> None:
    checked = tool("check", "--no-trials", "--json", "-")
    (kept,) = (tmp_path / "state").glob("snapshot-*.json")
    judged = tool("judge", str(kept), "--json", "-")
    assert (judged.stdout, judged.returncode) == (checked.stdout, checked.returncode)
    assert tool("judge", "-", "--json", "-", input=kept.read_text()).stdout == checked.stdout


def test_several_files_fold_to_the_worst(tool: Tool, survey: Path, tmp_path: Path) -> None:
    empty = {**json.loads(survey.read_bytes()), "readings": [], "transcript": []}
    (tmp_path / "empty.json").write_text(json.dumps(empty))
    alone = [tool("judge", name).returncode for name in (str(survey), str(tmp_path / "empty.json"))]
    assert alone[1] == 3
    both = tool("judge", str(survey), str(tmp_path / "empty.json"))
    assert both.returncode == (1 if 1 in alone else 3)
    assert [line for line in both.stdout.splitlines() if line.startswith("== ")] == [
        f"== {survey}",
        f"== {tmp_path / 'empty.json'}",
    ]
    assert "--json and --md take one FILE" in tool("judge", str(survey), str(survey), "--json", "x").stderr


OF_A_GPU: Final = frozenset({"gpu_identity", "cuda_compute", "cuda_vmm", "managed_memory"})


def with_facts(made: dict[str, Any], values: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The snapshot with readings put in, each as tried."""
    made = copy.deepcopy(made)
    made["readings"] = [entry for entry in made["readings"] if entry["fact"] not in values]
    for fact, value in values.items():
        known = {"is": "known", "value": {"fact": fact, **value}, "standing": "tried", "at": made["made_at"]}
        subject = "gpu0" if fact in OF_A_GPU else "host"
        made["readings"].append({"fact": fact, "subject": subject, "reading": known})
    return made


def test_each_verdict_has_its_exit_code(tool: Tool, survey: Path, tmp_path: Path) -> None:
    done = {"outcome": {"kind": "done"}}
    there: dict[str, dict[str, Any]] = {
        "gpus": {"ids": ["GPU-1"], "seen": {"nvml": 1}, "nvml": [0], "pci": [None], "silent": {}, "instead": []},
        "gpu_identity": {"name": "NVIDIA H100", "compute_capability": "9.0"},
        "driver": {"kernel_version": "580.1", "module": "open"},
        "nvml_library": {"found": True, "version": "580.1", "code": None, "refusal": None},
        "platform": {"kind": "bare-metal", "hypervisor": None, "signals": []},
        "windows_driver": {"models": []},
        "cuda_compute": {**done, "init_s": 0.4, "context_s": 0.2, "compile_s": 0.1},
        "pinned_memory": {**done, "budget_mib": 4096, "bounded": True, "pin_s": 1.5},
        "cuda_vmm": {
            **done,
            "reserved_gib": 80,
            "mib_freed": 512,
            "sleep_s_per_gib": 0.03,
            "wake_s_per_gib": 0.03,
        },
        "managed_memory": {**done, "concurrent": True},
    }
    made = json.loads(survey.read_bytes())
    changes: dict[int, dict[str, dict[str, Any]]] = {
        0: {},
        4: {"managed_memory": {**done, "concurrent": False}},
        1: {"cuda_compute": {"outcome": {"kind": "wrong", "step": "add"}}},
    }
    for code, change in changes.items():
        (tmp_path / "s.json").write_text(json.dumps(with_facts(made, {**there, **change})))
        assert tool("judge", "--track", "baseline", str(tmp_path / "s.json")).returncode == code
