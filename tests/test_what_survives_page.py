"""docs/what-survives.md names every kind, variant and fate, and its table is the recorded host's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, get_args

from warmspare import catalogue
from warmspare.model.facts import Known
from warmspare.model.snapshot import Reader
from warmspare.trials.workload_cells import Fate
from warmspare.trials.workload_matrix import WorkloadMatrix
from warmspare.trials.workloads.api import found

ROOT: Final = Path(__file__).parent.parent
PAGE: Final = (ROOT / "docs/what-survives.md").read_text(encoding="utf-8")
MEASURED: Final = re.compile(r"<!-- measured: begin -->\n(.*?)<!-- measured: end -->", re.DOTALL)


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def first_column(text: str) -> list[str]:
    return re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)


def test_every_kind_and_every_fate_has_its_row() -> None:
    assert sorted(first_column(section("Kinds"))) == sorted(workload.kind for workload in found())
    assert sorted(first_column(section("Fates"))) == sorted(get_args(Fate))


def test_every_variant_of_nccl_has_its_row_with_what_is_added() -> None:
    (nccl,) = (workload for workload in found() if workload.kind == "nccl")
    assert first_column(section("NCCL's variants")) == [variant.name for variant in nccl.variants]
    added = {name for variant in nccl.variants for name in variant.added}
    assert all(name in section("NCCL's variants") for name in added)


def test_the_measured_table_is_that_of_the_recorded_host() -> None:
    recorded = Reader(catalogue.facts()).read((ROOT / "tests/hosts/h200-x2.json").read_bytes()).readings
    matrix = recorded.get(WorkloadMatrix)
    cells = matrix.value.cells if isinstance(matrix, Known) else ()
    rows = [f"| {cell.kind} | {cell.variant} | {cell.fate} | {cell.step or ''} | {cell.code or ''} |" for cell in cells]
    assert rows
    shown = MEASURED.search(PAGE)
    assert shown
    assert shown[1].splitlines()[2:] == rows, "\n".join(rows)
