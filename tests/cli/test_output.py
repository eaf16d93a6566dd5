"""Where the reports go: refused before the work, replaced in one step after it, readable on any terminal."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from conftest import Tool
from worlds import (
    CLEAR,
    DESIGNED,
    TOOL,
    as_nobody,
    fake,
    in_world,
    is_one_line,
    marking_criu,
    on_terminal,
    reachable,
    wait_for,
)

ASKED = {
    "--json": ("check", "--no-trials", "--json"),
    "--md": ("check", "--no-trials", "--md"),
    "-o": ("snapshot", "--no-trials", "-o"),
}


def prepared(folder: Path) -> dict[str, str]:
    """Paths that nothing can be written to, with what is said of each."""
    (folder / "file").write_text("old")
    (folder / "folder").mkdir()
    (folder / "link").symlink_to("file")
    (folder / "dangling").symlink_to("nowhere")
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "pipe")
    return {
        "missing/r": "No such file or directory",
        "file/r": "Not a directory",
        "folder": "not a regular file",
        "link": "not a regular file",
        "dangling": "not a regular file",
        "loop": "not a regular file",
        "pipe": "not a regular file",
        "/dev/null": "not a regular file",
        "/dev/full": "not a regular file",
        "/proc/r": "cannot write",
        "x" * 300: "File name too long",
        "": "an empty path names no file",
    }


@pytest.mark.parametrize("option", ASKED)
def test_an_unwritable_path_is_refused_before_the_work(tool: Tool, tmp_path: Path, option: str) -> None:
    criu, mark = marking_criu(tmp_path)
    paths = prepared(tmp_path)
    for path, said in paths.items() if option == "--json" else list(paths.items())[:3]:
        ran = tool(*ASKED[option], path, cwd=tmp_path, env={"WARMSPARE_CRIU": criu})
        assert (ran.returncode, ran.stdout) == (2, ""), path
        assert is_one_line(ran.stderr), ran.stderr
        assert said in ran.stderr
    assert not mark.exists()
    assert not (tmp_path / "state").exists()
    assert (tmp_path / "file").read_text() == "old"
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []
    tool(*ASKED[option], "r", cwd=tmp_path, env={"WARMSPARE_CRIU": criu})
    assert mark.exists(), "the mark would have shown the work"


@pytest.mark.root
def test_paths_of_others_and_read_only_ones_are_refused() -> None:
    world = f"""{reachable()}
        mount -t tmpfs -o mode=1777 none /mnt; cd /mnt; mkdir closed ro
        echo old >mine; echo old >locked; chown {65534} locked; chmod 444 locked
        mount -t tmpfs -o ro none ro"""
    env = {"PATH": os.environ["PATH"], "WARMSPARE_CRIU": "/bin/false", "WARMSPARE_STATE_DIR": "/mnt/state"}
    paths = {"closed/r": "Permission", "mine": "Permission", "locked": "Permission", "ro/r": "Read-only"}
    for path, said in paths.items():
        ran = in_world(world, *as_nobody(*TOOL, "check", "--no-trials", "--json", path), env=env)
        assert (ran.returncode, ran.stdout) == (2, "")
        assert is_one_line(ran.stderr), ran.stderr
        assert f"cannot write {path}: {said}" in ran.stderr
    assert "Read-only" in in_world(world, *TOOL, "check", "--no-trials", "--md", "ro/r", env=env).stderr


def test_two_reports_cannot_share_a_place(tool: Tool, tmp_path: Path) -> None:
    for place in ("-", str(tmp_path / "r")):
        ran = tool("check", "--no-trials", "--json", place, "--md", place)
        assert (ran.returncode, ran.stdout) == (2, "")
        assert is_one_line(ran.stderr)
    assert not (tmp_path / "r").exists()


class Working:
    """A check that is held in the middle of its work by a CRIU that waits for us."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        """Start it, and wait until it waits."""
        self.report, self.asked, self.go = folder / "r.json", folder / "asked", folder / "go"
        self.report.write_text("old")
        self.report.chmod(0o640)
        self.inode = self.report.stat().st_ino
        self.hold = self.report.open()  # an inode that is in use is not given out again
        os.mkfifo(self.go)
        criu = fake(folder / "criu", f"touch {self.asked}; read answer <{self.go}; echo Version: 4.1")
        command = [*TOOL, "check", "--no-trials", "--json", str(self.report)]
        self.process = subprocess.Popen(
            command, env={**env, "WARMSPARE_CRIU": criu}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        wait_for(self.asked, self.process)

    def let_go(self) -> str:
        """Let it go on to its end, and give what it said on standard error."""
        pipe = os.open(self.go, os.O_RDWR)  # waits for no reader: the fake may not have come to its own open yet
        try:
            os.write(pipe, b"on\n" * 16)  # a line for whoever waits, or is about to
            self.go.unlink()  # from now on the fake finds no pipe and ends at once
            return self.process.communicate(timeout=60)[1]
        finally:
            os.close(pipe)

    def left(self) -> list[str]:
        """Temporary files beside the report."""
        return sorted(file.name for file in self.report.parent.iterdir() if file.name.startswith("."))


def test_an_existing_report_is_replaced_in_one_step(tmp_path: Path, environment: dict[str, str]) -> None:
    work = Working(tmp_path, environment)
    assert (work.report.read_text(), work.left()) == ("old", []), "nothing that a SIGKILL could leave"
    stderr = work.let_go()
    assert work.process.returncode in DESIGNED, stderr
    assert json.loads(work.report.read_text())["report"]["exit_code"] == work.process.returncode
    assert work.report.stat().st_ino != work.inode
    assert work.report.stat().st_mode & 0o777 == 0o640, "the user's permissions stay"
    assert work.left() == []
    work.hold.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_stopped_run_leaves_the_old_report(tmp_path: Path, environment: dict[str, str], number: int) -> None:
    work = Working(tmp_path, environment)
    for _ in range(3):  # an impatient user's second one must not break off the clearing away
        work.process.send_signal(number)
    stdout, stderr = work.process.communicate(timeout=60)
    assert work.process.returncode == 128 + number
    assert stdout == ""
    assert stderr == f"warmspare: stopped by {signal.Signals(number).name}; everything it started is cleared away\n"
    assert (work.report.read_text(), work.report.stat().st_ino, work.left()) == ("old", work.inode, [])
    work.hold.close()


def test_a_killed_run_leaves_the_old_report_and_nothing_else(tmp_path: Path, environment: dict[str, str]) -> None:
    work = Working(tmp_path, environment)
    work.process.kill()
    work.process.communicate(timeout=60)
    assert (work.report.read_text(), work.report.stat().st_ino, work.left()) == ("old", work.inode, [])
    work.hold.close()


def test_a_snapshot_that_names_everything_is_for_its_owner_alone(tool: Tool, tmp_path: Path) -> None:
    for args, mode in (((), 0o644), (("--no-redact",), 0o600)):
        path = tmp_path / f"{mode:o}"
        assert tool("snapshot", "--no-trials", *args, "-o", str(path), umask=0o022).returncode == 0
        assert path.stat().st_mode & 0o777 == mode
    path.chmod(0o640)
    tool("snapshot", "--no-trials", "--no-redact", "-o", str(path))
    assert path.stat().st_mode & 0o777 == 0o640, "the user's permissions stay"


def test_one_path_that_is_refused_leaves_the_other_alone(tool: Tool, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text("old")
    tool("check", "--no-trials", "--json", str(tmp_path / "r.json"), "--md", str(tmp_path / "no" / "r.md"))
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("r.json", "old")]


@pytest.mark.root
def test_a_full_disk_costs_the_report_and_not_the_verdict(tmp_path: Path, environment: dict[str, str]) -> None:
    world = "mount -t tmpfs -o size=64k none /mnt; echo old >/mnt/r; dd if=/dev/zero of=/mnt/f 2>/dev/null || true"
    for option in ("--json", "--md"):
        command = shlex.join([*TOOL, "check", "--no-trials", option, "/mnt/r"])
        ran = in_world(world, "sh", "-c", f"{command}; echo code $?; cat /mnt/r; ls -A /mnt", env=environment)
        assert ran.stdout.endswith("code 2\nold\nf\nr\n"), ran.stdout
        assert re.search(r"^(NO-GO|GO|UNKNOWN|DEGRADED) +criugpu ", ran.stdout, re.MULTILINE)
        assert is_one_line(ran.stderr)
        assert "cannot write /mnt/r: No space left on device" in ran.stderr
    assert list((tmp_path / "state").glob("snapshot-*")), "the proofs were kept all the same"


def test_a_full_disk_behind_standard_output_is_told(tool: Tool) -> None:
    with Path("/dev/full").open("w") as full:
        for args in (["check", "--no-trials"], ["check", "--no-trials", "--json", "-"]):
            ran = tool(*args, capture_output=False, stdout=full, stderr=subprocess.PIPE)
            assert ran.returncode == 2
            assert is_one_line(ran.stderr)
            assert "No space left on device" in ran.stderr


def test_closed_streams_stop_nothing(tool: Tool, tmp_path: Path, environment: dict[str, str]) -> None:
    code = tool("check", "--no-trials").returncode
    words = shlex.join([*TOOL, "check", "--no-trials", "--json", str(tmp_path / "r")])
    for shut in (">&-", "2>&-", "<&- >&- 2>&-"):
        (tmp_path / "r").write_text("old")
        ran = subprocess.run(f"exec {words} {shut}", shell=True, capture_output=True, text=True, env=environment)  # noqa: S602, PLW1510 # the shell closes them
        assert (ran.returncode, ran.stderr) == (code, "")
        assert json.loads((tmp_path / "r").read_text())["report"]["exit_code"] == code
        assert (ran.stdout == "") is (shut != "2>&-")
        refused = shlex.join([*TOOL, "judge", "/nowhere"])
        ran = subprocess.run(f"exec {refused} {shut}", shell=True, capture_output=True, text=True, env=environment)  # noqa: S602, PLW1510 # likewise
        assert (ran.returncode, ran.stdout, "Traceback" in ran.stderr) == (2, "", False)


@pytest.mark.parametrize("args", [["check", "--no-trials"], ["explain"]])
def test_a_reader_that_leaves_early_changes_nothing(
    tool: Tool, tmp_path: Path, environment: dict[str, str], args: list[str]
) -> None:
    whole = tool(*args)
    for reads in (0, 1):
        command: Any = [*TOOL, *args]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as left:
            assert left.stdout is not None
            assert left.stderr is not None
            if reads:
                os.read(left.stdout.fileno(), 20)
            left.stdout.close()
            assert (left.stderr.read(), left.wait(60)) == (b"", whole.returncode)
    script = f"{shlex.join([*TOOL, *args])} | head -1; exit ${{PIPESTATUS[0]}}"
    headed = subprocess.run(["/bin/bash", "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert (headed.returncode, headed.stderr, headed.stdout.count("\n")) == (whole.returncode, "", 1)
    assert (tmp_path / "state").exists() is (args[0] == "check")


def lines_of(text: str) -> list[str]:
    return [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in text.split("\n")]


@pytest.mark.parametrize("columns", [40, 80, 1000])
def test_reports_fit_the_terminal(tmp_path: Path, environment: dict[str, str], columns: int) -> None:
    taken = tmp_path / "s.json"
    seen = on_terminal(*TOOL, "snapshot", "--no-trials", "-o", str(taken), columns=columns, env=environment)
    assert (seen.code, seen.stdout) == (0, "")
    for args in (["judge", "-v", str(taken)], ["check", "--quick"], ["explain"]):
        seen = on_terminal(*TOOL, *args, columns=columns, env={**environment, "TERM": "xterm"})
        widest = min(columns, 100) if args[0] != "explain" else 80
        long = [line for line in lines_of(seen.stdout.replace("\r", "")) if len(line) > widest]
        assert long == []
        changing = re.split(r"\n|\r\x1b\[2K", seen.stderr)
        assert [line for line in changing if len(line) > widest] == []


def test_colour_is_for_terminals_that_want_it(tmp_path: Path, environment: dict[str, str]) -> None:
    taken, env = tmp_path / "s.json", {**environment, "TERM": "xterm"}
    env.pop("NO_COLOR", None)
    subprocess.run([*TOOL, "snapshot", "--no-trials", "-o", str(taken)], env=env, check=True)
    judged = (*TOOL, "judge", "-v", str(taken))
    coloured = on_terminal(*judged, columns=80, env=env)
    assert "\x1b[1;31m" in coloured.stdout or "\x1b[1;3" in coloured.stdout
    plain = subprocess.run(judged, capture_output=True, text=True, env=env, check=False).stdout
    assert "\x1b" not in plain
    assert "\n".join(line.rstrip() for line in lines_of(coloured.stdout)) == plain
    for more in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert on_terminal(*judged, columns=80, env={**env, **more}).stdout == plain
    assert on_terminal(*judged, columns=80, env=env, piped=True).stdout == plain


def test_progress_is_one_line_that_is_cleared_away(environment: dict[str, str]) -> None:
    env = {**environment, "TERM": "xterm"}
    seen = on_terminal(*TOOL, "check", "--no-trials", columns=80, env=env, piped=True)
    assert seen.stderr == f"{CLEAR}reading the host…{CLEAR}"
    dumb = on_terminal(*TOOL, "check", "--no-trials", columns=80, env={**env, "TERM": "dumb"})
    assert dumb.stderr == ""


def test_a_terminal_shows_what_a_trial_touches_before_it_does(tmp_path: Path, environment: dict[str, str]) -> None:
    criu = fake(tmp_path / "criu", '[ "$1" != --version ] || echo Version: 4.1; exit 1')
    env = {**environment, "TERM": "xterm", "WARMSPARE_CRIU": criu}
    seen = on_terminal(*TOOL, "check", "criugpu", columns=80, env=env)
    said = [part for part in re.split(r"\r\x1b\[2K", seen.stderr) if part]
    assert said[0] == "reading the host…"
    told = [number for number, part in enumerate(said) if part.startswith("trying criu_roundtrip: touches one small")]
    assert told
    assert said[1].startswith("trying ")
    assert said.index("  dump…") > told[0]
    assert seen.stderr.endswith(CLEAR)
