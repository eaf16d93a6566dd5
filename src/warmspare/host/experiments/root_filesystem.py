"""Of what type is our root file system, and which container engine's storage is it put together from?

The list of mounts is too long, and too telling, to keep whole.

Source: proc_pid_mountinfo(5); storage folders of Docker (/var/lib/docker), containerd
(/var/lib/containerd/io.containerd.snapshotter.v1…) and containers/storage (Podman, CRI-O).
"""

import re
from pathlib import Path

_STORAGE = (
    ("docker", re.compile(r"/docker/")),
    ("containerd", re.compile(r"/containerd/|io\.containerd\.")),
    ("podman", re.compile(r"/containers/storage/")),
)


def run() -> dict[str, object]:
    """`{"type": str | None, "engine": str | None}`, of the mount that is uppermost at `/`."""
    kind, options = None, ""
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        place, _, system = line.partition(" - ")
        if place.split(" ")[4:5] == ["/"]:
            kind, options = system.split(" ")[0], system.split(" ")[-1]
    found = [engine for engine, folder in _STORAGE if folder.search(options)]
    return {"type": kind, "engine": found[0] if kind == "overlay" and found else None}
