"""`warmspare explain`: every id has a text that fits, and every id named anywhere is one."""

from __future__ import annotations

import textwrap

import pytest

from conftest import Tool
from warmspare import catalogue
from warmspare.cli.errors import Refused
from warmspare.cli.explaining import Explainer
from worlds import is_one_line

TRACKS = catalogue.tracks()
RULES = catalogue.rules(TRACKS)
KINDS: dict[str, set[str]] = {
    "track": set(TRACKS),
    "requirement": set(RULES),
    "trial": {trial.name for trial in catalogue.trials()},
    "remedy": set(catalogue.remedies()),
    "claim": set(catalogue.claims()),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_id_is_explained_in_lines_that_fit(kind: str) -> None:
    assert KINDS[kind]
    explainer = Explainer()
    for name in KINDS[kind]:
        lines = explainer.explain(name).splitlines()
        assert any(line.startswith(f"{name} ({kind}") for line in lines), name
        assert [line for line in lines if len(line) > 80] == []
        assert len(" ".join(lines)) > len(name) + 40, f"{name} is hardly explained"


def test_the_list_lists_all_and_fits(tool: Tool) -> None:
    ran = tool("explain")
    assert (ran.returncode, ran.stderr) == (0, "")
    words = {word.rstrip(",") for word in ran.stdout.split()}
    assert {name for names in KINDS.values() for name in names} - words == set()
    assert [line for line in ran.stdout.splitlines() if len(line) > 80] == []


def test_one_text_on_the_command_line(tool: Tool) -> None:
    ran = tool("explain", "gpu_is_there")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == Explainer().explain("gpu_is_there")
    for line in textwrap.wrap(RULES["gpu_is_there"].why, 60):
        assert line.split()[0] in ran.stdout


def test_an_unknown_id_names_near_ones_in_one_line(tool: Tool) -> None:
    ran = tool("explain", "gpu_is_their")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert is_one_line(ran.stderr)
    assert "near it: gpu_is_there" in ran.stderr
    steering = tool("explain", "\x1b[31m\u202e")
    assert steering.returncode == 2
    assert is_one_line(steering.stderr)
    with pytest.raises(Refused, match="run warmspare explain for the list"):
        Explainer().explain("?")


def test_every_remedy_that_is_named_is_there() -> None:
    assert {remedy for rule in RULES.values() for remedy in rule.remedies} - KINDS["remedy"] == set()


def test_every_remedy_is_named_by_a_requirement() -> None:
    assert KINDS["remedy"] - {remedy for rule in RULES.values() for remedy in rule.remedies} == set()


def test_every_remedy_says_what_to_do_and_what_that_changes() -> None:
    for name, remedy in catalogue.remedies().items():
        assert remedy.do.strip(), name
        assert remedy.changes.strip(), name


def test_every_requirement_says_why() -> None:
    for name, rule in RULES.items():
        assert len(rule.why.split()) >= 5, name
        assert "Source:" not in rule.why, name


def test_every_claim_is_settled_by_a_requirement_of_its_track() -> None:
    for claim in catalogue.claims().values():
        assert claim.settled_by in RULES, claim.id
        assert claim.track in TRACKS, claim.id
        assert claim.settled_by in catalogue.rules({claim.track: TRACKS[claim.track]}), claim.id


def test_no_id_means_two_things() -> None:
    names = [name for names in KINDS.values() for name in names]
    assert sorted(names) == sorted(set(names))
