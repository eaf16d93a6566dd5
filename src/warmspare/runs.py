"""Measured runs of this machine that are kept to compare with, and the key that says which machine it is.

A run's file may come from another boot of the machine, by way of a person: it is read as strictly as a snapshot.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from warmspare import state
from warmspare.control.files import Replacement
from warmspare.model.facts import Absent, Cause, Known, Reading, Readings, Standing
from warmspare.probes.gpus import Gpus
from warmspare.probes.kernel import Kernel
from warmspare.probes.platform import Container, Platform
from warmspare.trials.speed import HostSpeed, NativeRun, SpeedRun

SIZE_LIMIT: Final = 65_536
"""The largest file that is read, in bytes. Real ones are under 8 KiB."""
FORMAT: Final = "warmspare-run"
UUID: Final = re.compile(r"GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(?![\s\S])", re.IGNORECASE)
CPU: Final = ("model name", "CPU implementer", "CPU part")
"""What /proc/cpuinfo says of the model: the first on x86, the others on ARM."""


class BadRun(Exception):
    """The file is no run that can be compared with; the message is one line that says why."""


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: Literal["warmspare-run"]
    version: Annotated[int, msgspec.Meta(ge=1, le=1)]
    run: SpeedRun


def cpu_model(cpuinfo: str) -> str:
    """The model of the first CPU, by the text of /proc/cpuinfo; empty where it names none."""
    first = cpuinfo.split("\n\n", 1)[0]
    told = dict(re.findall(r"^([^\t:]+?)\s*: *(.*?)\s*$", first, re.MULTILINE))
    return " ".join(told[name] for name in CPU if told.get(name))


def machine_key(cpu: str, gpus: Iterable[str]) -> str | None:
    """The machine's key, or None without a GPU's UUID: a CPU's model alone is many machines.

    The same under Linux, Windows and WSL2, which all show these as the hardware has them. A digest: UUIDs that
    nobody knows are too many to be tried, but who knows a machine's can confirm that a key is its own.
    """
    uuids = sorted({gpu.lower() for gpu in gpus if UUID.match(gpu)})
    if not uuids:
        return None
    return hashlib.sha256("\n".join(("warmspare machine", cpu, *uuids)).encode()).hexdigest()[:16]


def key_of(readings: Readings) -> str | None:
    """The key of the machine that was read; of readings that are not redacted, since pseudonyms differ by boot."""
    found = readings.get(Gpus)
    if not isinstance(found, Known):
        return None
    return machine_key(cpu_model(_text(Path("/proc/cpuinfo"))), found.value.ids)


def made(readings: Readings, key: str, speed: HostSpeed, at: datetime) -> SpeedRun:
    """The run to keep: where it ran by these readings, and what was measured."""
    platform, inside, kernel = readings.get(Platform), readings.get(Container), readings.get(Kernel)
    return SpeedRun(
        key=key,
        at=at,
        kernel=kernel.value.release[:200] if isinstance(kernel, Known) else None,
        kind=platform.value.kind if isinstance(platform, Known) else None,
        in_container=inside.value.inside if isinstance(inside, Known) else None,
        speed=speed,
    )


def encode(run: SpeedRun) -> bytes:
    """The run's file."""
    file = _File(format=FORMAT, version=1, run=run)
    return msgspec.json.format(msgspec.json.encode(file), indent=1) + b"\n"


def decode(data: bytes) -> SpeedRun:
    """Read a run's file.

    Raises:
        BadRun: truncated, foreign, of another version, or not what the schema says.
    """
    if len(data) > SIZE_LIMIT:
        message = f"over {SIZE_LIMIT // 1024} KiB: no stored run is that large"
        raise BadRun(message)
    try:
        run = msgspec.json.decode(data, type=_File).run
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise BadRun(" ".join(ascii(str(error))[1:-1].split())[:200]) from None
    if run.speed.outcome.kind != "done" or not run.speed.measures:
        message = "it holds no figures"
        raise BadRun(message)
    return run


def path_of(key: str, where: Path, *, native: bool) -> Path:
    """Where the run of a machine is kept; the native one has a place of its own."""
    return where / f"{'native' if native else 'guest'}-{key}.json"


def store(run: SpeedRun, where: Path) -> Path:
    """Keep a run, in place of an older one.

    Raises:
        OSError, Unwritable: the folder cannot be made or written, or is not ours alone.
    """
    state.own(where)
    path = path_of(run.key, where, native=run.is_native)
    Replacement(path, mode=0o600).commit(encode(run))
    return path


def kept(key: str, where: Path, *, native: bool) -> SpeedRun | None:
    """The run that is kept of this machine, or None.

    Raises:
        OSError: it cannot be read, or stands in a folder that is not ours alone.
        BadRun: it is not what it should be.
    """
    path = path_of(key, where, native=native)
    try:
        state.check_ours(where)
        with path.open("rb") as file:
            run = decode(file.read(SIZE_LIMIT + 1))
    except FileNotFoundError:
        return None
    if run.key != key or run.is_native is not native:
        message = f"{path.name} holds a run that is {run.called}, of machine {run.key}"
        raise BadRun(message)
    return run


def native_run(readings: Readings, where: Path) -> Reading[NativeRun]:
    """The stored native run of the machine that was read, as a fact of a survey."""
    try:
        key = key_of(readings)
        run = kept(key, where, native=True) if key else None
    except PermissionError as error:
        return Absent(cause=Cause.DENIED, detail=str(error)[:200])
    except (OSError, BadRun) as error:
        return Absent(cause=Cause.INVALID, detail=str(error)[:200])
    return Known(value=NativeRun(key=key, stored=run), standing=Standing.OBSERVED, at=datetime.now(UTC))


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")
