"""How large is /dev/shm, and how much of it is free?

It may be mounted more than once, or be a link (WSL2): the file system that is reached there counts.

Source: tmpfs(5), statvfs(3); a Docker container is given 64 MiB unless told otherwise (docker run --shm-size).
"""

import os
from pathlib import Path
from typing import Final

FOLDER: Final = Path("/dev/shm")  # noqa: S108 # looked at, never written to


def run() -> dict[str, object]:
    """`{"found": bool, "size": int | None, "free": int | None}` in bytes; a size of 0 blocks is no limit: None."""
    try:
        seen = os.statvfs(FOLDER)
    except FileNotFoundError:
        return {"found": False, "size": None, "free": None}
    if not seen.f_blocks:
        return {"found": True, "size": None, "free": None}
    return {"found": True, "size": seen.f_blocks * seen.f_frsize, "free": seen.f_bavail * seen.f_frsize}
