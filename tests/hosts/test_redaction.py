"""Redaction takes names out and nothing else: hostile names change neither a verdict nor a replay."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import pytest

from warmspare import catalogue
from warmspare.host.recorded import RecordedHost
from warmspare.judge import judge
from warmspare.model.facts import Known
from warmspare.model.redact import Identities, redact
from warmspare.model.snapshot import Reader, Snapshot
from warmspare.probes.api import collect

HERE: Final = Path(__file__).parent
HOSTS: Final = ("vm-container-no-gpu", "vm-container-ordinary-user", "synthetic-wsl2-mirrored-two-gpus", "h100")
TRACKS: Final = catalogue.tracks()
PROBES: Final = catalogue.probes()
HOSTILE: Final = (
    "admin", "unix", "dev", "proc", "sys", "kernel", "check", "all", "self", "status", "cgroup", "class", "id", "list",
    "criu", "nvidia", "packet", "netlink", "dxg", "wsl", "memory", "checkpoint", "restore", "ptrace", "nvml", "pci",
)  # fmt: skip


class Made(NamedTuple):
    """A recording as it was before redaction, and what it comes to."""

    snapshot: Snapshot
    verdicts: list[Any]
    replayed: dict[tuple[str, str], bool]


@pytest.fixture(scope="module")
def made() -> dict[str, Made]:
    """Each host, judged and replayed once."""
    snapshots = {name: unredacted(name) for name in HOSTS}
    return {name: Made(one, verdicts(one), replayed(one)) for name, one in snapshots.items()}


def unredacted(name: str) -> Snapshot:
    snapshot = Reader(catalogue.facts()).read((HERE / f"{name}.json").read_bytes())
    return msgspec.structs.replace(snapshot, redacted=False)


def verdicts(snapshot: Snapshot) -> list[Any]:
    """Every track's and check's verdict."""
    judged = judge(snapshot.readings, TRACKS).tracks
    return [(t.id, t.state, [(c.id, c.finding.status, c.state) for x in t.layers for c in x.checks]) for t in judged]


def replayed(snapshot: Snapshot) -> dict[tuple[str, str], bool]:
    """Which facts a replay knows."""
    readings = collect(RecordedHost(snapshot.transcript), PROBES)
    return {key: isinstance(reading, Known) for key, reading in readings.items()}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("host", HOSTS)
def test_a_user_and_a_host_of_our_own_words_change_nothing(made: dict[str, Made], host: str, name: str) -> None:
    before = made[host]
    for who in (
        Identities(hosts=(name,), users=(), key=b"k"),
        Identities(hosts=(), users=(name,), key=b"k"),
        Identities(hosts=(), users=(), homes=(f"/{name}/vault", "/data"), key=b"k"),
    ):
        clean = redact(before.snapshot, who)
        assert verdicts(clean) == before.verdicts
        assert replayed(clean) == before.replayed
