"""Stand-in driver libraries, built here and found through LD_LIBRARY_PATH; tests/standins/README.md says how."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import ClassVar, Final

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


def gpu_ids() -> tuple[str, ...]:
    """The UUIDs of the GPUs that the stand-ins show."""
    listed = re.search(r"UUIDS\[GPUS\] = \{(.*?)\}", (SOURCES / "standin.h").read_text(), re.DOTALL)
    assert listed
    return tuple(f"GPU-{uuid}" for uuid in re.findall(r'"([0-9a-f-]{36})"', listed[1]))


class Drivers:
    """Builds each library once a version and session, and lays out folders with copies of them."""

    _libraries: ClassVar[dict[tuple[str, ...], bytes]] = {}
    """What each command, less its folders, has built."""

    def __init__(self, folder: Path, compiler: list[str] | None = None) -> None:
        """Build under `folder`, caches included."""
        self._folder = folder
        self._compiler = compiler or next(iter(compilers().values()))

    def world(
        self,
        name: str,
        *plan: str,
        nvml: int | None = NOW,
        cuda: int | None = NOW,
        nccl: int | None = None,
        lacks: tuple[str, ...] = (),
    ) -> dict[str, str]:
        """A folder with the libraries of these drivers (None: not there) and a plan; the environment to find them.

        The functions named by `lacks` are in neither library.

        Raises:
            ValueError: the name would be two folders in LD_LIBRARY_PATH.
        """
        if os.pathsep in name:
            raise ValueError(name)
        folder = self._folder / name
        folder.mkdir()
        for library, major in (("libnvidia-ml.so.1", nvml), ("libcuda.so.1", cuda), ("libnccl.so.2", nccl)):
            if major is not None:
                (folder / library).symlink_to(self._built(library, major, lacks))
        (folder / "plan").write_text("".join(f"{line}\n" for line in plan))
        return {"LD_LIBRARY_PATH": os.pathsep.join(filter(None, (str(folder), os.environ.get("LD_LIBRARY_PATH"))))}

    def _built(self, soname: str, major: int, lacks: tuple[str, ...]) -> Path:
        library = soname.partition(".")[0]
        file = self._folder.joinpath("built", *lacks, f"{library}.so.{VERSION.format(major=major)}")
        if not file.exists():
            file.parent.mkdir(exist_ok=True, parents=True)
            without = [f"-D{function}=lacking_{function}" for function in lacks]
            command = (*self._compiler, *FLAGS, f"-DMAJOR={major}", *without, f"-Wl,-soname,{soname}")
            if command not in self._libraries:
                self._libraries[command] = self._compiled(command, SOURCES / f"{library}.c", file)
            file.write_bytes(self._libraries[command])
        return file

    def _compiled(self, command: tuple[str, ...], source: Path, file: Path) -> bytes:
        caches = {f"ZIG_{which}_CACHE_DIR": str(self._folder / "zig-cache") for which in ("GLOBAL", "LOCAL")}
        made = file.with_suffix(".made")
        whole = [*command, "-o", str(made), str(source), "-ldl", "-pthread"]
        subprocess.run(whole, env={**os.environ, **caches}, check=True)
        library = made.read_bytes()
        made.unlink()
        return library
