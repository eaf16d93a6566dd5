"""What is shown of CUDA processes: never more of their chance than can be seen."""

from __future__ import annotations

from pathlib import Path

import pytest
from driver_model import GPUS, Driver, Levers
from msgspec.structs import replace

from warmspare.cli.listing import Left, Listing, text
from warmspare.runtime.cards import Card, free, in_use_mib, named, vram
from warmspare.runtime.processes import Chance, CudaProcess, chance, processes


@pytest.mark.parametrize(
    ("held", "family", "nccl", "expected", "why"),
    [
        ({"gpu0": 5}, 1, False, "unknown", "nothing that can be seen"),
        ({"gpu0": 5}, 3, False, "unknown", "3 CUDA processes belong together"),
        ({"gpu0": 5, "gpu1": 1}, 1, False, "likely lost", "gpu0 and gpu1"),
        ({"gpu0": 5}, 1, True, "likely lost", "NCCL"),
        (None, 1, False, "unknown", "NVML does not tell"),
        (None, 1, True, "likely lost", "NCCL"),
    ],
)
def test_the_chance_rests_on_what_is_visible(  # one parameter a column
    held: dict[str, int] | None, family: int, expected: Chance, why: str, *, nccl: bool
) -> None:
    found = chance(held, family, nccl=nccl)
    assert found[0] == expected
    assert why in found[1]


def test_real_processes_are_listed_with_the_drivers_states(tmp_path: Path) -> None:
    driver = Driver(tmp_path)
    with driver.tree(2) as pids, Levers(driver) as levers:
        driver.set(pids[1], state="checkpointed")
        found = {one.pid: one for one in processes(levers, driver.cards()) if one.pid in pids}
    assert [found[pid].state for pid in pids] == ["running", "checkpointed"]
    assert [found[pid].vram_mib for pid in pids] == [{"gpu0": 100}, {}]
    assert all(one.chance == "unknown" for one in found.values())
    assert "2 CUDA processes belong together" in found[pids[0]].why


CARD = Card(uuid=GPUS[0], subject="gpu0", index=3, pci="0000:01:00.0", name="x", total_mib=10, free_mib=4, held={7: 2})


def test_what_nvml_does_not_tell_is_not_made_up() -> None:
    assert vram((CARD,), [7]) == {7: {GPUS[0]: 2}}
    assert vram((replace(CARD, held=None),), [7]) is None
    assert vram((replace(CARD, held={7: None}),), [7]) is None
    assert vram((), [7]) is None
    assert (free((CARD,)), in_use_mib((CARD,))) == ({GPUS[0]: 4}, 6)
    assert free((CARD, replace(CARD, free_mib=None))) is None
    assert in_use_mib(()) is None


def test_in_another_pid_namespace_only_what_is_named_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warmspare.runtime.cards._in_first_namespace", lambda: False)
    assert vram((CARD,), [7]) == {7: {GPUS[0]: 2}}
    assert vram((CARD,), [7, 8]) is None
    monkeypatch.setattr("warmspare.runtime.cards._in_first_namespace", lambda: True)
    assert vram((CARD,), [7, 8]) == {7: {GPUS[0]: 2}, 8: {}}


@pytest.mark.parametrize("name", ["3", "gpu0", GPUS[0], " 01:00.0", "00000000:01:00.0"])
def test_a_gpu_goes_by_any_of_its_names(name: str) -> None:
    assert named((CARD,), name) == CARD


@pytest.mark.parametrize("name", ["0", "gpu1", "GPU-", "", "2:01:00.0", "00010000:01:00.1", "-1", "\u0663"])
def test_and_by_no_other(name: str) -> None:
    assert named((CARD,), name) is None


def test_a_name_from_outside_cannot_write_to_the_terminal() -> None:
    evil = CudaProcess(
        pid=1,
        name="\x1b[2Jx\ny",
        user="u",
        state=None,
        silent="is stopped",
        vram_mib=None,
        chance="unknown",
        why="because",
    )
    left = Left(
        kind="stranded", action="suspend", pid=5, begun_at="then", told="it is left", command="warmspare resume 5"
    )
    lines = text(Listing(processes=(evil,), operations=(left,)))
    assert "\x1b" not in lines
    assert lines.count("\n") == 5
    assert "stranded: suspend of 5, begun then; it is left: warmspare resume 5" in lines
    assert "is stopped" in lines
