"""What the host's measured speed says, alone and against a stored native run of the same machine."""

from __future__ import annotations

from typing import Final

from warmspare.model.facts import Absent, Reading
from warmspare.model.findings import Finding, Value, met, undecided
from warmspare.tracks.shared import broken
from warmspare.trials.speed import HostSpeed, NativeRun, SpeedRun, geometric_mean, pairs, within

OF_NATIVE: Final = (
    "{mean:.2f} of bare metal: the geometric mean of {count} figures against the native run of {when} of this machine"
    " (key {key}); {figures}; within this host: {ratios}"
)
NOTHING_SAID: Final = "nothing is said of bare metal"
NO_NATIVE: Final = (
    f"{{figures}}; within this host: {{ratios}}; no native run of this machine (key {{key}}) is stored: {NOTHING_SAID}"
)
NO_KEY: Final = (
    "{figures}; within this host: {ratios}; no GPU named its UUID, so nothing proves which machine this is:"
    f" {NOTHING_SAID}"
)
OTHER: Final = (
    "{figures}; within this host: {ratios}; the stored run is {called}, of the machine {theirs}, and this is {key}:"
    f" {NOTHING_SAID}"
)
NOTHING_SHARED: Final = (
    "{figures}; within this host: {ratios}; the native run of {when} of this machine (key {key}) shares no figure"
    f" with this one: {NOTHING_SAID}"
)
UNREAD: Final = (
    "{figures}; within this host: {ratios}; whether a native run of this machine is stored is not known ({detail}):"
    f" {NOTHING_SAID}"
)


def host_speed_is_known(speed: HostSpeed, native: Reading[NativeRun]) -> Finding:
    """A fraction of bare metal is honest only against the same machine, booted natively; else figures stand alone.

    Source: Phoronix compared one machine with itself; its figure does not carry over to another.
    """
    if failed := broken(speed):
        return failed
    figures, ratios = tuple(one.text for one in speed.measures), within(speed)
    if isinstance(native, Absent):
        detail = native.detail or native.cause.value
        return undecided(UNREAD, figures=figures, ratios=ratios, detail=detail, cause=native.cause)
    said: dict[str, Value] = {"figures": figures, "ratios": ratios}
    key, run = native.value.key, native.value.stored
    if key is None:
        return met(NO_KEY, **said)
    return met(NO_NATIVE, **said, key=key) if run is None else _compared(speed, run, {**said, "key": key})


def _compared(speed: HostSpeed, run: SpeedRun, said: dict[str, Value]) -> Finding:
    if run.key != said["key"] or not run.is_native:
        return met(OTHER, **said, called=run.called, theirs=run.key)
    when, found = f"{run.at:%Y-%m-%d}", pairs(run.speed, speed)
    if not found:
        return met(NOTHING_SHARED, **said, when=when)
    return met(OF_NATIVE, **said, mean=round(geometric_mean(found), 4), count=len(found), when=when)
