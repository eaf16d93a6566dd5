"""Tracks: which requirements a recovery technique needs, wants or notes, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from warmspare.model.requirements import Mode, Requirement, Rule, rule

Weight = Literal["needs", "wants", "notes"]
Table = Mapping["Layer", Sequence[Requirement]]
Papers = Mapping[Requirement, Sequence[Requirement] | Table]


class Layer(StrEnum):
    """The layers of the stack, from the bottom up; a report shows each one's own state."""

    HARDWARE = "hardware"
    PLATFORM = "platform"
    KERNEL = "kernel"
    PRIVILEGES = "privileges"
    CRIU = "criu"
    DRIVER = "driver"
    ENGINE = "engine"
    PROOF = "proof"


@dataclass(frozen=True)
class PlacedPaper:
    """A rule that predicts a proof, and the layer in which the stack would break if it is right."""

    rule: Rule
    layer: Layer


@dataclass(frozen=True)
class Weighed:
    """A rule in its place: the layer, the weight, and the paper that predicts it."""

    rule: Rule
    layer: Layer
    weight: Weight
    papers: tuple[PlacedPaper, ...] = ()


@dataclass(frozen=True)
class Track:
    """What a recovery technique asks of a machine. Its id is the file's name, its question the docstring.

    Args:
        needs: unmet is NO-GO, undecided is UNKNOWN. At least one must be a proof.
        wants: unmet or undecided is DEGRADED.
        notes: shown, never weighs.
        expects: by proof, what predicts its failure: documented claims, known issues, and everything
            static that a passing proof would contradict. It speaks only while that proof is undecided,
            in the proof's own layer or in the one it is listed under.
        gates: a need that, when unmet, makes the rest of the named layers not applicable.

    Raises:
        ValueError: the tables contradict each other or the laws of the design.
    """

    needs: Table
    wants: Table = field(default_factory=dict)
    notes: Table = field(default_factory=dict)
    expects: Papers = field(default_factory=dict)
    gates: Mapping[Requirement, Sequence[Layer]] = field(default_factory=dict)
    weighed: tuple[Weighed, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Compile the tables and refuse one that no verdict could honestly rest on."""
        weighed = tuple(sorted(self._compile(), key=lambda w: list(Layer).index(w.layer)))
        object.__setattr__(self, "weighed", weighed)
        names = [w.rule.id for w in weighed] + [p.rule.id for w in weighed for p in w.papers]
        needs = {w.rule.function: w.rule for w in weighed if w.weight == "needs"}
        proofs = {w.rule.function for w in weighed if w.rule.is_proof and w.weight != "notes"}
        problems = [
            *(f"{name} is listed twice" for name in sorted({n for n in names if names.count(n) > 1})),
            *(f"{f.__name__} has paper and is no proof here" for f in self.expects if f not in proofs),
            *(f"{p.rule.id} is a proof listed as paper" for w in weighed for p in w.papers if p.rule.is_proof),
            *(f"{f.__name__} is a gate and no need" for f in self.gates if f not in needs),
            *(f"{f.__name__} is a gate that reads absence" for f in self.gates if f in needs
              and any(d.mode is Mode.READING for d in needs[f].dependencies)),
        ]  # fmt: skip
        if not any(r.is_proof for r in needs.values()):
            problems.append("no proof among the needs")
        if problems:
            raise ValueError("; ".join(problems))

    def _compile(self) -> Iterator[Weighed]:
        tables: tuple[tuple[Weight, Table], ...] = (
            ("needs", self.needs),
            ("wants", self.wants),
            ("notes", self.notes),
        )
        for weight, table in tables:
            for layer, functions in table.items():
                for function in functions:
                    yield Weighed(rule(function), layer, weight, tuple(self._papers(function, layer)))

    def _papers(self, proof: Requirement, layer: Layer) -> Iterator[PlacedPaper]:
        listed = self.expects.get(proof, ())
        table = listed if isinstance(listed, Mapping) else {layer: listed}
        yield from (PlacedPaper(rule(paper), where) for where, papers in table.items() for paper in papers)
