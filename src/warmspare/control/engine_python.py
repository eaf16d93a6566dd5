"""Which Python an engine would run under, and where it looks for packages; nothing of its packages is run.

Worked out from the file system, as site.py does it: running it would run .pth files and sitecustomize, as root
perhaps, and with `-I` it would not see the user's own packages. Only where the file system cannot tell (pyenv's
and others' shims are shell scripts, a program's name may not say its version) it is run, `-I -S`, to say its
own path and version: no site, no variables, no folder of the user's.

Source: Python's Lib/site.py and Modules/getpath.py; PEP 405; Debian's python3 (dist-packages); pip's launchers.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from warmspare.control.process import find_program

ASK_S: Final = 5.0
DEBIAN: Final = "/usr/lib/python3/dist-packages"
_TEXT: Final = 65_536
_PTH_FILES: Final = 64
_NAMED: Final = re.compile(r"python(3\.\d{1,2})")
_WRAPPED: Final = re.compile(rb"^'''exec' [\"']?([^\"'\n]+?)[\"']? \"\$0\"", re.MULTILINE)
_TELL: Final = "import sys; print(sys.executable); print('python%d.%d' % sys.version_info[:2])"


class FailedError(Exception):
    """A Python that cannot be looked at: a cause of absence, and a line on it."""

    def __init__(self, detail: str, cause: str) -> None:
        """Carry both."""
        super().__init__(detail)
        self.cause = cause


class Python(NamedTuple):
    """A Python, who named it, and its package folders in the order that it searches them."""

    program: str
    named_by: str
    version: str
    kind: str
    prefix: str
    folders: tuple[str, ...]


def find(environment: Mapping[str, str]) -> Python | None:
    """The engine's Python: named outright, that of a vllm program, of a virtual environment, of PATH, our own.

    Raises:
        FailedError: it is there, and cannot be looked at.
    """
    for named_by, program in _programs(environment):
        if program:
            return _looked_at(program, named_by, environment)
        if named_by == "warmspare_python":  # what is named outright is not replaced by another
            return None
    return None


def _programs(environment: Mapping[str, str]) -> Iterator[tuple[str, str | None]]:
    if override := environment.get("WARMSPARE_PYTHON"):
        yield "warmspare_python", find_program(str(Path(override).absolute()), environment)
    yield "vllm_program", _interpreter(find_program("vllm", environment), environment)
    if folder := environment.get("VIRTUAL_ENV"):
        yield "virtual_env", find_program(str(Path(folder).absolute() / "bin/python3"), environment)
    yield "search_path", find_program("python3", environment)
    yield "own_python", sys.executable


def _interpreter(script: str | None, environment: Mapping[str, str]) -> str | None:
    """The Python behind a launcher: of its first line, or of the shell's line where that would be too long."""
    if script is None:
        return None
    head = _head(script)
    if not head.startswith(b"#!"):
        return None
    words = os.fsdecode(head[2:].partition(b"\n")[0]).split()
    if wrapped := _WRAPPED.search(head):
        words = [os.fsdecode(wrapped[1])]
    if words and words[0].endswith("/env"):
        words = [word for word in words[1:] if not word.startswith("-")]
    if not words or "python" not in words[0].rpartition("/")[2]:
        return None
    return find_program(words[0], environment)


def _head(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(_TEXT)
    except OSError:
        return b""


def _looked_at(program: str, named_by: str, environment: Mapping[str, str]) -> Python:
    if _head(program)[:2] == b"#!":
        program, said = _told(program)
    else:
        said = os.path.realpath(program)
    config, prefix = _venv(program)
    base = str(Path(config["home"]).parent) if "home" in config else prefix
    version = _NAMED.search(said.rpartition("/")[2])
    if version is None:
        version = _NAMED.search(_told(program)[1])
    if version is None:
        message = "it did not say its version"
        raise FailedError(message, cause="invalid")
    system = not config or config.get("include-system-site-packages", "").lower() == "true"
    own = _site_folders(prefix, version[1]) if config else []
    user = _user_folders(version[1], environment) if system else []
    folders = [*_python_path(environment), *own, *user, *(_site_folders(base, version[1]) if system else [])]
    folders += [linked for folder in folders for linked in _linked(folder)]
    conda = os.path.isdir(f"{prefix}/conda-meta")  # noqa: PTH112 # never raises
    kind = "virtual_environment" if config else "conda_environment" if conda else "other_prefix"
    return Python(program, named_by, version[1], kind, prefix, tuple(dict.fromkeys(folders)))


def _told(program: str) -> tuple[str, str]:
    """What a Python says of itself: its own path, and its name with the version."""
    try:
        ended = subprocess.run(
            [program, "-I", "-S", "-c", _TELL],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=ASK_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        message = f"it did not say its version within {ASK_S:g} s"
        raise FailedError(message, cause="timeout") from None
    except OSError as error:
        message = f"it cannot be run: {error.strerror}"
        raise FailedError(message, cause="crashed") from None
    lines = ended.stdout[:_TEXT].decode("utf-8", "surrogateescape").splitlines()
    if ended.returncode or len(lines) != 2 or not lines[0].startswith("/"):  # noqa: PLR2004 # what _TELL prints
        message = f"asked for its version, it gave no answer and status {ended.returncode}"
        raise FailedError(message, cause="crashed")
    return lines[0], lines[1]


def _venv(program: str) -> tuple[dict[str, str], str]:
    """The settings of a virtual environment (none: it is not one), and the prefix. Links of it are not followed."""
    place = Path(program).parent
    for folder in (place, place.parent):
        if text := _head(str(folder / "pyvenv.cfg")).decode("utf-8", "surrogateescape"):
            pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
            return {key.strip().lower(): value.strip() for key, _, value in pairs}, str(folder)
    return {}, str(Path(os.path.realpath(program)).parent.parent)


def _site_folders(prefix: str, version: str) -> list[str]:
    """Those of a prefix that are there; Debian's own Python has other ones."""
    found = [f"{prefix}/{lib}/python{version}/site-packages" for lib in ("lib", "lib64")]
    if prefix == "/usr":
        found = [f"/usr/local/{lib}/python{version}/site-packages" for lib in ("lib64", "lib")] + found
        if _can_be_used(DEBIAN):
            found = [f"/usr/local/lib/python{version}/dist-packages", DEBIAN]
    return list({os.path.realpath(folder): folder for folder in reversed(found) if _can_be_used(folder)}.values())[::-1]


def _can_be_used(folder: str) -> bool:
    """Whether a folder is there; one that is kept from us may hold anything."""
    try:
        is_there = Path(folder).is_dir()
    except OSError as error:
        is_there, refusal = True, error.strerror
    else:
        refusal = "" if not is_there or os.access(folder, os.R_OK | os.X_OK) else "no permission"
    if refusal:
        message = f"its packages cannot be read: {refusal}"
        raise FailedError(message, cause="denied")
    return is_there


def _user_folders(version: str, environment: Mapping[str, str]) -> list[str]:
    base = environment.get("PYTHONUSERBASE") or (f"{environment['HOME']}/.local" if environment.get("HOME") else "")
    folder = f"{base}/lib/python{version}/site-packages"
    wanted = base.startswith("/") and not environment.get("PYTHONNOUSERSITE")
    return [folder] if wanted and os.path.isdir(folder) else []  # noqa: PTH112 # never raises


def _python_path(environment: Mapping[str, str]) -> list[str]:
    return [folder for folder in environment.get("PYTHONPATH", "").split(":") if folder.startswith("/")]


def _linked(folder: str) -> list[str]:
    """The folders that the .pth files of a package folder add; their code is not run."""
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".pth"))  # noqa: PTH208 # names, not paths
    except OSError:
        return []
    texts = (_head(f"{folder}/{name}").decode("utf-8", "replace") for name in names[:_PTH_FILES])
    lines = (line.strip() for text in texts for line in text.splitlines())  # one of code names no folder
    added = (os.path.normpath(os.path.join(folder, line)) for line in lines if line and line[0] != "#")  # noqa: PTH118
    return [path for path in added if Path(path).is_dir()]
