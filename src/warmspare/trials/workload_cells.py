"""What became of each kind of program: the cells of the workload matrix."""

from __future__ import annotations

from typing import Literal

import msgspec

from warmspare.model.facts import Count, Seconds, Text

Fate = Literal[
    "survives", "refused", "lost-on-suspend", "lost-on-restore", "hung", "wrong", "not-here", "not-tried"
]  # fmt: skip
"""How it went. `refused`: the suspend was, and every process was seen to go on, its content right."""


class MatrixCell(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What became of one kind of program in one variant.

    `step` is where it ended, and `code` the raw result with its name. `held_mib` is what its processes took of their
    GPUs, and `freed_mib` what of it NVML saw free while they were checkpointed. `suspend_s` and `resume_s` are the
    driver's, all processes together.
    """

    kind: Text
    variant: Text
    fate: Fate
    step: Text | None = None
    code: Text | None = None
    detail: Text = ""
    processes: Count | None = None
    held_mib: Count | None = None
    freed_mib: Count | None = None
    suspend_s: Seconds | None = None
    resume_s: Seconds | None = None
