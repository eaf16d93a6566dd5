"""The pipe of MPS' daemon is looked for where CUDA looks, and its folder is not told."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from warmspare.host import verbs
from warmspare.host.experiments import mps
from warmspare.model.facts import Cause
from warmspare.model.transcript import Failed, Gave


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The usual folder, in another place."""
    found = tmp_path / "usual"
    found.mkdir()
    monkeypatch.setattr(mps, "USUAL", str(found))
    monkeypatch.delenv("CUDA_MPS_PIPE_DIRECTORY", raising=False)
    yield found
    found.chmod(0o755)


def test_the_usual_folder(folder: Path) -> None:
    assert mps.run() == {"directory": "default", "control": False}
    os.mkfifo(folder / "control")
    assert mps.run() == {"directory": "default", "control": True}


def test_a_socket_is_one_too(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "control"))
        assert mps.run()["control"]


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir])
def test_anything_else_by_that_name_is_none(folder: Path, make: object) -> None:
    make(folder / "control")  # type: ignore[operator]
    assert not mps.run()["control"]


def test_a_folder_that_the_environment_names(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(folder / "control")
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path / "mine"))
    assert mps.run() == {"directory": "set", "control": False}
    (tmp_path / "mine").mkdir()
    os.mkfifo(tmp_path / "mine/control")
    assert mps.run() == {"directory": "set", "control": True}
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", "")
    assert mps.run() == {"directory": "default", "control": True}


def test_where_we_may_not_look_nothing_is_said_of_the_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "loop").symlink_to("loop")
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(folder / "loop"))
    looped = verbs.do("experiment", ("mps",))
    assert isinstance(looped, Failed)
    assert (looped.cause, looped.code, looped.detail) == (Cause.INVALID, "ELOOP", os.strerror(40))
    monkeypatch.setattr(Path, "stat", refused)
    denied = verbs.do("experiment", ("mps",))
    assert isinstance(denied, Failed)
    assert (denied.cause, denied.code, denied.detail) == (Cause.DENIED, "EACCES", "Permission denied")


def refused(path: Path) -> os.stat_result:
    raise PermissionError(13, "Permission denied", str(path))


def test_it_is_asked_by_its_name(folder: Path) -> None:
    assert verbs.do("experiment", ("mps",)) == Gave({"directory": "default", "control": False}), folder
