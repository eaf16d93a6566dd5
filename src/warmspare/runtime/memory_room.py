"""How much host memory is left for a checkpoint: the machine's, and each cgroup's that the process is charged to.

A checkpoint puts GPU memory into the process's own host memory; where that does not fit the kernel ends the process.
Source: proc_meminfo(5); Documentation/admin-guide/cgroup-v2.rst (memory.max), cgroup-v1/memory.rst.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from warmspare.control.cgroups import roots
from warmspare.control.host_memory import MIB, NO_LIMIT
from warmspare.runtime.guards import Room


class _Files(NamedTuple):
    """What a version of cgroups calls its files."""

    limit: str
    used: str
    reclaimable: str


SECOND: Final = _Files("memory.max", "memory.current", "inactive_file")
FIRST: Final = _Files("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def rooms(pids: Iterable[int]) -> tuple[Room, ...]:
    """The machine, and every cgroup with a limit above one of these processes. What cannot be read is left out."""
    charged: dict[Path, tuple[_Files, list[int]]] = {}
    every = tuple(pids)
    for pid in every:
        for folder, files in _cgroups(pid):
            charged.setdefault(folder, (files, []))[1].append(pid)
    found = [_room(folder, files, tuple(inside)) for folder, (files, inside) in charged.items()]
    return tuple(room for room in (_machine(every), *found) if room)


def _machine(pids: tuple[int, ...]) -> Room | None:
    told = re.search(r"^MemAvailable:\s*(\d+) kB$", _text(Path("/proc/meminfo")), re.MULTILINE)
    return Room(name="the machine", free_mib=int(told[1]) // 1024, pids=pids) if told else None


def _cgroups(pid: int) -> Iterator[tuple[Path, _Files]]:
    """The folders of the cgroups that a process is in, from its own up to the top that is visible."""
    for line in _text(Path(f"/proc/{pid}/cgroup")).splitlines():
        number, controllers, path = line.split(":", 2)
        if number != "0" and "memory" not in controllers.split(","):
            continue
        files = SECOND if number == "0" else FIRST
        for mount in roots():
            inside = Path(path.lstrip("/"))
            if ".." in inside.parts:  # outside the cgroup namespace that we see
                inside = Path()
            # A container's mount may begin below the path that the kernel names.
            for folder in (mount / inside, *(mount / above for above in inside.parents), mount):
                if (folder / files.limit).is_file():
                    yield folder, files


def _room(folder: Path, files: _Files, pids: tuple[int, ...]) -> Room | None:
    limit, used = _text(folder / files.limit).strip(), _text(folder / files.used).strip()
    if not limit.isdigit() or not used.isdigit() or int(limit) > NO_LIMIT:
        return None
    told = re.search(rf"^{files.reclaimable} (\d+)$", _text(folder / "memory.stat"), re.MULTILINE)
    left = int(limit) - int(used) + (int(told[1]) if told else 0)  # what the kernel would drop first
    return Room(name=f"the limit of {folder}", free_mib=max(0, left) // MIB, pids=tuple(dict.fromkeys(pids)))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
