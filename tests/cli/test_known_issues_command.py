"""`warmspare known-issues`: what applies to a vLLM, what may, and what was fixed before."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import Tool
from worlds import is_one_line

PLAIN = ("known-issues", "--engine", "vllm==0.26.0")
"""A version, so that the list does not hang on what is installed here."""


def listed(tool: Tool, *arguments: str) -> dict[str, Any]:
    ran = tool(*arguments[:1], "--json", "-", *arguments[1:])
    assert (ran.returncode, ran.stderr) == (0, "")
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def ids(issues: list[dict[str, Any]]) -> set[str]:
    return {issue["id"] for issue in issues}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """The packages of the engine's Python, a virtual environment of this one's: vLLM 0.16.0."""
    site = tmp_path / f"engine/lib/python3.{sys.version_info.minor}/site-packages"
    metadata = site / "vllm-0.16.0.dist-info/METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.16.0\n")
    python = tmp_path / "engine/bin/python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    (tmp_path / "engine/pyvenv.cfg").write_text(f"home = {Path(sys.executable).parent}\n")
    return site


@pytest.fixture
def engine(site: Path) -> dict[str, str]:
    """The environment of a user who names that Python."""
    return {"WARMSPARE_PYTHON": str(site.parents[2] / "bin/python")}


def test_the_list_names_for_each_a_way_around_its_fix_and_its_source(tool: Tool) -> None:
    ran = tool(*PLAIN)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("Sleep Mode of vLLM 0.26.0 on this machine, no flags given")
    applies, may = ran.stdout.split("\nmay apply: ")
    wedges = applies[applies.index("failed-wake-wedges (hang)") :].split("\n  ", maxsplit=6)
    assert any("around it: look for free VRAM" in line for line in wedges)
    assert any("fixed in: 0.28.0" in line for line in wedges)
    assert any("source: vllm-project/vllm#34600" in line for line in wedges)
    assert "depends on: data parallelism\n" in may
    assert ran.stdout.rstrip().splitlines()[-1].startswith("fixed in 0.26.0 or before: ")
    assert [line for line in ran.stdout.splitlines() if len(line) > 80] == []


def test_flags_decide_what_without_them_is_open(tool: Tool) -> None:
    without = listed(tool, *PLAIN)
    assert "coordinator-believes-ranks-run" in ids(without["may_apply"])
    assert without["flags_given"] is False
    with_two = listed(tool, *PLAIN, "--", "some/model", "-dp", "2")
    assert "coordinator-believes-ranks-run" in ids(with_two["applies"])
    with_one = listed(tool, *PLAIN, "--", "--enforce-eager")
    assert "coordinator-believes-ranks-run" not in ids(with_one["applies"]) | ids(with_one["may_apply"])


def test_the_level_decides_what_is_about_level_2(tool: Tool) -> None:
    row = "level-2-without-reload-answers-garbage"
    assert row in ids(listed(tool, *PLAIN, "--level", "2")["applies"])
    one = listed(tool, *PLAIN, "--level", "1")
    assert row not in ids(one["applies"]) | ids(one["may_apply"])


def test_a_flag_that_is_not_understood_is_named(tool: Tool) -> None:
    arguments = (*PLAIN, "--", "--enable-lora", "-tp", "two")
    assert listed(tool, *arguments)["flags_unclear"] == ["tensor_parallel"]
    assert "flags not understood, about: tensor_parallel" in tool(*arguments).stdout


def test_what_a_newer_version_has_left_behind_is_counted(tool: Tool) -> None:
    old, new = (listed(tool, "known-issues", "--engine", f"vllm=={v}") for v in ("0.16.0", "0.33.0"))
    assert "request-while-asleep-crashes" in ids(old["applies"])
    assert "request-while-asleep-crashes" in new["fixed_before"]
    assert len(old["fixed_before"]) < len(new["fixed_before"])


def test_without_a_version_it_is_the_vllm_of_the_engines_python(tool: Tool, engine: dict[str, str]) -> None:
    ran = tool("known-issues", env=engine)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "Sleep Mode of vLLM 0.16.0" in ran.stdout
    assert "request-while-asleep-crashes (crash)" in ran.stdout


def test_json_goes_to_a_file_beside_the_list(tool: Tool, tmp_path: Path) -> None:
    ran = tool(*PLAIN, "--json", str(tmp_path / "issues.json"))
    assert "Sleep Mode of vLLM 0.26.0" in ran.stdout
    found = json.loads((tmp_path / "issues.json").read_text())
    assert (found["engine"], found["version"]) == ("vllm", "0.26.0")
    assert all(issue["unclear"] for issue in found["may_apply"])
    assert not any(issue["unclear"] for issue in found["applies"])
    assert {"class", "symptom", "workaround", "sources", "verified", "bears_on"} <= set(found["applies"][0])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--engine", "vllm=0.26"), "--engine takes vllm==VERSION"),
        (("--engine", "sglang==0.5.0"), "--engine takes vllm==VERSION"),
        (("--engine", "vllm==newest"), "--engine takes vllm==VERSION"),
        (("--engine", "vllm==\x1b[31m"), "--engine takes vllm==VERSION"),
        (("vllm==0.26.0",), "FLAGS are vLLM's and start with a dash"),
        (("--level", "3"), "3"),
        (("--json", ""), "an empty path names no file"),
    ],
)
def test_words_that_mean_nothing_are_refused_in_one_line(tool: Tool, arguments: tuple[str, ...], words: str) -> None:
    ran = tool("known-issues", *arguments)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert is_one_line(ran.stderr)
    assert words in ran.stderr


def test_without_vllm_a_version_must_be_named(tool: Tool, engine: dict[str, str], site: Path) -> None:
    shutil.rmtree(site)
    ran = tool("known-issues", env=engine)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "name a version, such as --engine vllm==0.26.0" in ran.stderr
