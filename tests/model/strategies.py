"""Made-up facts, requirements built from tables, random tracks and random readings."""

import inspect
import itertools
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, cast

import msgspec
from hypothesis import strategies as st

from warmspare.model.facts import (
    HOST,
    Absent,
    Both,
    Cause,
    Fact,
    Kind,
    Known,
    Outcome,
    Proof,
    Reading,
    Standing,
    fact_name,
)
from warmspare.model.findings import Finding, met, not_applicable, undecided, unmet
from warmspare.model.requirements import Each, Requirement, Some
from warmspare.model.tracks import Layer, Track

AT: Final = datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)
LAYERS: Final = (Layer.HARDWARE, Layer.KERNEL, Layer.PROOF)
Key = tuple[str, str]
Entries = dict[Key, Reading[Fact]]


class Cards(Fact, frozen=True, kw_only=True):
    """The inventory of GPUs and of their pairs."""

    n: int


class Bridges(Fact, frozen=True, kw_only=True):
    """One GPU's inventory of links."""

    n: int


def gpus_of(n: int) -> tuple[str, ...]:
    return tuple(f"gpu{i}" for i in range(n))


def pairs_of(n: int) -> tuple[str, ...]:
    return tuple(f"{a}→{b}" for a, b in itertools.combinations(gpus_of(n), 2))


def links_of(gpu: str, n: int) -> tuple[str, ...]:
    return tuple(f"{gpu}/link{i}" for i in range(n))


GPU: Final = Kind("gpu", Cards, lambda cards, _: gpus_of(cast("Cards", cards).n))
PAIR: Final = Kind("pair", Cards, lambda cards, _: pairs_of(cast("Cards", cards).n))
LINK: Final = Kind("link", Bridges, lambda bridges, gpu: links_of(gpu, cast("Bridges", bridges).n), GPU)
Bridges.KIND = GPU


class Plain(Fact, frozen=True, kw_only=True):
    """A fact about the host."""

    n: int


class Other(Fact, frozen=True, kw_only=True):
    """Another fact about the host."""

    n: int


class Trial(Proof, frozen=True, kw_only=True):
    """A proof about the host."""

    n: int


class Card(Fact, frozen=True, kw_only=True):
    """A fact about a GPU."""

    KIND = GPU
    n: int


class CardTrial(Proof, frozen=True, kw_only=True):
    """A proof about a GPU."""

    KIND = GPU
    n: int


class Peer(Fact, frozen=True, kw_only=True):
    """A fact about one direction of a pair."""

    KIND = PAIR
    n: int


class PeerTrial(Proof, frozen=True, kw_only=True):
    """A proof about one direction of a pair."""

    KIND = PAIR
    n: int


class Wire(Fact, frozen=True, kw_only=True):
    """A fact about a link."""

    KIND = LINK
    n: int


FACTS: Final[tuple[type[Fact], ...]] = (
    Cards, Bridges, Plain, Other, Trial, Card, CardTrial, Peer, PeerTrial, Wire,
)  # fmt: skip


class Wants(msgspec.Struct, frozen=True):
    """One parameter of a made-up requirement: the fact, and the annotation that asks for it."""

    fact: type[Fact]
    annotation: Any
    reading: bool = False


_READING: Final[Any] = Reading
ONE: Final = [Wants(f, f) for f in (Plain, Other, Trial)]
READING: Final = [
    Wants(Plain, _READING[Plain], reading=True),
    Wants(Other, _READING[Other], reading=True),
    Wants(Trial, _READING[Trial], reading=True),
]
EACH: Final = [
    [Wants(Card, Each[Card]), Wants(CardTrial, Each[CardTrial])],
    [Wants(Peer, Each[Both[Peer]]), Wants(PeerTrial, Each[Both[PeerTrial]])],
    [Wants(Wire, Each[Wire])],
]
SOME: Final = [
    [Wants(Card, Some[Card]), Wants(CardTrial, Some[CardTrial])],
    [Wants(Peer, Some[Both[Peer]]), Wants(PeerTrial, Some[Both[PeerTrial]])],
    [Wants(Wire, Some[Wire])],
]
ABSENT: Final = 3
"""What an absent reading counts as in a table; a known one counts as its `n`, 0 to 2."""


def index(codes: Iterable[int]) -> int:
    """The place in a table of seven."""
    place = 0
    for code in codes:
        place = (place * 5 + code) % 7
    return place


def codes_of(value: object) -> list[int]:
    """What the facts given to a requirement count as."""
    match value:
        case Both():
            return [*codes_of(value.there), *codes_of(value.back)]
        case Known():
            return codes_of(value.value)
        case Absent():
            return [ABSENT]
    return [cast("Plain", value).n]


def _raises() -> Finding:
    message = "a bug in {this} requirement"
    raise LookupError(message)


ACTS: Final[dict[str, Callable[[], Any]]] = {
    "met": lambda: met("it holds with {n}", n=1),
    "unmet": lambda: unmet("it does not hold: {why}", why=("a", "b")),
    "undecided": lambda: undecided("who knows", cause=Cause.SKIPPED),
    "not_applicable": lambda: not_applicable("no such question"),
    "raises": _raises,
    "nothing": lambda: None,
    "misfit": lambda: met("it holds with {n}"),
}


class Spec(msgspec.Struct, frozen=True):
    """A requirement as data: what it asks for, how it folds, and what it says to each set of facts."""

    name: str
    wants: tuple[Wants, ...]
    table: tuple[str, ...]
    mode: str | None = None

    @property
    def is_proof(self) -> bool:
        """Whether one of its facts is a proof."""
        return any(issubclass(want.fact, Proof) for want in self.wants)

    def function(self) -> Callable[..., Finding]:
        """The requirement itself."""

        def made(**facts: object) -> Finding:
            codes = [code for value in facts.values() for code in codes_of(value)]
            return cast("Finding", ACTS[self.table[index(codes)]]())

        made.__name__ = self.name
        made.__annotations__ = {f"p{i}": w.annotation for i, w in enumerate(self.wants)} | {"return": Finding}
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        signature = inspect.Signature([inspect.Parameter(f"p{i}", kind) for i in range(len(self.wants))])
        made.__dict__["__signature__"] = signature
        return made


CHEERFUL: Final = st.tuples(*[st.sampled_from(["met", "met", "met", "met", "not_applicable", "unmet"])] * 7)
GRIM: Final = st.tuples(*[st.sampled_from(["unmet", "unmet", "unmet", "met", "undecided"])] * 7)
ANY: Final = st.tuples(*[st.sampled_from(sorted(ACTS))] * 7)
HOLDS: Final = st.just(("met",) * 7)
FAILS: Final = st.just(("unmet",) * 7)


@st.composite
def specs(draw: st.DrawFn, name: str = "claim", *, proof: bool | None = None, good: bool = False) -> Spec:
    """A requirement; `proof` says whether it must (not) depend on a proof, `good` that it mostly holds."""
    mode = draw(st.sampled_from([None, None, "each", "some"]))
    host = [w for w in (*ONE, *READING) if proof is not False or not issubclass(w.fact, Proof)]
    least = 0 if mode else 1
    wants = draw(st.lists(st.sampled_from(host), min_size=least, max_size=2, unique_by=lambda w: w.fact))
    if mode:
        menu = draw(st.sampled_from(EACH if mode == "each" else SOME))
        allowed = [w for w in menu if proof is not False or not issubclass(w.fact, Proof)]
        wants += draw(st.lists(st.sampled_from(allowed), min_size=1, max_size=2, unique_by=lambda w: w.fact))
    if proof and not any(issubclass(w.fact, Proof) for w in wants):
        wants.append(draw(st.sampled_from([ONE[2], READING[2]])))
    table = draw(st.one_of(HOLDS, CHEERFUL) if good else st.one_of(CHEERFUL, FAILS, ANY, GRIM))
    return Spec(name, tuple(wants), table, mode)


class Case(msgspec.Struct, frozen=True):
    """A track, the same one without its paper, and the specs behind them by name."""

    track: Track
    plain: Track
    specs: dict[str, Spec]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A track that `Track` accepts: one proof needed, up to five more requirements, paper and gates."""
    good = draw(st.booleans())
    count = draw(st.integers(1, 6))
    made = {f"r{i}": draw(specs(f"r{i}", proof=i == 0 or None, good=good)) for i in range(count)}
    functions = {name: spec.function() for name, spec in made.items()}
    weights: dict[str, dict[Layer, list[Requirement]]] = {"needs": {}, "wants": {}, "notes": {}}
    expects: dict[Requirement, Sequence[Requirement] | dict[Layer, list[Requirement]]] = {}
    gates: dict[Requirement, list[Layer]] = {}
    for (name, function), spec in zip(functions.items(), list(made.values()), strict=True):
        weight = "needs" if name == "r0" else draw(st.sampled_from(["needs", "wants", "wants", "notes"]))
        place = draw(st.integers(0, 2))
        weights[weight].setdefault(LAYERS[place], []).append(function)
        if spec.is_proof and weight != "notes":
            ids = [f"{name}p{i}" for i in range(draw(st.integers(0, 2)))]
            papers = {paper: draw(specs(paper, proof=False)) for paper in ids}
            made |= papers
            said = [paper.function() for paper in papers.values()]
            expects[function] = {draw(st.sampled_from(LAYERS)): said} if draw(st.booleans()) else said
        if weight == "needs" and place < 2 and not any(w.reading for w in spec.wants) and draw(st.booleans()):
            gates[function] = [LAYERS[2]]
    needs, wants, notes = weights.values()
    return Case(
        Track(needs=needs, wants=wants, notes=notes, expects=expects, gates=gates),
        Track(needs=needs, wants=wants, notes=notes, gates=gates),
        made,
    )


def known(fact: type[Fact], n: int, standing: Standing = Standing.TRIED) -> Reading[Fact]:
    """A known reading of a made-up fact."""
    made = cast("Callable[..., Fact]", fact)
    value = made(n=n, outcome=Outcome(kind="done")) if issubclass(fact, Proof) else made(n=n)
    return Known(value=value, standing=standing, at=AT)


@st.composite
def _reads(draw: st.DrawFn, fact: type[Fact], *, rich: bool, top: int = 2) -> Reading[Fact] | None:
    if not rich:
        match draw(st.integers(0, 5)):
            case 0:
                return None
            case 1:
                return Absent(cause=draw(st.sampled_from(list(Cause))))
            case 2 | 3:
                return known(fact, draw(st.integers(0, top)), draw(st.sampled_from(list(Standing))))
    return known(fact, draw(st.integers(0, top)))


@st.composite
def snapshots(draw: st.DrawFn) -> Entries:
    """Readings: each key known with any standing, absent with any cause, or missing; 0 to 4 GPUs.

    Some are of a GPU that no inventory lists: keys of other readings never define subjects.
    """
    rich = draw(st.booleans())
    entries: dict[Key, Reading[Fact] | None] = {}

    def read(subject: str, *facts: type[Fact], top: int = 2) -> int:
        for fact in facts:
            entries[fact_name(fact), subject] = found = draw(_reads(fact, rich=rich, top=top))
        return cast("Plain", found.value).n if isinstance(found, Known) else 2

    gpus = gpus_of(read(HOST, Plain, Other, Trial, Cards, top=4))
    for gpu in (*gpus, "gpu7"):
        for link in links_of(gpu, read(gpu, Card, CardTrial, Bridges)):
            read(link, Wire)
    for a, b in itertools.permutations(gpus, 2):
        read(f"{a}→{b}", Peer, PeerTrial)
    return {key: reading for key, reading in entries.items() if reading is not None}
