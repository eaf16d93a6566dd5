"""Control groups that bear our name: seen and removed wherever the kernel shows them."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Final

MOUNTS: Final = Path("/proc/self/mountinfo")
CGROUP: Final = re.compile(r"^(?:\S+ ){4}(\S+) .* - cgroup2? ", re.MULTILINE)


def roots() -> list[Path]:
    """Where hierarchies are mounted, both kinds. Source: proc_pid_mountinfo(5), field 5 and the type after ` - `."""
    try:
        text = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return []
    return [Path(re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), path)) for path in CGROUP.findall(text)]


def named(name: str) -> list[Path]:
    """The groups at the top of any hierarchy that bear this name."""
    return [group for root in roots() if (group := root / name).is_dir()]


def remove(name: str) -> list[str]:
    """Remove those groups with all below them; returns those that stay, as one with a process in it does."""
    for group in named(name):
        # A group holds only files of the kernel's, so its folders are removed from the deepest up.
        for folder, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):  # told by what stays
                Path(folder).rmdir()
    return [str(group) for group in named(name)]
