"""Does Docker's configuration name an NVIDIA runtime, make it the default, or turn CDI devices or checkpoints on?

The file may hold proxies with passwords, so nothing else of it is told.

Source: docs.docker.com, dockerd, daemon configuration file ("runtimes", "default-runtime", "features",
"experimental"); what `nvidia-ctk runtime configure` writes there.
"""

import json
from pathlib import Path
from typing import Final

FILE: Final = Path("/etc/docker/daemon.json")


def run() -> dict[str, object]:
    """`{"found": bool, "valid": bool, "nvidia": bool, "default": bool, "cdi": bool, "experimental": bool}`."""
    try:
        data = FILE.read_bytes()
    except FileNotFoundError:
        nothing = dict.fromkeys(("nvidia", "default", "cdi", "experimental"), False)
        return {"found": False, "valid": True, **nothing}
    try:
        settings = json.loads(data)
    except (ValueError, RecursionError):
        settings = None
    return {
        "found": True,
        "valid": isinstance(settings, dict),
        "nvidia": any("nvidia" in str(name).lower() for name in _part(settings, "runtimes")),
        "default": isinstance(settings, dict) and "nvidia" in str(settings.get("default-runtime")).lower(),
        "cdi": _part(settings, "features").get("cdi") is True,
        "experimental": isinstance(settings, dict) and settings.get("experimental") is True,
    }


def _part(settings: object, name: str) -> dict[str, object]:
    part = settings.get(name) if isinstance(settings, dict) else None
    return part if isinstance(part, dict) else {}
