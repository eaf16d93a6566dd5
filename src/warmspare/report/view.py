"""The view: a judgement as the plain, clean text that every format shows."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec

from warmspare.model.facts import Absent, Known
from warmspare.model.findings import Status
from warmspare.model.requirements import Rule
from warmspare.model.snapshot import Snapshot
from warmspare.model.transcript import Call, Failed, Gave, Listed, Ran, Said
from warmspare.model.verdicts import Check, Judgement, LayerJudgement, State, TrackJudgement, Verdict
from warmspare.probes.driver import Driver
from warmspare.probes.gpus import Gpus
from warmspare.probes.kernel import Kernel
from warmspare.probes.platform import Container, Platform
from warmspare.tracks.api import Remedy

EVIDENCE_LIMIT: Final = 160
EVIDENCE_LINES: Final = 6
BYTE: Final = 0xFF
EXPECTED, REFUTED = "expected to fail", "refuted here"
MARKS: Final = {
    Status.MET: "met",
    Status.UNMET: "unmet",
    Status.UNDECIDED: "undecided",
    Status.NOT_APPLICABLE: "n/a",
}


class CheckView(msgspec.Struct, frozen=True, kw_only=True):
    """One check: what it found (of each subject, where they differ), how that is known, what to do, its evidence."""

    id: str
    weight: str
    mark: str
    text: str
    known_by: str | None
    remedy: str | None
    why: str
    papers: tuple[str, ...]
    parts: tuple[str, ...]
    evidence: tuple[str, ...]


class LayerView(msgspec.Struct, frozen=True, kw_only=True):
    """One layer of a track: its own verdict and the one sentence that explains it."""

    layer: str
    verdict: str
    text: str
    checks: tuple[CheckView, ...]


class TrackView(msgspec.Struct, frozen=True, kw_only=True):
    """One track: the headline, what to do about it, and its layers from the bottom up."""

    id: str
    question: str
    verdict: str
    breaks_at: str | None
    headline: str
    remedy: str | None
    layers: tuple[LayerView, ...]


class View(msgspec.Struct, frozen=True, kw_only=True):
    """A whole report."""

    title: str
    made: str
    tracks: tuple[TrackView, ...]
    exit_code: int


def view(
    snapshot: Snapshot,
    judgement: Judgement,
    rules: Mapping[str, Rule],
    remedies: Mapping[str, Remedy],
    *,
    brief: bool = False,
) -> View:
    """Render a judgement into words, once for all formats; `brief`: the headlines alone, without layers."""
    maker = _Maker(snapshot, rules, remedies, brief=brief)
    return View(
        title=_title(snapshot),
        made=clean(f"{_utc(snapshot.made_at)} by {snapshot.made_by}"),
        tracks=tuple(maker.track(track) for track in judgement.tracks),
        exit_code=judgement.exit_code,
    )


def clean(text: str) -> str:
    """Text that cannot steer a terminal: control, formatting and bidirectional characters are shown as escapes."""
    return text if text.isprintable() else "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(character: str) -> str:
    if character in "\n\t\r\u00a0":
        return " "
    number = ord(character)
    return f"\\x{number:02x}" if number <= BYTE else f"\\u{number:04x}"


def label(state: State) -> str:
    """A state as it is shown, such as `NO-GO expected`."""
    return f"{state.verdict.value}{' expected' if state.expected else ''}"


def _unweighed(layer: LayerJudgement) -> str:
    """What stands for the verdict of a layer in which nothing weighs."""
    return "n/a" if all(c.finding.status is Status.NOT_APPLICABLE for c in layer.checks) else "noted"


def _utc(moment: datetime) -> str:
    """A time in UTC; one without a zone, or at the calendar's very ends, as it stands."""
    if moment.tzinfo is None:
        return f"{moment:%Y-%m-%d %H:%M:%S}"
    with contextlib.suppress(OverflowError):
        moment = moment.astimezone(UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S} {moment.tzname()}"


def _title(snapshot: Snapshot) -> str:
    parts = []
    readings = snapshot.readings
    if isinstance(platform := readings.get(Platform), Known):
        on = f" on {platform.value.hypervisor}" if platform.value.hypervisor else ""
        parts.append(f"{platform.value.kind}{on}")
    if isinstance(container := readings.get(Container), Known) and container.value.inside:
        parts.append(f"container ({container.value.engine})")
    if isinstance(kernel := readings.get(Kernel), Known):
        parts.append(f"kernel {kernel.value.release}")
    match readings.get(Gpus):
        case Known(value=gpus):
            parts.append(f"{gpus.count or 'no'} NVIDIA GPU{'s' if gpus.count > 1 else ''}")
        case Absent():
            parts.append("GPUs not known")
    if isinstance(driver := readings.get(Driver), Known) and driver.value.kernel_version:
        parts.append(f"driver {driver.value.kernel_version}")
    return clean(", ".join(parts))


class _Maker:
    def __init__(
        self, snapshot: Snapshot, rules: Mapping[str, Rule], remedies: Mapping[str, Remedy], *, brief: bool
    ) -> None:
        self.snapshot, self.rules, self.remedies, self.brief = snapshot, rules, remedies, brief
        self._seen: dict[int, str] = {}

    def track(self, track: TrackJudgement) -> TrackView:
        decisive = track.decisive
        remedy = self._remedy(decisive) if decisive else None
        return TrackView(
            id=track.id,
            question=clean(track.question),
            verdict=label(track.state),
            breaks_at=track.breaks_at.value if track.breaks_at else None,
            headline=self._headline(track, decisive),
            remedy=remedy,
            layers=() if self.brief else tuple(self._layer(layer) for layer in track.layers),
        )

    def _headline(self, track: TrackJudgement, decisive: Check | None) -> str:
        if decisive is not None:
            said = self._papers(decisive, "speaks") or [self._text(decisive)]
            return clean(f"{decisive.layer.value}: {said[0]}")
        if track.unproven:
            return clean(f"not proven: {', '.join(track.unproven)}")
        return "everything it needs was tried here and works"

    def _layer(self, layer: LayerJudgement) -> LayerView:
        text = self._text(layer.checks[0])
        if layer.state and layer.state.verdict is Verdict.GO:
            weighing = [check for check in layer.checks if check.state]
            needed = [c for c in weighing if c.weight == "needs" or len(weighing) == 1]
            shown = [c for c in weighing if c.proof] or needed
            text = self._text(shown[0]) if shown else f"met: {', '.join(check.id for check in weighing)}"
        elif layer.state:
            worst = next(c for c in layer.checks if c.state == layer.state)
            text = (self._papers(worst, "speaks") or [self._text(worst)])[0]
        return LayerView(
            layer=layer.layer.value,
            verdict=label(layer.state) if layer.state else _unweighed(layer),
            text=clean(text),
            checks=tuple(self._check(check) for check in layer.checks),
        )

    def _check(self, check: Check) -> CheckView:
        rule = self.rules[check.id]
        return CheckView(
            id=check.id,
            weight=check.weight,
            mark=MARKS[check.finding.status],
            text=clean(self._text(check)),
            known_by=check.standing.value if check.standing else None,
            remedy=self._remedy(check),
            why=clean(rule.why.split("\n\n")[0]),
            papers=tuple(clean(text) for text in (*self._papers(check, "speaks"), *self._papers(check, "refuted"))),
            parts=tuple(clean(text) for text in _parts(check)),
            evidence=self._evidences(check.refs),
        )

    def _text(self, check: Check) -> str:
        said = {"speaks": f"{EXPECTED}: ", "refuted": f"{REFUTED}: "}.get(check.role or "", "")
        return said + check.finding.text

    def _papers(self, check: Check, role: str) -> list[str]:
        said = {"speaks": EXPECTED, "refuted": REFUTED}[role]
        mine = [p for p in check.papers if p.role == role and p.layer is check.layer]
        return [f"{said}: {p.finding.text} [{p.id}]" for p in mine]

    def _remedy(self, check: Check) -> str | None:
        named = [p.finding.remedy for p in check.papers if p.role == "speaks"] + [check.finding.remedy]
        remedy = next((self.remedies[name] for name in named if name and name in self.remedies), None)
        return clean(remedy.do) if remedy else None

    def _evidences(self, refs: tuple[int, ...]) -> tuple[str, ...]:
        """The answers it rests on; the rest of a long list stands in the snapshot."""
        shown = refs if len(refs) <= EVIDENCE_LINES else refs[: EVIDENCE_LINES - 1]
        more = (f"… and {len(refs) - len(shown)} more answers in the snapshot",) if len(shown) < len(refs) else ()
        return (*(self._evidence(ref) for ref in shown), *more)

    def _evidence(self, ref: int) -> str:
        if ref not in self._seen:
            self._seen[ref] = clean(_told(self.snapshot.transcript[ref]))
        return self._seen[ref]


def _parts(check: Check) -> list[str]:
    """What each subject says, those that say the same together; nothing where all say the same."""
    said: dict[str, list[str]] = {}
    for part in check.parts:
        said.setdefault(f"{MARKS[part.finding.status]}: {part.finding.text}", []).append(part.subject)
    return [f"{', '.join(subjects)}: {text}" for text, subjects in said.items()] if len(said) > 1 else []


def _told(call: Call) -> str:
    asked = " ".join((call.verb, *call.args))
    match call.answer:
        case Said(text):
            said = re.sub(r"\s+", " ", text).strip()
        case Listed(names):
            said = " ".join(names)
        case Ran(status=status, stdout=out, stderr=err):
            said = f"status {status}: {' '.join((out + err).split())}"
        case Gave(value):
            said = msgspec.json.encode(value).decode()
        case Failed(cause=cause, detail=detail):
            said = f"{cause.value if cause else 'not there'}: {detail}"
    told = f"{asked} → {said}"
    return told if len(told) <= EVIDENCE_LIMIT else f"{told[: EVIDENCE_LIMIT - 1]}…"
