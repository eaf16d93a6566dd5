"""What `rule` and `Track` refuse, and how gates and paper weigh."""

from typing import Annotated, Any

import pytest
from hypothesis import HealthCheck, given, settings
from strategies import (
    Bridges,
    Card,
    Cards,
    CardTrial,
    Case,
    Entries,
    Other,
    Peer,
    Plain,
    Trial,
    cases,
    known,
    snapshots,
)

from warmspare.judge import judge
from warmspare.model.asking import find
from warmspare.model.facts import HOST, Absent, Both, Cause, Fact, Known, Reading, Readings, Standing
from warmspare.model.findings import Finding, Status, met, undecided, unmet
from warmspare.model.requirements import Each, Requirement, Some, rule
from warmspare.model.tracks import Layer, Track
from warmspare.model.verdicts import Check, Role, State, TrackJudgement, Verdict

MANY = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])


# --- requirements, by their annotations --------------------------------------------------------------


def by(**annotations: object) -> Requirement:
    """A requirement with these annotations."""

    def claim(**_facts: object) -> Finding:
        return met("yes")

    claim.__annotations__ = annotations
    return claim


def unannotated(plain: Plain, other) -> Finding:  # type: ignore[no-untyped-def] # noqa: ANN001 # the fault
    return met("{a} {b}", a=plain.n, b=other.n)


def by_place(plain: Plain, /) -> Finding:
    return met("{n}", n=plain.n)


def all_at_once(*plain: Plain) -> Finding:
    return met("{n}", n=len(plain))


READING: Any = Reading

REFUSED = {
    "nothing": by(),
    "a mode that is none": by(n=Annotated[Card, "every"]),
    "only a return": by(**{"return": Finding}),
    "a plain type": by(n=int),
    "a number": by(n=3),
    "a list": by(n=list[Plain]),
    "a fact or None": by(n=Plain | None),
    "a Known alone": by(n=Known[Plain]),
    "an Absent alone": by(n=Absent),
    "two facts": by(n=Plain | Other),
    "two readings": by(n=Known[Plain] | Known[Other] | Absent),
    "a GPU's fact without Each or Some": by(n=Card),
    "the reading of a GPU's fact": by(n=READING[Card]),
    "each reading": by(n=Annotated[Known[Card] | Absent, "each"]),
    "each of the host": by(n=Each[Plain]),
    "some of the host": by(n=Some[Plain]),
    "a pair without its back": by(n=Each[Peer]),
    "a pair alone": by(n=Both[Peer]),
    "both of the host": by(n=Both[Plain]),
    "both of a GPU": by(n=Each[Both[Card]]),
    "each and some": by(n=Each[Card], m=Some[Card]),
    "GPUs and pairs": by(n=Each[Card], m=Each[Both[Peer]]),
    "GPUs and their inventories": by(n=Each[Card], m=Some[Bridges]),
}
ACCEPTED_YET = {
    "each of some": by(n=Each[Some[Card]]),
    "no fact in particular": by(n=Fact),
    "a parameter without annotation": unannotated,
    "a parameter by place": by_place,
    "any number of facts": all_at_once,
}


@pytest.mark.parametrize(
    "function",
    [
        *(pytest.param(function, id=name) for name, function in REFUSED.items()),
        *(pytest.param(function, id=name) for name, function in ACCEPTED_YET.items()),
    ],
)
def test_rule_refuses(function: Requirement) -> None:
    with pytest.raises(TypeError):
        rule(function)


# --- tracks, by their tables -------------------------------------------------------------------------


def proven(trial: Trial) -> Finding:
    return [met("it works"), unmet("it broke"), undecided("who knows")][trial.n]


def also_proven(trial: Trial) -> Finding:
    return met("{n}", n=trial.n)


def claim(plain: Plain) -> Finding:
    return [met("yes"), unmet("no"), undecided("perhaps")][plain.n]


def paper(other: Other) -> Finding:
    return [met("no objection"), unmet("documented not to work"), undecided("unclear")][other.n]


def absence(plain: Known[Plain] | Absent) -> Finding:
    return met("yes") if isinstance(plain, Known) else unmet("not read")


NO, DOUBT = Verdict.NO_GO, Verdict.UNKNOWN
Table = dict[Layer, list[Requirement]]
PROVEN: Table = {Layer.PROOF: [proven]}


@pytest.mark.parametrize(
    ("tables", "why"),
    [
        ({"needs": {}}, "no proof among the needs"),
        ({"needs": {Layer.PROOF: [claim]}}, "no proof among the needs"),
        ({"needs": {}, "wants": PROVEN}, "no proof among the needs"),
        ({"needs": {}, "notes": PROVEN}, "no proof among the needs"),
        ({"needs": {Layer.PROOF: [proven, proven]}}, "proven is listed twice"),
        ({"needs": {**PROVEN, Layer.KERNEL: [proven]}}, "proven is listed twice"),
        ({"needs": PROVEN, "wants": PROVEN}, "proven is listed twice"),
        ({"needs": PROVEN, "notes": {Layer.DRIVER: [proven]}}, "proven is listed twice"),
        ({"needs": PROVEN, "expects": {proven: [paper, paper]}}, "paper is listed twice"),
        ({"needs": PROVEN, "notes": {Layer.DRIVER: [paper]}, "expects": {proven: [paper]}}, "paper is listed twice"),
        (
            {"needs": {Layer.PROOF: [proven, also_proven]}, "expects": {proven: [paper], also_proven: [paper]}},
            "paper is listed twice",
        ),
        ({"needs": PROVEN, "expects": {also_proven: [paper]}}, "also_proven has paper and is no proof here"),
        ({"needs": {Layer.PROOF: [proven, claim]}, "expects": {claim: [paper]}}, "claim has paper and is no proof"),
        (
            {"needs": PROVEN, "notes": {Layer.KERNEL: [also_proven]}, "expects": {also_proven: [paper]}},
            "also_proven has paper and is no proof here",
        ),
        ({"needs": PROVEN, "expects": {proven: [also_proven]}}, "also_proven is a proof listed as paper"),
        ({"needs": PROVEN, "gates": {claim: [Layer.PROOF]}}, "claim is a gate and no need"),
        (
            {"needs": PROVEN, "wants": {Layer.KERNEL: [claim]}, "gates": {claim: [Layer.PROOF]}},
            "claim is a gate and no need",
        ),
        (
            {"needs": {**PROVEN, Layer.KERNEL: [absence]}, "gates": {absence: [Layer.PROOF]}},
            "absence is a gate that reads absence",
        ),
    ],
)
def test_track_refuses(tables: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Track(**tables)


@pytest.mark.parametrize("where", ["needs", "wants", "notes"])
def test_track_refuses_what_rule_refuses(where: str) -> None:
    proof = PROVEN if where == "needs" else {}
    tables: dict[str, Any] = {"needs": PROVEN, where: {**proof, Layer.KERNEL: [by(n=int)]}}
    with pytest.raises(TypeError):
        Track(**tables)
    with pytest.raises(TypeError):
        Track(needs=PROVEN, expects={proven: [by(n=int)]})


def test_layers_come_from_the_bottom_up_and_each_keeps_its_order() -> None:
    track = Track(needs={**PROVEN, Layer.HARDWARE: [claim]}, notes={Layer.HARDWARE: [absence]})
    assert [w.rule.id for w in track.weighed] == ["claim", "absence", "proven"]


# --- gates -------------------------------------------------------------------------------------------


def judged(track: Track, **readings: Reading[Fact]) -> TrackJudgement:
    entries = {(name, HOST): reading for name, reading in readings.items()}
    return judge(Readings(entries), {"t": ("?", track)}).tracks[0]


def checks(track: TrackJudgement) -> dict[str, Check]:
    return {check.id: check for layer in track.layers for check in layer.checks}


@pytest.mark.parametrize(
    ("n", "verdict", "beyond"),
    [(0, Verdict.GO, Verdict.GO), (1, Verdict.NO_GO, None), (2, Verdict.UNKNOWN, Verdict.GO)],
)
def test_a_gate_closes_its_layers_only_when_unmet(n: int, verdict: Verdict, beyond: Verdict | None) -> None:
    track = Track(needs={Layer.KERNEL: [claim], **PROVEN}, gates={claim: [Layer.PROOF]})
    found = judged(track, plain=known(Plain, n), trial=known(Trial, 0))
    assert found.state == State(verdict)
    assert found.layers[1].state == (State(beyond) if beyond else None)
    assert found.breaks_at is (Layer.KERNEL if n else None)


def test_a_closed_gate_says_so_and_silences_paper() -> None:
    track = Track(needs={Layer.KERNEL: [claim], **PROVEN}, gates={claim: [Layer.PROOF]}, expects={proven: [paper]})
    found = judged(track, plain=known(Plain, 1), other=known(Other, 1))
    check = checks(found)["proven"]
    assert check.finding.status is Status.NOT_APPLICABLE
    assert check.finding.text == "does not arise: no"
    assert check.papers == ()
    assert found.state == State(Verdict.NO_GO)


def test_a_gate_over_its_own_layer_still_weighs() -> None:
    """`gates` makes "the rest of the named layers" not applicable, or Track refuses it."""
    try:
        track = Track(needs={Layer.KERNEL: [claim], **PROVEN}, gates={claim: [Layer.KERNEL, Layer.PROOF]})
    except ValueError:
        return
    assert judged(track, plain=known(Plain, 1)).state == State(Verdict.NO_GO)


@pytest.mark.parametrize("standing", Standing)
@pytest.mark.parametrize("n", range(3))
def test_only_a_proof_that_was_tried_counts_as_proven(standing: Standing, n: int) -> None:
    track = judged(Track(needs=PROVEN), trial=known(Trial, n, standing))
    is_proven = n == 0 and standing is Standing.TRIED
    assert track.unproven == (() if is_proven else ("proven",))
    assert track.state == State(Verdict.GO if is_proven else NO if n == 1 else DOUBT)


# --- paper -------------------------------------------------------------------------------------------

ABSENT = Absent(cause=Cause.SKIPPED)


@pytest.mark.parametrize(
    ("trial", "need", "want", "role"),
    [
        (ABSENT, State(NO, expected=True), State(Verdict.DEGRADED, expected=True), "speaks"),
        (known(Trial, 2), State(NO, expected=True), State(Verdict.DEGRADED, expected=True), "speaks"),
        (known(Trial, 0), State(Verdict.GO), State(Verdict.GO), "refuted"),
        (known(Trial, 1), State(NO), State(Verdict.DEGRADED), "silent"),
        (known(Trial, 0, Standing.REPORTED), State(DOUBT), State(Verdict.DEGRADED), "silent"),
        (known(Trial, 1, Standing.REPORTED), State(NO), State(Verdict.DEGRADED), "silent"),
    ],
)
@pytest.mark.parametrize("objection", [0, 1, 2, None])
def test_paper_speaks_only_while_its_proof_is_undecided(
    trial: Reading[Fact], need: State, want: State, role: Role, objection: int | None
) -> None:
    entries: Entries = {("trial", HOST): trial, ("other", HOST): ABSENT}
    entries |= {("cards", HOST): known(Cards, 1), ("card_trial", "gpu0"): known(CardTrial, 0)}
    if objection is not None:
        entries["other", HOST] = known(Other, objection)
    tables: list[tuple[State, State, dict[str, Table]]] = [
        (need, State(DOUBT), {"needs": PROVEN}),
        (want, State(Verdict.DEGRADED), {"needs": {Layer.HARDWARE: [passed]}, "wants": PROVEN}),
    ]
    for objected, without, table in tables:
        track = Track(**table, expects={proven: [paper]})  # type: ignore[arg-type] # needs and wants
        found = judge(Readings(entries), {"t": ("?", track)}).tracks[0]
        check = checks(found)["proven"]
        assert [p.role for p in check.papers] == [role if objection == 1 else "silent"]
        assert check.state == (objected if objection == 1 or role != "speaks" else without)
        assert found.state == check.state


def passed(trial: Some[CardTrial]) -> Finding:
    return met("{n}", n=trial.n)


def test_reported_success_is_shown_as_such() -> None:
    found = checks(judged(Track(needs=PROVEN), trial=known(Trial, 0, Standing.REPORTED)))["proven"]
    assert found.finding.text == "reported to work, not tried here: it works"
    assert (found.finding.status, found.standing) == (Status.UNDECIDED, Standing.REPORTED)


def states(track: TrackJudgement) -> dict[str, State | None]:
    layers = {layer.layer.value: layer.state for layer in track.layers}
    return {"": track.state, **layers, **{name: check.state for name, check in checks(track).items()}}


@MANY
@given(cases(), snapshots())
def test_paper_never_makes_anything_better(case: Case, entries: Entries) -> None:
    track, plain = (judge(Readings(entries), {"t": ("?", t)}).tracks[0] for t in (case.track, case.plain))
    with_paper, alone = states(track), states(plain)
    assert set(alone) <= set(with_paper)
    for name, without in alone.items():
        state = with_paper[name]
        assert without is None or state is not None
        if state and without:
            assert not without.expected
            assert state.verdict.severity >= without.verdict.severity
            # Undecided paper in a layer of its own counts there as its undecided proof.
            doubtful = {
                c.layer.value for c in checks(track).values() if c.predicts and c.state and not c.state.expected
            }
            assert state.expected or state == without or name in doubtful


@MANY
@given(cases(), snapshots())
def test_expected_means_that_nothing_but_paper_made_it_that_bad(case: Case, entries: Entries) -> None:
    track = judge(Readings(entries), {"t": ("?", case.track)}).tracks[0]
    for state, among in (
        (track.state, list(checks(track).values())),
        *((layer.state, list(layer.checks)) for layer in track.layers),
    ):
        guilty = [c for c in among if state and c.state and c.state.verdict is state.verdict]
        blamed = [
            (c.predicts and c.finding.status is Status.UNMET) or any(p.role == "speaks" for p in c.papers)
            for c in guilty
        ]
        if state and (guilty or state.expected):
            assert state.expected == all(blamed)
        if state and state.expected:
            assert guilty
            assert state.verdict in (Verdict.NO_GO, Verdict.DEGRADED)
            assert all(c.predicts or c.finding.status is Status.UNDECIDED for c in guilty)


@MANY
@given(cases(), snapshots())
def test_each_paper_plays_its_role(case: Case, entries: Entries) -> None:
    readings = Readings(entries)
    for name, check in checks(judge(readings, {"t": ("?", case.track)}).tracks[0]).items():
        if check.predicts:
            continue
        proof = find(rule(case.specs[name].function()), readings)
        status, is_reported = proof.finding.status, proof.standing is Standing.REPORTED
        roles: dict[Status, Role] = {Status.UNDECIDED: "speaks", Status.MET: "silent" if is_reported else "refuted"}
        for one in check.papers:
            objects = find(rule(case.specs[one.id].function()), readings).finding.status is Status.UNMET
            assert one.role == (roles.get(status, "silent") if objects else "silent")
