"""Which NCCL, UCX, NIXL, torch and vLLM are here, and which NCCL would torch load? Nothing of them is loaded.

The Python is the engine's (see control/engine_python.py; WARMSPARE_PYTHON names another); what its torch would load
is worked out in host/engine_nccl.py. Paths are told relative to the environment: whole, they would name people.

Source: NCCL src/init.cc (VERSION_STRING); nixl contrib/wheel_add_ucx_plugins.py.
"""

import glob
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from warmspare.control import engine_python
from warmspare.host import engine_nccl
from warmspare.host.engine_nccl import known, places, shown_in, system
from warmspare.host.experiments import _distributions, _elf
from warmspare.host.experiments._syscalls import Answer

_UCX: Final = "libucp.so.0"
_NCCL_VERSION: Final = re.compile(rb"NCCL version (\d{1,3}\.\d{1,3}\.\d{1,3}\w{0,16})\+cuda(\d{1,3}\.\d{1,3})")
_FILE_VERSION: Final = re.compile(r"libnccl\.so\.(\d{1,3}\.\d{1,3}\.\d{1,3})")


def run() -> Answer:
    """The Python, its packages, every NCCL library known, the one torch would load, and every UCX library.

    Returns:
        `engine_python`: None where none is found, else `named_by`, `kind_of`, `version`, or a `failure` with its
        `cause` and `detail`; `package_versions` (`vllm_version`, …: a bare name may be a user's, which redaction
        replaces) and `broken_packages`; `nccl_libraries` and `ucx_libraries`, each with `place`, `path` and, of
        NCCL, `version` and `cuda_version`; `nccl_loaded`: its `way`, and the library as above where there is one;
        `vllm_nccl_path`: whether the file that VLLM_NCCL_SO_PATH names is there, None where it names none;
        `vllm_pins`: whether VLLM_WSL2_ENABLE_PIN_MEMORY is set, so that vLLM pins host memory under WSL2 too.
    """
    failure, python = None, None
    try:
        python = engine_python.find(os.environ)
    except engine_python.FailedError as error:
        failure = {"cause": error.cause, "detail": str(error)}
    folders = python.folders if python else ()
    installed = _distributions.look(folders)
    torch = _distributions.holding(folders, "torch/version.py")
    return {
        "engine_python": {"failure": failure} if failure else _told(python),
        "package_versions": {f"{name}_version": said for name, said in installed.versions.items()}
        | _distributions.torch_build(torch),
        "broken_packages": list(installed.broken),
        "nccl_libraries": [_nccl(place, path, python) for place, path in known(places(python, os.environ))],
        "ucx_libraries": [
            {"place": place, "path": shown_in(path, python)} for place, path in known(_ucxplaces(folders, os.environ))
        ],
        "nccl_loaded": _loaded(python, torch, os.environ),
        "vllm_nccl_path": _named_outright(os.environ),
        "vllm_pins": os.environ.get("VLLM_WSL2_ENABLE_PIN_MEMORY", "").lower() in ("1", "true"),
    }


def _told(python: engine_python.Python | None) -> Answer | None:
    return python and {"named_by": python.named_by, "kind_of": python.kind, "version": python.version}


def _ucxplaces(folders: Iterable[str], environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for folder in folders:
        yield "ucx_wheel", f"{folder}/libucx/lib/{_UCX}"
        for name in ("nixl*.libs", ".nixl*.libs"):
            here = sorted(glob.glob(f"{glob.escape(folder)}/{name}/libucp[-.]*"))  # noqa: PTH207 # names of a wheel
            yield from (("nixl_wheel", path) for path in here)
    yield from system(_UCX, environment)


def _nccl(place: str, path: str, python: engine_python.Python | None) -> Answer:
    version, cuda = _nccl_version(path)
    return {"place": place, "path": shown_in(path, python), "version": version, "cuda_version": cuda}


def _nccl_version(path: str) -> tuple[str | None, str | None]:
    """From the text inside (two wheels may overwrite each other's file), else from the real file's name."""
    try:
        found = _elf.text(path, _NCCL_VERSION)
    except (OSError, _elf.NoElfError):
        found = None
    if found:
        return found[1].decode("ascii"), found[2].decode("ascii")
    name = _FILE_VERSION.fullmatch(os.path.basename(os.path.realpath(path)))  # noqa: PTH119
    return (name[1] if name else None), None


def _loaded(python: engine_python.Python | None, torch: str | None, environment: Mapping[str, str]) -> Answer:
    found = engine_nccl.loaded(python, torch, environment)
    answer: Answer = {"way": found.way}
    if found.path is not None:
        place = "ld_preload" if found.way == "ld_preload" else engine_nccl.place_of(found.path, python, environment)
        answer["library"] = _nccl(place, found.path, python)
    return answer if found.detail is None else {**answer, "detail": found.detail}


def _named_outright(environment: Mapping[str, str]) -> str | None:
    named = environment.get(engine_nccl.NAMED_OUTRIGHT)
    return None if not named else "there" if os.path.isfile(named) else "not_there"  # noqa: PTH113 # never raises
