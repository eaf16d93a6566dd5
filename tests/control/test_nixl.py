"""A NIXL agent's process: what it may use of ours, and what is found under its Python."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from warmspare.control import nixl_agent
from warmspare.control.nixl import Agent

FAKE = Path(__file__).parent.parent / "fake_nixl"
OLDEST = (3, 10)
OURS = "warmspare"


def imported(name: str) -> Iterator[str]:
    """What a module imports, by whole names, once an import of ours is followed."""
    source = inspect.getsource(importlib.import_module(name))
    for node in ast.walk(ast.parse(source, feature_version=OLDEST)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "warmspare.control":
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)


def test_an_agent_needs_nothing_but_the_standard_library_and_our_levers_in_words_of_an_older_python() -> None:
    todo, seen = {nixl_agent.__name__}, set()
    while todo:
        seen.add(name := todo.pop())
        if name.partition(".")[0] == OURS:
            assert name in {OURS, "warmspare.control"} or name.startswith("warmspare.control."), name
            todo |= set(imported(name)) - seen
        else:
            assert name.partition(".")[0] in sys.stdlib_module_names, name
    assert {"warmspare.control.cuda", "warmspare.control.kernels", "warmspare.control.cuda_abi"} <= seen


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> str:
    """This Python without the packages of its environment, the way an engine's other one would be."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return os.path.realpath(sys.executable)


def test_nixl_is_found_where_the_engine_would_find_it(
    bare: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(FAKE))
    agent = Agent(bare, "source", tmp_path)
    assert agent.ask("look") == {"package": "nixl", "version": "9.8.7"}
    agent.end()


def test_a_nixl_beside_our_own_packages_or_in_the_working_directory_is_not_the_engines(
    bare: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "ours"
    root.mkdir()
    (root / OURS).symlink_to(Path(nixl_agent.__file__).parent.parent)
    for folder in (root, tmp_path):
        (folder / "nixl").symlink_to(FAKE / "nixl")
    monkeypatch.setattr("warmspare.__file__", str(root / OURS / "__init__.py"))
    agent = Agent(bare, "source", tmp_path)
    assert agent.ask("look") == {"package": None, "version": None}
    agent.end()


def test_the_backend_alone_is_taken_where_the_front_is_missing(
    bare: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    (packages / "nixl_cu13").symlink_to(FAKE / "nixl")
    monkeypatch.setenv("PYTHONPATH", str(packages))
    agent = Agent(bare, "source", tmp_path)
    assert agent.ask("look") == {"package": "nixl_cu13", "version": None}
    assert agent.ask("load", package="nixl_cu13") == {}
    agent.end()


def test_an_agent_whose_orders_end_ends_too(bare: str, tmp_path: Path) -> None:
    agent = Agent(bare, "source", tmp_path)
    agent.ask("look")
    assert agent.end() == 0


def test_what_ucx_has_not_logged_is_empty(bare: str, tmp_path: Path) -> None:
    agent = Agent(bare, "source", tmp_path)
    agent.ask("look")
    assert agent.protocols() == ""
    agent.end()
