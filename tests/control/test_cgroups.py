"""Control groups are found in every hierarchy, and removed by their name alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from warmspare.control import cgroups


def test_they_are_found_and_removed_in_every_hierarchy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, other = (tmp_path / name for name in ("one", "the other", "no hierarchy"))
    for root in (one, two, other):
        (root / "ours" / "deep" / "deeper").mkdir(parents=True)
        (root / "theirs").mkdir()
    mounts = tmp_path / "mountinfo"
    lines = [(one, "cgroup2 cgroup2"), (two, "cgroup cgroup"), (other, "tmpfs cgroup")]
    escaped = [(str(path).replace(" ", "\\040"), kind) for path, kind in lines]
    mounts.write_text("".join(f"31 23 0:28 / {path} rw,relatime shared:5 - {kind} rw\n" for path, kind in escaped))
    monkeypatch.setattr(cgroups, "MOUNTS", mounts)

    assert cgroups.named("ours") == [one / "ours", two / "ours"]
    (two / "ours" / "deep" / "busy").touch()  # as a group with a process: its folder cannot be removed
    assert cgroups.remove("ours") == [str(two / "ours")]
    (two / "ours" / "deep" / "busy").unlink()
    assert cgroups.remove("ours") == []
    assert cgroups.remove("ours") == []
    assert [root.is_dir() for root in (one / "theirs", two / "theirs", other / "ours")] == [True] * 3


def test_no_mounts_to_read_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "MOUNTS", tmp_path / "none")
    assert cgroups.remove("ours") == []
