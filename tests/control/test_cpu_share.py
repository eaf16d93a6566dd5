"""How many CPUs a process gets, by files of cgroups as they stand in /sys."""

from __future__ import annotations

from pathlib import Path

import pytest

from warmspare.control.cpu_share import cpus, quota

V1 = {"cpu.cfs_quota_us": "150000\n", "cpu.cfs_period_us": "100000\n"}
NO_V1 = {"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"}


@pytest.mark.parametrize(
    ("cgroup", "groups", "found"),
    [
        (None, {}, None),
        ("0::/\n", {}, None),
        ("0::/a/b\n", {"a/b": {"cpu.max": "max 100000\n"}}, None),
        ("0::/a/b\n", {"a/b": {"cpu.max": "max 100000\n"}, "a": {"cpu.max": "50000 100000\n"}}, 0.5),
        ("0::/../not/shown\n", {".": {"cpu.max": "200000 100000\n"}}, 2.0),
        ("4:cpu,cpuacct:/a\n0::/\n", {"cpu/a": V1}, 1.5),
        ("4:cpu,cpuacct:/a\n", {"cpu/a": NO_V1}, None),
        ("4:cpuset:/a\n", {"cpu/a": V1}, None),
    ],
)
def test_the_least_quota_on_the_way_up_counts(
    tmp_path: Path, cgroup: str | None, groups: dict[str, dict[str, str]], found: float | None
) -> None:
    files = {f"sys/fs/cgroup/{g}/{name}": text for g, texts in groups.items() for name, text in texts.items()}
    files |= {} if cgroup is None else {"proc/self/cgroup": cgroup}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert quota(tmp_path) == found


def test_here_are_some() -> None:
    assert cpus() >= 1
    assert (quota() or 1) > 0
