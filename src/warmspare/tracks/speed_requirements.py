"""What the host's measured speed says, alone and against a stored native run of the same machine."""

from __future__ import annotations

from typing import Final

from warmspare.model.facts import Absent, Reading
from warmspare.model.findings import Finding, Value, met, undecided
from warmspare.tracks.shared import broken
from warmspare.trials.speed import HostSpeed, NativeRun, SpeedRun, geometric_mean, pairs, within

MATTER: Final = ("cpu_n_threads", "memory_n_threads", "process_start_ms", "disk_write_gb_per_s", "disk_read_gb_per_s")
"""What the sentence shows; `warmspare baseline compare` has a table of all, and a snapshot holds them."""
RATIOS: Final = ("(cpu)", "mnt_c")
"""Of the ratios within the host, those that these words are in."""
OF_NATIVE: Final = (
    "{mean:.2f} of bare metal (geometric mean of {count} figures; native run of {when}, key {key}); {figures}"
)
NOTHING_SAID: Final = "nothing is said of bare metal"
NO_NATIVE: Final = f"{{figures}}; {NOTHING_SAID}: no native run of this machine (key {{key}}) is stored"
NO_KEY: Final = f"{{figures}}; {NOTHING_SAID}: no GPU named its UUID, so nothing proves which machine this is"
OTHER: Final = f"{{figures}}; {NOTHING_SAID}: the stored run is {{called}}, of machine {{theirs}}; this is {{key}}"
NOTHING_SHARED: Final = f"{{figures}}; {NOTHING_SAID}: that of {{when}} (key {{key}}) shares no figure with this one"
UNREAD: Final = f"{{figures}}; {NOTHING_SAID}: whether a native run is stored is not known ({{detail}})"


def host_speed_is_known(speed: HostSpeed, native: Reading[NativeRun]) -> Finding:
    """A fraction of bare metal is honest only against the same machine, booted natively; else figures stand alone.

    Source: Phoronix compared one machine with itself; its figure does not carry over to another.
    """
    if failed := broken(speed):
        return failed
    figures = _told(speed)
    if isinstance(native, Absent):
        detail = native.detail or native.cause.value
        return undecided(UNREAD, figures=figures, detail=detail, cause=native.cause)
    said: dict[str, Value] = {"figures": figures}
    key, run = native.value.key, native.value.stored
    if key is None:
        return met(NO_KEY, **said)
    return met(NO_NATIVE, **said, key=key) if run is None else _compared(speed, run, {**said, "key": key})


def _told(speed: HostSpeed) -> tuple[str, ...]:
    """The figures that matter, and the ratios that say how this host is made; all of them if none of those is there."""
    ratios = tuple(said for said in within(speed) if any(word in said for word in RATIOS))
    figures = tuple(one.text for one in speed.measures if one.name in MATTER)
    return (*(figures or (one.text for one in speed.measures)), *ratios)


def _compared(speed: HostSpeed, run: SpeedRun, said: dict[str, Value]) -> Finding:
    if run.key != said["key"] or not run.is_native:
        return met(OTHER, **said, called=run.called, theirs=run.key)
    when, found = f"{run.at:%Y-%m-%d}", pairs(run.speed, speed)
    if not found:
        return met(NOTHING_SHARED, **said, when=when)
    return met(OF_NATIVE, **said, mean=round(geometric_mean(found), 4), count=len(found), when=when)
