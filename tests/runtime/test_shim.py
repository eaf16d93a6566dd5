"""`warmspare shim`: a program is written where that is safe, and nothing that is not ours is touched."""

from __future__ import annotations

import os
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from conftest import Tool
from warmspare.runtime import shim

NAME: Final = "cuda-checkpoint"
PLUGIN_READS: Final = 2047
"""Bytes of the help that CRIU's plugin looks through. Source: cuda_checkpoint_supports_flag, plugins/cuda."""


def test_it_is_written_whole_and_starts(tool: Tool, tmp_path: Path) -> None:
    ran = tool("shim", str(tmp_path / "it's here"))
    where = tmp_path / "it's here" / NAME
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith(f"{where}: written; it starts in ")
    assert f"PATH={shlex.quote(str(where.parent))}:$PATH criu dump -L LIBDIR" in ran.stdout
    assert where.stat().st_mode & 0o7777 == 0o755
    assert [path.name for path in where.parent.iterdir()] == [NAME]
    said = subprocess.run([where, "-h"], capture_output=True, check=True)
    assert b"--action" in said.stdout[:PLUGIN_READS]
    assert said.stderr == b""


def test_it_needs_nothing_of_the_environment(tmp_path: Path) -> None:
    shim.install(tmp_path)
    (tmp_path / "ctypes.py").write_text("raise SystemExit(9)")
    (tmp_path / "warmspare.py").write_text("raise SystemExit(9)")
    env = {"PYTHONPATH": str(tmp_path), "PYTHONHOME": "/nowhere", "PATH": "/nowhere"}
    ran = subprocess.run([tmp_path / NAME, "--help"], env=env, cwd=tmp_path, capture_output=True, check=False)
    assert ran.returncode == 0, ran.stderr


def test_it_starts_well_within_what_criu_waits_for(tmp_path: Path) -> None:
    shim.install(tmp_path)
    assert statistics.median(shim.start_s(tmp_path) for _ in range(5)) < 1


def test_a_second_run_changes_nothing(tool: Tool, tmp_path: Path) -> None:
    shim.install(tmp_path)
    before = (tmp_path / NAME).stat()
    ran = tool("shim", str(tmp_path))
    assert ": as it was; it starts in" in ran.stdout
    assert (tmp_path / NAME).stat().st_ino == before.st_ino


def test_an_older_one_of_ours_is_replaced_and_its_mode_mended(tmp_path: Path) -> None:
    where = tmp_path / NAME
    where.write_bytes(shim.MARK + b" 0.0.1\nexec false\n")
    assert shim.install(tmp_path) == "replaced"
    where.chmod(0o644)
    assert shim.install(tmp_path) == "as it was"
    assert shim.start_s(tmp_path) > 0


def test_it_is_removed_again(tool: Tool, tmp_path: Path) -> None:
    shim.install(tmp_path)
    ran = tool("shim", "--remove", str(tmp_path))
    assert (ran.returncode, ran.stdout) == (0, f"{tmp_path / NAME} is removed\n")
    assert list(tmp_path.iterdir()) == []
    ran = tool("shim", "--remove", str(tmp_path))
    assert (ran.returncode, ran.stdout) == (0, f"{tmp_path / NAME} was not there\n")


def _theirs(where: Path) -> None:
    where.write_text("#!/bin/sh\nexec nvidia\n")


def _binary(where: Path) -> None:
    where.write_bytes(b"\x7fELF" + b"\0" * 9)


def _link(where: Path) -> None:
    target = where.with_name("mine")
    target.write_bytes(shim.text())
    where.symlink_to(target)


def _pipe(where: Path) -> None:
    os.mkfifo(where)


@pytest.mark.parametrize("made", [_theirs, _binary, _link, Path.mkdir, _pipe])
@pytest.mark.parametrize("act", [shim.install, shim.remove])
def test_what_is_not_ours_is_left_alone(
    made: Callable[[Path], None], act: Callable[[Path], object], tmp_path: Path
) -> None:
    where = tmp_path / NAME
    made(where)
    before = os.lstat(where)
    with pytest.raises(shim.ShimRefused, match="is another program"):
        act(tmp_path)
    assert os.lstat(where).st_ino == before.st_ino
    assert {path.name for path in tmp_path.iterdir()} <= {NAME, "mine"}


def test_a_folder_that_anybody_may_write_to_is_refused(tool: Tool, tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    ran = tool("shim", str(tmp_path))
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith(f"warmspare: {tmp_path} may be written to by everybody")
    assert ran.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a folder away")
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 65_534, 65_534)
    with pytest.raises(shim.ShimRefused, match="belongs to another user"):
        shim.install(tmp_path)


@pytest.mark.parametrize("folder", ["missing/deep", "file", "file/under"])
def test_what_is_no_folder_is_refused(folder: str, tool: Tool, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ran = tool("shim", str(tmp_path / folder))
    assert ran.returncode == 1
    assert ran.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_one_that_does_not_start_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    shim.install(tmp_path)
    with pytest.raises(shim.ShimRefused, match=r"does not start: .*not found"):
        shim.start_s(tmp_path)
