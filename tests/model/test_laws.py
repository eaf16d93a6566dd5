"""The laws of judging, over made-up facts, requirements, tracks and machines."""

import itertools
from collections.abc import Callable, Iterable
from typing import cast

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import (
    ABSENT,
    ACTS,
    EACH,
    SOME,
    Bridges,
    Card,
    Cards,
    Case,
    Entries,
    Peer,
    Plain,
    Spec,
    Trial,
    cases,
    gpus_of,
    index,
    known,
    links_of,
    pairs_of,
    snapshots,
    specs,
)

from warmspare.judge import judge
from warmspare.model.asking import find
from warmspare.model.facts import HOST, Absent, Both, Cause, Known, Readings, Standing, fact_name
from warmspare.model.findings import Finding, Status, met, unmet
from warmspare.model.requirements import Each, Requirement, Some, rule
from warmspare.model.tracks import Layer, Track
from warmspare.model.verdicts import Check, Judgement, State, TrackJudgement, Verdict, fold

MANY = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
FEW = settings(MANY, max_examples=60)
WORST_FIRST = [Verdict.NO_GO, Verdict.UNKNOWN, Verdict.DEGRADED, Verdict.GO]


def judged(track: Track, entries: Entries) -> TrackJudgement:
    return judge(Readings(entries), {"t": ("?", track)}).tracks[0]


def checks(track: TrackJudgement) -> dict[str, Check]:
    return {check.id: check for layer in track.layers for check in layer.checks}


def states(track: TrackJudgement) -> dict[str, State | None]:
    return {"track": track.state, **{layer.layer.value: layer.state for layer in track.layers}}


def ranks(track: TrackJudgement) -> dict[str, int]:
    order = {Verdict.GO: 2, Verdict.DEGRADED: 1, Verdict.UNKNOWN: 0, Verdict.NO_GO: 0}
    return {name: order[state.verdict] if state else 2 for name, state in states(track).items()}


def alone(*needs: Requirement, entries: Entries, wants: tuple[Requirement, ...] = ()) -> dict[str, Check]:
    """The checks of a track that needs these and a proof that is passed."""

    def proven(trial: Trial) -> Finding:
        return met("proven with {n}", n=trial.n)

    track = Track(needs={Layer.PROOF: [proven, *needs]}, wants={Layer.PROOF: list(wants)})
    return checks(judged(track, {("trial", HOST): known(Trial, 0), **entries}))


# --- an oracle for one requirement, written from the design and not from the judge ---------------------

Answer = tuple[Status, Standing | None]
BAD_TO_GOOD = (Status.UNMET, Status.UNDECIDED, Status.MET)


def foretold(spec: Spec, entries: Entries) -> Answer:
    """What the laws say that one requirement comes to, and the weakest standing behind it."""
    if spec.mode is None:
        return asked(spec, entries, HOST)
    kind = next(w.fact.KIND.name for w in spec.wants if w.fact.KIND.name != "host")
    parts = [asked(spec, entries, s) if s else (Status.UNDECIDED, None) for s in listed(kind, entries)]
    inventory = hearsay(kind, entries)
    if not parts:
        return (Status.NOT_APPLICABLE if spec.mode == "each" else Status.UNMET), inventory
    said = {status for status, _ in parts}
    order = BAD_TO_GOOD if spec.mode == "each" else BAD_TO_GOOD[::-1]
    status = next((s for s in order if s in said), Status.NOT_APPLICABLE)
    pick = max if spec.mode == "some" and status is Status.MET else min
    standing = pick((x for s, x in parts if s is status), key=lambda x: x.strength if x else -1)
    some_listed = any(listed(kind, entries))
    return status, Standing.REPORTED if some_listed and inventory is Standing.REPORTED else standing


def hearsay(kind: str, entries: Entries) -> Standing | None:
    """The weakest standing of the inventories: it is the evidence that there is nothing, and else only spoils."""
    cards = entries.get(("cards", HOST))
    if not isinstance(cards, Known):
        return None
    gpus = gpus_of(cast("Cards", cards.value).n) if kind == "link" else []
    found = [cards, *(b for gpu in gpus if isinstance(b := entries.get(("bridges", gpu)), Known))]
    return min((known.standing for known in found), key=lambda s: s.strength)


def listed(kind: str, entries: Entries) -> list[str | None]:
    """The subjects of a kind; None stands for those that an absent inventory would have listed."""
    cards = entries.get(("cards", HOST))
    if not isinstance(cards, Known):
        return [None]
    gpus = gpus_of(cast("Cards", cards.value).n)
    if kind != "link":
        return [*(gpus if kind == "gpu" else pairs_of(len(gpus)))]
    bridges = {gpu: entries.get(("bridges", gpu)) for gpu in gpus}
    named = {g: links_of(g, cast("Bridges", b.value).n) for g, b in bridges.items() if isinstance(b, Known)}
    return [link for gpu in gpus for link in named.get(gpu, (None,))]


def asked(spec: Spec, entries: Entries, subject: str) -> Answer:
    codes, standings, doubtful = [], [], False
    for want in spec.wants:
        about = {"host": [HOST], "pair": [subject, "→".join(subject.split("→")[::-1])]}
        for one in about.get(want.fact.KIND.name, [subject]):
            reading = entries.get((fact_name(want.fact), one))
            if isinstance(reading, Known):
                standings.append(reading.standing)
                codes.append(cast("Plain", reading.value).n)
            elif want.reading:
                codes.append(ABSENT)
                doubtful = True
            else:
                return Status.UNDECIDED, None
    act = spec.table[index(codes)]
    status = Status(act) if act in set(Status) else Status.UNDECIDED
    if doubtful and status in (Status.MET, Status.NOT_APPLICABLE):
        status = Status.UNDECIDED
    return status, min(standings, key=lambda s: s.strength, default=None)


@MANY
@given(specs(), snapshots())
def test_a_requirement_comes_to_what_the_laws_say(spec: Spec, entries: Entries) -> None:
    found = find(rule(spec.function()), Readings(entries))
    assert (found.finding.status, found.standing) == foretold(spec, entries)


# --- the rank law ------------------------------------------------------------------------------------


@MANY
@given(cases(), snapshots())
def test_taking_any_one_reading_away_never_raises_a_rank(case: Case, entries: Entries) -> None:
    before = ranks(judged(case.track, entries))
    for key in entries:
        after = ranks(judged(case.track, {k: r for k, r in entries.items() if k != key}))
        assert all(after[name] <= before[name] for name in before), key


@FEW
@given(cases(), snapshots(), st.data())
def test_taking_readings_away_one_after_another_never_raises_a_rank(
    case: Case, entries: Entries, data: st.DataObject
) -> None:
    readings, before = Readings(entries), ranks(judged(case.track, entries))
    for key in data.draw(st.permutations(list(entries))):
        readings = readings.without(key)
        after = ranks(judge(readings, {"t": ("?", case.track)}).tracks[0])
        assert all(after[name] <= before[name] for name in before), key
        before = after


# --- the weights -------------------------------------------------------------------------------------


@MANY
@given(cases(), snapshots())
def test_no_go_and_no_degraded_without_every_needed_proof_met_by_trying(case: Case, entries: Entries) -> None:
    track = judged(case.track, entries)
    for name, check in checks(track).items():
        if check.weight == "needs" and case.specs[name].is_proof:
            is_tried = foretold(case.specs[name], entries) == (Status.MET, Standing.TRIED)
            is_tried = is_tried and not is_gated(check)
            assert is_tried or track.state.verdict in (Verdict.UNKNOWN, Verdict.NO_GO)
            assert is_tried == (name not in track.unproven)


@MANY
@given(cases(), snapshots())
def test_each_check_weighs_by_its_table_and_the_worst_wins(case: Case, entries: Entries) -> None:
    track = judged(case.track, entries)
    found = checks(track)
    for name, check in found.items():
        status, standing = foretold(case.specs[name], entries)
        if is_gated(check):
            status = Status.NOT_APPLICABLE
        elif check.proof and (status, standing) == (Status.MET, Standing.REPORTED):
            status = Status.UNDECIDED
        assert check.finding.status is status
        if check.predicts:
            assert (check.state and check.state.verdict) is foreseen(found[check.predicts], status)
            continue
        speaks = any(paper.role == "speaks" for paper in check.papers)
        assert (check.state and check.state.verdict) is weighed(check.weight, status, speaks=speaks)
    for layer in track.layers:
        assert (layer.state and layer.state.verdict) is worst(check.state for check in layer.checks)
    unproven = [State(Verdict.UNKNOWN)] if track.unproven else []
    assert track.state.verdict is worst([*unproven, *(layer.state for layer in track.layers)])


def is_gated(check: Check) -> bool:
    return check.finding.sentence.startswith("does not arise")


def foreseen(proof: Check, status: Status) -> Verdict | None:
    """What paper in a layer of its own comes to: as its proof does, while that is undecided."""
    is_open = proof.finding.status is Status.UNDECIDED and not proof.finding.sentence.startswith("reported to work")
    if is_open or Status.UNMET is proof.finding.status or status is Status.MET:
        return weighed(proof.weight, status, speaks=status is Status.UNMET)
    return None


def weighed(weight: str, status: Status, *, speaks: bool) -> Verdict | None:
    if weight == "notes" or status is Status.NOT_APPLICABLE:
        return None
    bad = {"wants": (Verdict.DEGRADED, Verdict.DEGRADED), "needs": (Verdict.NO_GO, Verdict.UNKNOWN)}[weight]
    return {Status.MET: Verdict.GO, Status.UNMET: bad[0], Status.UNDECIDED: bad[0 if speaks else 1]}[status]


def worst(found: Iterable[State | None]) -> Verdict | None:
    verdicts = {state.verdict for state in found if state}
    return next((verdict for verdict in WORST_FIRST if verdict in verdicts), None)


# --- the judgement is a function ---------------------------------------------------------------------


@FEW
@given(cases(), snapshots(), st.data())
def test_the_same_readings_give_the_same_bytes(case: Case, entries: Entries, data: st.DataObject) -> None:
    tracks = {"a": ("?", case.track), "b": ("??", case.plain)}
    one = judge(Readings(entries), tracks)
    shuffled = dict(data.draw(st.permutations(list(entries.items()))))
    for other in (judge(Readings(entries), tracks), judge(Readings(shuffled), tracks)):
        assert other == one
        assert msgspec.json.encode(other) == msgspec.json.encode(one)


STATES = st.builds(State, st.sampled_from(Verdict), st.booleans())


@given(st.lists(STATES), st.lists(STATES))
def test_fold_is_associative_commutative_and_idempotent(some: list[State], others: list[State]) -> None:
    both = fold([*some, *others])
    assert both == fold([*others, *some])
    assert both == fold(state for state in (fold(some), fold(others)) if state)
    assert both == fold([*some, *others, *some])
    if both is None:
        assert not some
        assert not others
    else:
        assert both.verdict is worst([*some, *others])
        assert both.expected == (State(both.verdict) not in [*some, *others])


@given(st.lists(st.sampled_from(Verdict)))
def test_the_exit_code_is_that_of_the_worst_track(verdicts: list[Verdict]) -> None:
    tracks = tuple(
        TrackJudgement(id=f"t{i}", question="?", state=State(v), breaks_at=None, unproven=(), layers=())
        for i, v in enumerate(verdicts)
    )
    codes = {Verdict.NO_GO: 1, Verdict.UNKNOWN: 3, Verdict.DEGRADED: 4, Verdict.GO: 0, None: 0}
    assert Judgement(tracks=tracks).exit_code == codes[worst(map(State, verdicts))]


# --- absence and bugs --------------------------------------------------------------------------------


@MANY
@given(specs(), snapshots(), st.sampled_from(["met", "not_applicable"]), st.sampled_from(Cause))
def test_what_holds_on_an_absent_reading_is_not_believed(spec: Spec, entries: Entries, act: str, cause: Cause) -> None:
    spec = msgspec.structs.replace(spec, table=(act,) * 7)
    absent: Entries = {(fact_name(w.fact), HOST): Absent(cause=cause) for w in spec.wants if w.reading}
    found = find(rule(spec.function()), Readings({**entries, **absent}))
    if absent and (spec.mode is None or found.parts):
        assert found.finding.status is Status.UNDECIDED
        assert all(part.finding.status is Status.UNDECIDED for part in found.parts)


def _stops() -> Finding:
    raise StopIteration


def _recurses() -> Finding:
    return _recurses()


def _asserts() -> Finding:
    raise AssertionError


class _Mute(Exception):
    """An exception that cannot even be printed."""

    def __str__(self) -> str:
        """Fail."""
        raise ValueError


def _mute() -> Finding:
    raise _Mute


BROKEN: dict[str, Callable[[], object]] = {
    "raises": ACTS["raises"],
    "raises StopIteration": _stops,
    "raises AssertionError": _asserts,
    "recurses for ever": _recurses,
    "gives None": lambda: None,
    "gives True": lambda: True,
    "gives a word": lambda: "met",
    "gives a status": lambda: Status.MET,
    "gives the class": lambda: Finding,
    "gives two": lambda: (met("one"), met("two")),
    "forgets a value": ACTS["misfit"],
    "counts places": lambda: met("it holds with {}"),
    "leaves a brace open": lambda: met("it holds with {n", n=1),
    "formats a word as a number": lambda: met("{n:.1f} s", n="long"),
    "formats an unknown as a number": lambda: unmet("{n:.1f} s", n=None),
    "lists numbers": lambda: unmet("{n}", n=cast("tuple[str, ...]", (1, 2))),
}
BUGS = {
    "raises what cannot be printed": _mute,
    "gives an object for a value": lambda: met("{n}", n=cast("str", object())),
    "gives a status that is a word": lambda: Finding(status=cast("Status", "met"), sentence="fine"),
    "gives a status that is none": lambda: Finding(status=cast("Status", "fine"), sentence="fine"),
}
WRONG = [
    *(pytest.param(act, id=name) for name, act in BROKEN.items()),
    *(pytest.param(act, id=name) for name, act in BUGS.items()),
]


@pytest.mark.parametrize("act", WRONG)
def test_a_broken_requirement_is_undecided_under_its_name(act: Callable[[], Finding]) -> None:
    def on_host(plain: Plain) -> Finding:
        return act() if plain.n else met("never")

    def on_each(card: Each[Card]) -> Finding:
        return act() if card.n else met("never")

    def on_some(card: Some[Card]) -> Finding:
        return act() if card.n else unmet("never")

    entries: Entries = {("plain", HOST): known(Plain, 1), ("cards", HOST): known(Cards, 2)}
    entries |= {("card", "gpu0"): known(Card, 0), ("card", "gpu1"): known(Card, 1)}
    for weight, verdict in (("needs", Verdict.UNKNOWN), ("wants", Verdict.DEGRADED)):
        wrong = (on_host, on_each, on_some)
        needs, wants = (wrong, ()) if weight == "needs" else ((), wrong)
        track = alone(*needs, wants=wants, entries=entries)
        for function in wrong:
            check = track[function.__name__]
            assert check.finding.status is Status.UNDECIDED
            assert check.finding.text
            assert check.state == State(verdict)
            assert msgspec.json.encode(check)


# --- the folds, by example ---------------------------------------------------------------------------

FIRST_THREE = ("met", "unmet", "not_applicable", "raises", "raises", "raises", "raises")
EACH_CARD = Spec("each_card", (EACH[0][0],), FIRST_THREE, "each")
SOME_CARD = Spec("some_card", (SOME[0][0],), FIRST_THREE, "some")


@pytest.mark.parametrize("count", range(4))
def test_each_and_some_over_every_mix_of_subjects(count: int) -> None:
    for mix in itertools.product([0, 1, 2, None], repeat=count):
        entries: Entries = {("cards", HOST): known(Cards, count), ("card", "gpu9"): known(Card, 1)}
        entries |= {("card", f"gpu{i}"): known(Card, n) for i, n in enumerate(mix) if n is not None}
        each = "unmet" if 1 in mix else "undecided" if None in mix else "met" if 0 in mix else "not_applicable"
        some = "met" if 0 in mix else "undecided" if None in mix else "unmet" if 1 in mix else "not_applicable"
        assert came(EACH_CARD, entries) == each
        assert came(SOME_CARD, entries) == (some if mix else "unmet")
        del entries["cards", HOST]
        for inventory in ({}, {("cards", HOST): Absent(cause=Cause.DENIED)}):
            assert came(EACH_CARD, {**entries, **inventory}) == "undecided"
            assert came(SOME_CARD, {**entries, **inventory}) == "undecided"


def came(spec: Spec, entries: Entries) -> str:
    return find(rule(spec.function()), Readings(entries)).finding.status.value


@pytest.mark.parametrize("spec", [EACH_CARD, SOME_CARD])
def test_an_empty_inventory_is_itself_the_evidence(spec: Spec) -> None:
    empty = msgspec.structs.replace(cast("Known[Cards]", known(Cards, 0, Standing.OBSERVED)), refs=(3,))
    found = find(rule(spec.function()), Readings({("cards", HOST): empty}))
    assert (found.standing, found.refs) == (Standing.OBSERVED, (3,))


@pytest.mark.parametrize("spec", [EACH_CARD, SOME_CARD])
def test_an_absent_inventory_says_why(spec: Spec) -> None:
    found = find(rule(spec.function()), Readings({("cards", HOST): Absent(cause=Cause.DENIED, refs=(4,))}))
    assert (found.finding.status, found.finding.cause, found.refs) == (Status.UNDECIDED, Cause.DENIED, (4,))


def test_a_pair_carries_both_directions() -> None:
    def both_ways(peer: Some[Both[Peer]]) -> Finding:
        return met("yes") if (peer.there.n, peer.back.n) == (1, 2) else unmet("no")

    entries: Entries = {("cards", HOST): known(Cards, 2), ("peer", "gpu0→gpu1"): known(Peer, 1)}
    assert find(rule(both_ways), Readings(entries)).finding.status is Status.UNDECIDED
    entries["peer", "gpu1→gpu0"] = known(Peer, 2)
    assert find(rule(both_ways), Readings(entries)).finding.status is Status.MET
