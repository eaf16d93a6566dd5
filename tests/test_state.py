"""Proofs that are kept: believed only in a folder that nobody else can write."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest

from warmspare import catalogue, state
from warmspare.model.facts import HOST, Known, Outcome, Readings, Standing, fact_name
from warmspare.model.snapshot import Reader, Snapshot
from warmspare.trials.pinned_memory import PinnedMemory

AT: Final = datetime(2026, 11, 22, tzinfo=UTC)
READER: Final = Reader(catalogue.facts())
PROVEN: Final = Readings(
    {
        (fact_name(PinnedMemory), HOST): Known(
            value=PinnedMemory(outcome=Outcome(kind="done"), budget_mib=64), standing=Standing.TRIED, at=AT
        )
    }
)


def shared(where: Path) -> Path:
    where.chmod(0o777)
    return where


def linked(where: Path) -> Path:
    where.rename(where.with_name("elsewhere"))
    where.symlink_to(where.with_name("elsewhere"))
    return where


@pytest.mark.parametrize(("spoil", "believed"), [(lambda where: where, True), (shared, False), (linked, False)])
def test_proofs_are_believed_only_in_a_folder_of_ours_alone(
    tmp_path: Path, spoil: Callable[[Path], Path], *, believed: bool
) -> None:
    where = tmp_path / "state"
    state.store(Snapshot(made_by="x", made_at=AT, redacted=False, readings=PROVEN), READER, where)
    assert bool(state.kept(PROVEN, READER, spoil(where))) is believed


def test_where_nothing_is_kept_there_are_none(tmp_path: Path) -> None:
    assert state.kept(PROVEN, READER, tmp_path / "nope") == {}
