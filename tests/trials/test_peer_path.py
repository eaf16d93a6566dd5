"""By which path a copy went: what shows it, and that no law of the naming can be broken by odd figures."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from warmspare.trials.given import Gpu, Pair
from warmspare.trials.peer_copy import Seen, way

GPU: Final = Gpu(
    subject="gpu0", id="GPU-0", nvml=0, pcie_gb_per_s=63.0, nvlink_gb_per_s=478.0, numa_nodes=(0,), memory_mib=1024
)
BRIDGED: Final = Pair(source=GPU, target=replace(GPU, subject="gpu1", id="GPU-1"), nvlinks=18)
APART: Final = replace(BRIDGED, nvlinks=0)
UNTOLD: Final = replace(APART, source=replace(GPU, pcie_gb_per_s=None))
UNNAMED: Final = replace(BRIDGED, source=replace(GPU, pcie_gb_per_s=None))
OLD: Final = replace(GPU, pcie_gb_per_s=15.76, nvlink_gb_per_s=20.0)
ONE_SLOW: Final = Pair(source=OLD, target=OLD, nvlinks=1)
NARROW: Final = replace(BRIDGED, source=replace(GPU, pcie_gb_per_s=4.0))
SPEEDS: Final = st.floats(0, 1e4)


@pytest.mark.parametrize(
    ("pair", "seen", "named"),
    [
        (BRIDGED, Seen(394.4, 369.3, 1.0), ("nvlink", "counters")),
        (BRIDGED, Seen(394.4, 369.3, None), ("nvlink", "speed")),
        (BRIDGED, Seen(52.0, 51.0, 1.0), ("nvlink", "counters")),  # a bridge no faster than PCIe
        (BRIDGED, Seen(26.0, 25.0, 0.0), ("pcie", "stores")),
        (BRIDGED, Seen(20.0, 369.3, 0.0), ("staged", "stores")),  # staged, and passed off as peer to peer
        (APART, Seen(26.0, 25.0, None), ("pcie", "stores")),
        (APART, Seen(394.4, 369.3, None), ("pcie", "stores")),  # a VM that tells a slower link than it has
        (UNTOLD, Seen(26.0, 25.0, None), ("pcie", "stores")),
        (UNTOLD, Seen(26.0, None, None), (None, None)),
        (replace(BRIDGED, nvlinks=None), Seen(394.4, 369.3, None), (None, None)),  # no PCIe is that fast
        (UNNAMED, Seen(394.4, 369.3, None), ("nvlink", "speed")),  # nobody told what its PCIe link can carry
        (UNNAMED, Seen(394.4, 369.3, 0.0), ("nvlink", "speed")),  # counters that lag
        (ONE_SLOW, Seen(16.8, 16.5, None), (None, None)),  # a bridge as slow as PCIe, and no counters
        (NARROW, Seen(25.0, 24.0, 0.0), ("pcie", "stores")),  # idle links, and a VM that tells a slower PCIe link
    ],
)
def test_a_path_is_named_by_what_shows_it(pair: Pair, seen: Seen, named: tuple[str | None, str | None]) -> None:
    assert way(pair, seen) == named


def test_the_links_of_a_pair_are_not_all_links_of_a_gpu() -> None:
    meshed = replace(GPU, nvlink_gb_per_s=150.0, nvlinks_up=6)
    assert Pair(source=meshed, target=meshed, nvlinks=1).nvlink_gb_per_s == 25.0
    assert replace(BRIDGED, source=replace(GPU, nvlinks_up=18)).nvlink_gb_per_s == 478.0


@given(st.builds(Seen, SPEEDS, SPEEDS | st.none(), st.floats(0, 2) | st.none()))
def test_without_links_nothing_but_their_own_count_names_nvlink(seen: Seen) -> None:
    path, by = way(APART, seen)
    assert path != "nvlink" or by == "counters"
    assert (path is None) == (by is None)
