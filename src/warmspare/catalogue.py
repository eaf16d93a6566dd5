"""Everything this version knows: facts, probes, trials, tracks, remedies and claims, found by walking."""

from __future__ import annotations

from warmspare import probes as probe_package
from warmspare import tracks as track_package
from warmspare import trials as trial_package
from warmspare.model.facts import Fact, fact_name
from warmspare.model.requirements import Rule
from warmspare.model.tracks import Track
from warmspare.probes import api as probe_api
from warmspare.probes.api import Probe
from warmspare.tracks import api as track_api
from warmspare.trials import api as trial_api
from warmspare.trials.api import Trial

Tracks = dict[str, tuple[str, Track]]
claims = track_api.claims
remedies = track_api.remedies


def probes() -> tuple[Probe, ...]:
    """All probes."""
    return probe_api.discover(probe_package)


def trials() -> tuple[Trial, ...]:
    """All trials."""
    return trial_api.discover(trial_package)


def tracks() -> Tracks:
    """All tracks, as id → (question, track)."""
    return track_api.discover(track_package)


def facts() -> tuple[type[Fact], ...]:
    """Every fact that a snapshot of this version may hold."""
    found = {fact_name(fact): fact for fact in (*(p.fact for p in probes()), *trial_api.proofs(trial_package))}
    return tuple(found[name] for name in sorted(found))


def rules(known: Tracks) -> dict[str, Rule]:
    """Every requirement and every paper of the given tracks, by id."""
    weighed = [w for _, track in known.values() for w in track.weighed]
    return {rule.id: rule for w in weighed for rule in (w.rule, *(p.rule for p in w.papers))}


def trials_of(track: Track, known: tuple[Trial, ...]) -> tuple[Trial, ...]:
    """The trials that a track's requirements rest on."""
    wanted = {dependency.fact for w in track.weighed for dependency in w.rule.dependencies}
    return tuple(trial for trial in known if not wanted.isdisjoint(trial.proofs))
