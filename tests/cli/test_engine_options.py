"""The options that say which engine Sleep Mode is tried on, and what they may not be said with."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from conftest import Tool
from warmspare.cli.engine_options import PYTHON, WithFlags, asked_engine, engine
from warmspare.trials.given import EngineAsk

URL = "http://127.0.0.1:8000"


def meant(*arguments: str, tracks: tuple[str, ...] = ("sleep-mode",), extent: str | None = None) -> EngineAsk:
    found: list[EngineAsk] = []

    @click.command(cls=WithFlags)
    @engine
    def command() -> None:
        found.append(asked_engine(tracks, extent))

    ran = CliRunner().invoke(command, list(arguments), standalone_mode=False)
    if ran.exception:
        raise ran.exception
    return found[0]


@pytest.mark.parametrize(
    ("arguments", "ask"),
    [
        ((), {}),
        (("--model", "org/name"), {"model": "org/name"}),
        (("--model", "org/name", "--level", "2"), {"model": "org/name", "level": 2}),
        (("--", "-tp", "2", "--enable-lora"), {"flags": ("-tp", "2", "--enable-lora")}),
        (("--",), {"flags": ()}),
        (("--", "--", "--help"), {"flags": ("--", "--help")}),
        (("--engine", URL, "--yes-sleep-it"), {"url": URL}),
    ],
)
def test_what_is_said_is_what_is_meant(arguments: tuple[str, ...], ask: dict[str, Any]) -> None:
    assert meant(*arguments) == EngineAsk(**ask)


def test_a_model_that_is_a_folder_is_named_from_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    assert meant("--model", "mine").model == str(tmp_path / "mine")


def test_the_long_form_of_everything_tries_an_engine_as_well() -> None:
    assert meant("--model", "a/b", tracks=(), extent="full").model == "a/b"


@pytest.mark.parametrize(
    ("arguments", "tracks", "words"),
    [
        (("--engine", URL), ("sleep-mode",), "--yes-sleep-it"),
        (("--yes-sleep-it",), ("sleep-mode",), "--engine URL"),
        (("--engine", URL, "--yes-sleep-it", "--model", "a/b"), ("sleep-mode",), "its own model"),
        (("--engine", URL, "--yes-sleep-it", "--", "-tp", "2"), ("sleep-mode",), "its own model"),
        (("--engine", URL, "--yes-sleep-it"), (), "sleep-mode"),
        (("--model", "a/b"), ("criugpu",), "sleep-mode"),
        (("--", "-tp", "2"), (), "sleep-mode"),
        (("--level", "2"), ("baseline",), "sleep-mode"),
        (("--level", "3"), ("sleep-mode",), "3"),
        (("--vllm", "/nowhere/python"), ("sleep-mode",), "/nowhere/python"),
        (("--vllm", ""), ("sleep-mode",), "an empty path"),
        (("--model", ""), ("sleep-mode",), "a folder, or a name"),
        (("--engine", "ftp://a", "--yes-sleep-it"), ("sleep-mode",), "no such kind of address"),
        (("--engine", URL, "--yes-sleep-it", "--level", "2"), ("sleep-mode",), "only put to sleep at level 1"),
    ],
)
def test_what_contradicts_itself_is_refused(arguments: tuple[str, ...], tracks: tuple[str, ...], words: str) -> None:
    with pytest.raises(click.UsageError, match=words):
        meant(*arguments, tracks=tracks)


def test_the_engines_python_is_found_by_every_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PYTHON, "another")
    meant("--vllm", os.path.relpath(sys.executable))
    assert os.environ[PYTHON] == os.path.abspath(os.path.relpath(sys.executable))  # noqa: PTH100 # links are kept


@pytest.mark.parametrize("command", ["check", "snapshot"])
def test_a_server_is_not_put_to_sleep_unasked(tool: Tool, command: str) -> None:
    ran = tool(command, "sleep-mode", "--engine", URL, *(["-o", "-"] if command == "snapshot" else []))
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "--yes-sleep-it" in ran.stderr


def test_the_usage_says_where_the_flags_stand(tool: Tool) -> None:
    assert "[-- VLLM_FLAGS...]" in tool("check", "--help").stdout
