"""A Podman that only plays: `create`, `start`, `inspect`, `container checkpoint|restore` and `rm` of one process.

The container is a plain process that counts in the diary. What an action does is `PLAY_<ACTION>` in the environment:
unset, what it should, but that a restore starts another counter; `says TEXT`, refuse in those words (a part after
` ;; ` becomes CRIU's log); `lies`, nothing and success; `hangs`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def main(words: list[str]) -> int:
    """Play one command; the global options come first, and only the storage's folder among them matters."""
    root = Path(words[words.index("--root") + 1])
    action = next(word for word in words if word in ("create", "start", "inspect", "checkpoint", "restore", "rm"))
    play, _, text = os.environ.get(f"PLAY_{action.upper()}", "").partition(" ")
    if play == "says":
        return says(root, action, text)
    if play == "lies":
        return 0
    if play == "hangs":
        time.sleep(600)
    return done(root, action, words)


def says(root: Path, action: str, text: str) -> int:
    """Refuse, with CRIU's log where it would be."""
    said, _, log = text.partition(" ;; ")
    folder = root / "vfs-containers" / "c" / "userdata"
    folder.mkdir(parents=True, exist_ok=True)
    name = {"checkpoint": "dump.log", "restore": "restore.log"}.get(action)
    if name and log:
        (folder / name).write_text(log)
    sys.stderr.write(f"{said}\n")
    return 125


def done(root: Path, action: str, words: list[str]) -> int:
    """Do it, as far as it can be done without CRIU."""
    known = root / "container.json"
    if action == "create":
        root.mkdir(parents=True, exist_ok=True)
        diary = words[words.index("--volume") + 1].partition(":")[0]
        known.write_text(json.dumps({"script": words[-1].replace("/diary", diary), "pid": 0}))
        return 0
    seen = json.loads(known.read_text())
    if action in ("start", "restore"):
        seen["pid"] = counter(seen["script"])
    elif action == "inspect":
        sys.stdout.write(f"{seen['pid']}\n")
    elif action in ("checkpoint", "rm"):
        os.kill(seen["pid"], signal.SIGKILL)
    known.write_text(json.dumps(seen))
    return 0


def counter(script: str) -> int:
    """The pid of a counter that is no child of ours."""
    command = ["/bin/sh", "-c", '/bin/sh -c "$0" >/dev/null 2>&1 & echo $!', script]
    return int(subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True).stdout)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
