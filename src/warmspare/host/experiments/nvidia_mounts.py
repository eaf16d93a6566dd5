"""What of NVIDIA is mounted into us from outside: libraries, device files, programs, folders?

The list of mounts is too long, and too telling, to keep whole: of folders only names known here are told.

Source: proc_pid_mountinfo(5); the mounts in the NVIDIA Container Toolkit's CDI specifications
(docs.nvidia.com/datacenter/cloud-native/container-toolkit, CDI support); /usr/local/nvidia of managed Kubernetes.
"""

import re
from pathlib import Path
from typing import Final

MOUNTS: Final = Path("/proc/self/mountinfo")
LIBRARY: Final = re.compile(
    r".*/(lib(?:cuda|cudadebugger|nvidia-[a-z0-9-]{1,40}|nvcuvid|nvoptix)\.so(?:\.\d{1,4}){0,4})"
)
DEVICE: Final = re.compile(r"/dev/(nvidia(?:\d{1,3}|ctl|-[a-z0-9-]{1,20})(?:/nvidia-cap\d{1,4})?|dxg)")
PROGRAM: Final = re.compile(r".*/bin/(nvidia-[a-z-]{1,40})")
FOLDER: Final = re.compile(
    r"(/usr/local/nvidia|/usr/lib/wsl/drivers|/usr/lib/wsl/lib|/usr/lib/wsl|/proc/driver/nvidia|/run/nvidia)(?:/.*)?"
)
LIMIT: Final = 256


def run() -> dict[str, object]:
    """`{"libraries": [name], "devices": [name], "programs": [name], "folders": [path]}`, each sorted."""
    text = MOUNTS.read_text(encoding="utf-8", errors="replace")
    places = [_place(line) for line in text.splitlines()]
    return {
        "libraries": _named(LIBRARY, places),
        "devices": _named(DEVICE, places),
        "programs": _named(PROGRAM, places),
        "folders": _named(FOLDER, places),
    }


def _named(pattern: re.Pattern[str], places: list[str]) -> list[str]:
    found = (pattern.fullmatch(place) for place in places)
    return sorted({match[1] for match in found if match})[:LIMIT]


def _place(line: str) -> str:
    """Where it is mounted; blanks and the like are written as octal numbers there."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), (line.split(" ") + [""] * 5)[4])
