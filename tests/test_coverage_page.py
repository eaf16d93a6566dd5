"""docs/coverage.md names only requirements that exist, and all that weigh in a verdict."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from warmspare import catalogue

PAGE: Final = (Path(__file__).parent.parent / "docs/coverage.md").read_text(encoding="utf-8")
TRACKS: Final = catalogue.tracks()


def test_every_name_on_the_page_is_a_requirement() -> None:
    assert set(re.findall(r"`([a-z0-9_]+)`", PAGE)) <= set(catalogue.rules(TRACKS))


def test_every_row_has_a_requirement() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and "---" not in line]
    assert len(rows) > 30
    assert [row for row in rows if "`" not in row] == ["| row | requirements |"] * 3


def test_whatever_weighs_in_a_verdict_is_on_the_page() -> None:
    weighed = [w for _, track in TRACKS.values() for w in track.weighed if w.weight != "notes"]
    weighing = {rule.id for w in weighed for rule in (w.rule, *(paper.rule for paper in w.papers))}
    bare = {"gpu_is_there", "two_gpus_are_there", "every_gpu_answers", "driver_is_there", "libcuda_is_real",
            "driver_versions_agree", "gpu_may_be_used", "cuda_computes", "peer_access_is_documented",
            "takeover_is_whole", "torch_is_for_cuda", "vllm_is_there", "may_checkpoint", "may_trace"}  # fmt: skip
    assert weighing - set(re.findall(r"`([a-z0-9_]+)`", PAGE)) <= bare, "no row asks for these but common sense"
