"""Stand-in driver libraries, built here and found through LD_LIBRARY_PATH; tests/standins/README.md says how."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

SOURCES: Final = Path(__file__).with_name("standins")
NOW: Final = 999
"""The number of a driver that has every call; the stand-in's version begins with it."""
VERSION: Final = "{major}.88.77"
FLAGS: Final = ("-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC")


def compilers() -> dict[str, list[str]]:
    """The C compilers that are here, the one to take first: `$CC`, `cc`, and the wheel `ziglang`."""
    named = {name: shlex.split(name) for name in (os.environ.get("CC"), "cc") if name}
    found = {name: words for name, words in named.items() if shutil.which(words[0])}
    if importlib.util.find_spec("ziglang"):
        found["zig"] = [sys.executable, "-m", "ziglang", "cc"]
    return found


class Drivers:
    """Builds each library once a version, and lays out folders with them."""

    def __init__(self, folder: Path, compiler: list[str] | None = None) -> None:
        """Build under `folder`, caches included."""
        self._folder = folder
        self._compiler = compiler or next(iter(compilers().values()))

    def world(self, name: str, *plan: str, nvml: int | None = NOW, cuda: int | None = NOW) -> dict[str, str]:
        """A folder with the libraries of these drivers (None: not there) and a plan; the environment to find them."""
        folder = self._folder / name
        folder.mkdir()
        for library, major in (("libnvidia-ml", nvml), ("libcuda", cuda)):
            if major is not None:
                (folder / f"{library}.so.1").symlink_to(self._built(library, major))
        (folder / "plan").write_text("".join(f"{line}\n" for line in plan))
        return {"LD_LIBRARY_PATH": os.pathsep.join(filter(None, (str(folder), os.environ.get("LD_LIBRARY_PATH"))))}

    def _built(self, library: str, major: int) -> Path:
        file = self._folder / "built" / f"{library}.so.{VERSION.format(major=major)}"
        if not file.exists():
            file.parent.mkdir(exist_ok=True)
            what = (
                f"-DMAJOR={major}",
                f"-Wl,-soname,{library}.so.1",
                "-o",
                str(file),
                str(SOURCES / f"{library}.c"),
                "-pthread",
            )
            caches = {f"ZIG_{which}_CACHE_DIR": str(self._folder / "zig-cache") for which in ("GLOBAL", "LOCAL")}
            subprocess.run([*self._compiler, *FLAGS, *what, "-ldl"], env={**os.environ, **caches}, check=True)
        return file
