"""A requirement whose question does not arise, or falls away, says so, whatever of its own facts is absent."""

from __future__ import annotations

import pytest
from strategies import Other, Plain, Trial, known

from warmspare.judge import judge
from warmspare.model.asking import find
from warmspare.model.facts import HOST, Fact, Readings, Standing, fact_name
from warmspare.model.findings import Finding, met, not_applicable, undecided, unmet
from warmspare.model.requirements import arises_if, rule, unless
from warmspare.model.tracks import Layer, Track
from warmspare.model.verdicts import State, Verdict


def _is_wanted(plain: Plain) -> Finding:
    return met("wanted") if plain.n else not_applicable("nobody wants it")


@arises_if(_is_wanted)
def claim_holds(trial: Trial) -> Finding:
    """A proof that only some ask for."""
    return met("held") if trial.n else unmet("broke")


def always_holds(other: Trial) -> Finding:
    """A proof that everybody asks for."""
    return met("held {n}", n=other.n)


def readings(wanted: int | None, tried: int | None) -> Readings:
    facts: tuple[tuple[type[Fact], int | None], ...] = ((Plain, wanted), (Trial, tried))
    return Readings({(fact_name(fact), HOST): known(fact, n) for fact, n in facts if n is not None})


@pytest.mark.parametrize(
    ("wanted", "tried", "status", "words"),
    [
        (1, 1, "met", "held"),
        (1, 0, "unmet", "broke"),
        (1, None, "undecided", ""),
        (0, None, "not_applicable", "nobody wants it"),
        (0, 0, "not_applicable", "nobody wants it"),
        (None, 1, "undecided", "plain"),
        (None, None, "undecided", "plain"),
    ],
)
def test_the_condition_is_asked_first(wanted: int | None, tried: int | None, status: str, words: str) -> None:
    finding = find(rule(claim_holds), readings(wanted, tried)).finding
    assert finding.status == status
    assert words in finding.text


@pytest.mark.parametrize(("wanted", "verdict"), [(0, Verdict.GO), (1, Verdict.DEGRADED)])
def test_a_want_that_does_not_arise_degrades_nothing(wanted: int, verdict: Verdict) -> None:
    @arises_if(_is_wanted)
    def wish(trial: Trial) -> Finding:
        return unmet("broke {n}", n=trial.n)

    track = Track(needs={Layer.PROOF: [always_holds]}, wants={Layer.PROOF: [wish]})
    assert judge(readings(wanted, 1), {"t": ("?", track)}).tracks[0].state == State(verdict)


def test_what_the_condition_raises_is_told_under_the_requirement() -> None:
    def _raises(plain: Plain) -> Finding:
        raise ValueError(plain.n)

    @arises_if(_raises)
    def claim(other: Other) -> Finding:
        return met("held {n}", n=other.n)

    found = find(rule(claim), Readings({(fact_name(Plain), HOST): known(Plain, 1)}))
    assert found.finding.status == "undecided"
    assert "the requirement itself failed: ValueError: 1" in found.finding.text


def test_a_rule_keeps_its_own_facts_apart_from_those_of_its_condition() -> None:
    made = rule(claim_holds)
    assert [d.fact for d in made.dependencies] == [Trial]
    assert made.arises is not None
    assert [d.fact for d in made.arises.dependencies] == [Plain]
    assert [d.fact for d in made.asked] == [Trial, Plain]
    assert rule(always_holds).arises is None


def test_the_standing_of_what_does_not_arise_is_that_of_the_condition() -> None:
    reported = Readings({(fact_name(Plain), HOST): known(Plain, 0, Standing.REPORTED)})
    assert find(rule(claim_holds), reported).standing is Standing.REPORTED


def test_an_undecided_condition_leaves_it_undecided() -> None:
    def _unsure(plain: Plain) -> Finding:
        return undecided("who knows {n}", n=plain.n)

    @arises_if(_unsure)
    def claim(trial: Trial) -> Finding:
        return met("held {n}", n=trial.n)

    assert find(rule(claim), readings(1, 1)).finding.text == "who knows 1"


@unless(_is_wanted)
def old_claim_holds(trial: Trial) -> Finding:
    """A proof that nobody asks for where something else is wanted."""
    return met("held") if trial.n else unmet("broke")


@pytest.mark.parametrize(
    ("wanted", "tried", "status", "words"),
    [
        (1, 1, "not_applicable", "wanted"),
        (1, None, "not_applicable", "wanted"),
        (0, 1, "met", "held"),
        (0, 0, "unmet", "broke"),
        (None, 1, "met", "held"),
        (None, None, "undecided", ""),
    ],
)
def test_it_falls_away_where_that_is_met(wanted: int | None, tried: int | None, status: str, words: str) -> None:
    found = find(rule(old_claim_holds), readings(wanted, tried))
    assert found.finding.status == status
    assert words in found.finding.text
    assert [d.fact for d in rule(old_claim_holds).asked] == [Trial, Plain]
