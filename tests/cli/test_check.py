"""`warmspare check` as its user runs it: verdicts and exit codes, reports, and the proofs it keeps."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from typing import Any

import pytest

from conftest import Tool
from warmspare import catalogue
from warmspare.model.facts import HOST_KIND
from worlds import DESIGNED, TOOL, fake, in_world, is_one_line, marking_criu

TRACKS = tuple(catalogue.tracks())
ROUNDTRIP = "process_survives_on_disk"
REFUSING = 'case "$1" in --version) echo "Version: 4.1";; dump) echo "Error (fake): not today" >&2; exit 1;; esac'
FOLDED = {"NO-GO": 1, "UNKNOWN": 3, "DEGRADED": 4, "GO": 0}


def report(text: str) -> dict[str, Any]:
    made = json.loads(text)
    assert (made["format"], made["version"]) == ("warmspare-report", 1)
    return dict(made["report"])


def found(text: str, check: str) -> dict[str, Any]:
    layers = [layer for track in report(text)["tracks"] for layer in track["layers"]]
    return next(one for layer in layers for one in layer["checks"] if one["id"] == check)


@pytest.mark.parametrize("asked", [(), ("baseline",), ("sleep-mode", "criugpu")])
def test_the_exit_code_is_the_worst_of_the_tracks_asked_for(tool: Tool, asked: tuple[str, ...]) -> None:
    ran = tool("check", "--no-trials", "--json", "-", *asked)
    made = report(ran.stdout)
    assert sorted(track["id"] for track in made["tracks"]) == sorted(asked or TRACKS)
    verdicts = [track["verdict"].split()[0] for track in made["tracks"]]
    assert ran.returncode == made["exit_code"] == next(code for verdict, code in FOLDED.items() if verdict in verdicts)
    assert ran.stderr == ""


@pytest.mark.parametrize("command", [("check",), ("snapshot", "-o", "-")])
def test_a_criu_that_cannot_be_run_is_refused_however_it_is_named(
    tool: Tool, tmp_path: Path, command: tuple[str, ...]
) -> None:
    (tmp_path / "plain").touch()
    for path in ("/nope", "/", str(tmp_path / "plain")):
        for ran in (tool(*command, "--criu", path), tool(*command, env={"WARMSPARE_CRIU": path})):
            assert (ran.returncode, ran.stdout) == (2, "")
            assert is_one_line(ran.stderr)
            assert f"{path} is not a program that can be run" in ran.stderr
    assert not (tmp_path / "state").exists()
    assert tool("check", "--no-trials", env={"WARMSPARE_CRIU": ""}).returncode in DESIGNED, "empty is unset"


def test_without_trials_nothing_is_tried(tool: Tool, tmp_path: Path) -> None:
    refusing = fake(tmp_path / "criu", f'[ "$1" != dump ] || touch {tmp_path}/dumped\n{REFUSING}')
    ran = tool("check", "--no-trials", "--json", "-", "--criu", refusing)
    assert not (tmp_path / "dumped").exists()
    assert "trying" not in ran.stderr
    assert "--no-trials" in found(ran.stdout, ROUNDTRIP)["text"]


@pytest.mark.parametrize(
    ("asked", "tried"), [((), True), (("criugpu",), True), (("--quick", "criugpu"), True), (("baseline",), False)]
)
def test_a_track_brings_its_own_trials(tool: Tool, tmp_path: Path, asked: tuple[str, ...], *, tried: bool) -> None:
    ran = tool("check", *asked, "--json", str(tmp_path / "r.json"), "--criu", fake(tmp_path / "criu", REFUSING))
    assert ran.returncode in DESIGNED
    assert ("trying criu_roundtrip: touches one small process tree" in ran.stderr) is tried
    if tried:
        shown = found((tmp_path / "r.json").read_text(), ROUNDTRIP)
        assert (shown["mark"], shown["known_by"]) == ("unmet", "tried")
        assert "not today" in shown["text"]


def test_full_runs_every_trial(tool: Tool, tmp_path: Path) -> None:
    ran = tool("check", "--full", "--criu", fake(tmp_path / "criu", REFUSING))
    assert ran.returncode in DESIGNED
    lines = [line for line in ran.stderr.splitlines() if line.startswith("trying")]
    touches = {f"trying {trial.name}: touches {trial.touches}": trial for trial in catalogue.trials()}
    assert lines == [line for line in touches if line in lines]
    assert {
        trial.name for line, trial in touches.items() if line not in lines and trial.proof.KIND == HOST_KIND
    } == set()


def test_reports_go_to_files_and_the_verdict_to_the_terminal(tool: Tool, tmp_path: Path) -> None:
    ran = tool("check", "--no-trials", "--json", str(tmp_path / "r.json"), "--md", str(tmp_path / "r.md"))
    assert ran.returncode == report((tmp_path / "r.json").read_text())["exit_code"]
    assert (tmp_path / "r.md").read_text().startswith("# warmspare: ")
    assert all(re.search(rf"^(NO-GO|GO|UNKNOWN|DEGRADED) +{track} ", ran.stdout, re.MULTILINE) for track in TRACKS)


def test_verbose_shows_each_check_with_its_evidence(tool: Tool) -> None:
    brief, whole = (tool("check", "--no-trials", *more).stdout for more in ((), ("-v",)))
    assert "/proc/sys/kernel/osrelease" not in brief
    assert "read /proc/sys/kernel/osrelease →" in whole
    assert all(weighed.rule.id in whole for _, track in catalogue.tracks().values() for weighed in track.weighed)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("nope",), "no track is called 'nope'; there are baseline, criugpu"),
        (("\x1b[31mred", "baseline"), "no track is called"),
        (("--no-such\x1b[2J",), "--no-such"),
        (("--criu", "/no/criu"), "/no/criu is not a program"),
        (("--criu", "/etc/passwd"), "/etc/passwd is not a program"),
        (("--json",), "--json"),
    ],
)
def test_a_usage_error_is_one_line_and_nothing_is_done(
    tool: Tool, tmp_path: Path, asked: tuple[str, ...], said: str
) -> None:
    criu, mark = marking_criu(tmp_path)
    ran = tool("check", "--no-trials", *asked, env={"WARMSPARE_CRIU": criu})
    assert (ran.returncode, ran.stdout) == (2, "")
    assert is_one_line(ran.stderr), ran.stderr
    assert said in ran.stderr
    assert re.search(r"; see warmspare( check)? --help$", ran.stderr)
    assert not mark.exists()
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("asked", [(), ("chekc",), ("judge",), ("judge", "--track", "x", "f"), ("snapshot",)])
def test_other_commands_refuse_in_one_line_too(tool: Tool, asked: tuple[str, ...]) -> None:
    ran = tool(*asked)
    assert ran.returncode == 2
    assert is_one_line(ran.stderr) or (asked == () and ran.stdout.startswith("Usage:"))


def test_the_criu_that_is_named_is_the_one_that_is_used(tool: Tool, tmp_path: Path) -> None:
    criu = fake(tmp_path / "my criu", 'echo "Version: 3.99.7"')
    ran = tool("check", "--no-trials", "criugpu", "--json", "-", "--criu", "my criu", cwd=tmp_path)
    assert f"CRIU 3.99.7 ({criu})" in found(ran.stdout, "criu_is_there")["text"]


def test_proofs_are_kept_for_us_alone_and_outlive_a_run_without_trials(tool: Tool, tmp_path: Path) -> None:
    refusing, state = fake(tmp_path / "criu", REFUSING), tmp_path / "state"
    assert tool("check", "criugpu", "--criu", refusing, umask=0).returncode in DESIGNED
    (kept,) = state.glob("snapshot-*.json")
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in state.iterdir()} == {0o600}
    assert sorted(file.name for file in state.iterdir()) == ["secret", kept.name]

    tried = proof(kept)
    assert tried["value"]["outcome"]["kind"] == "refused"
    tool("check", "--no-trials", "criugpu", "--criu", refusing)
    assert proof(kept) == {**tried, "refs": []}

    other = fake(tmp_path / "other", 'echo "Version: 4.2"')
    tool("check", "--no-trials", "criugpu", "--criu", other)
    (stale,) = set(state.glob("snapshot-*.json")) - {kept}
    assert proof(stale)["is"] == "absent"


def proof(file: Path) -> dict[str, Any]:
    entries = json.loads(file.read_text())["readings"]
    return dict(next(entry["reading"] for entry in entries if entry["fact"] == "criu_roundtrip"))


def test_a_state_folder_that_others_can_write_is_not_used(tool: Tool, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(0o777)
    ran = tool("check", "--no-trials", "baseline")
    assert ran.returncode in DESIGNED
    assert is_one_line(ran.stderr)
    assert "the proofs were not kept" in ran.stderr
    assert list((tmp_path / "state").iterdir()) == []


HOSTILE = r"<script>alert(1)</script> [x](http://evil.example) | ![i](www.evil) @root $x$ \`code\` **b** #1 &lt;"


def test_nothing_read_from_the_machine_is_markup_in_markdown(tool: Tool, tmp_path: Path) -> None:
    (tmp_path / "said").write_text(HOSTILE)
    criu = fake(tmp_path / "criu", f"cat {tmp_path}/said")
    made = tool("check", "--no-trials", "criugpu", "--md", "-", "--criu", criu).stdout
    told = [line for line in made.splitlines() if "alert" in line]
    assert any("seen:" in line for line in told)
    for line in told:
        data = re.sub(r"\\[!-/:-@\[-`{-~]", "", re.split(r"seen: |`[^`]*\): |(?<!\\)\| ", line)[-1].rstrip("| "))
        assert not re.search(r"[<>\[\]|*`@$#&!]|://|www\.", data), line
    rows = [line for line in made.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {4, 5}


@pytest.mark.root
def test_identities_are_redacted_unless_the_user_wants_them(tmp_path: Path) -> None:
    uuid = "11f59a2c-4d46-4f3b-9c6b-0c3f1d2e4a5b"
    names = ["secrethost", "alice", "bob", uuid, "012345"]
    criu = fake(tmp_path / "criu", f'echo "$(hostname) alice /home/bob/x /home/alice/y {uuid} Serial Number: 012345"')
    env = {**os.environ, "USER": "alice", "WARMSPARE_STATE_DIR": str(tmp_path / "state"), "WARMSPARE_CRIU": criu}
    command = [*TOOL, "check", "--no-trials", "criugpu", "-v", "--json"]
    for more, shown in (((), []), (("--no-redact",), names)):
        ran = in_world("hostname secrethost", *command, str(tmp_path / "r"), *more, env=env, flags=("--uts",))
        kept = next((tmp_path / "state").glob("snapshot-*")).read_text()
        assert [name for name in names if name in kept] == [], "what is kept is redacted always"
        assert [name for name in names if name in (tmp_path / "r").read_text()] == shown
        assert [name for name in names if name in ran.stdout] == shown
