"""Which drivers take the end of a process that they have restored: on one of them it hung a whole machine.

Source: NVIDIA/cuda-checkpoint#53 (open module 595.71.05, four times of four); measured: 580.159.04.
"""

from __future__ import annotations

from typing import Final

HUNG: Final = frozenset({"595.71.05"})
"""Versions whose open kernel module hung."""
ENDED: Final = frozenset({"580.159.04"})
"""Versions on which it was done many times without harm."""


def may_hang(module: str | None, version: str | None) -> bool:
    """Whether a restored process may have to be spared on this driver: an open module that is not known to be safe.

    Where the module is not told (no /proc/driver/nvidia in a container), a version that hung counts as the open one.
    """
    return (module == "open" and version not in ENDED) or (module is None and version in HUNG)
