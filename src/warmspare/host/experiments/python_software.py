"""Which NCCL, UCX, NIXL, torch and vLLM are here, and which NCCL would torch load? Nothing of them is loaded.

The Python is the engine's (see _python.py; WARMSPARE_PYTHON names another). What its torch would load is what
ld.so finds for torch's libraries (see _loader.py). torch 2.10 and later load the wheel's NCCL by its path first
if NVIDIA's other wheels are there too: of torch's own wheels that is the one their DT_RPATH names as well, of
other builds it cannot be told from here. vLLM asks for libnccl.so.2 after it has imported torch, so it gets the
one that torch has, unless VLLM_NCCL_SO_PATH names another.

Paths are told relative to the environment: whole, they would name people.

Source: pytorch .ci/manywheel/build_cuda.sh, torch/__init__.py (_preload_cuda_deps); vLLM
vllm/utils/nccl.py (find_nccl_library), vllm/envs.py; NCCL src/init.cc (VERSION_STRING); nixl
contrib/wheel_add_ucx_plugins.py.
"""

import glob
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from warmspare.host.experiments import _distributions, _elf, _loader, _python
from warmspare.host.experiments._syscalls import Answer
from warmspare.host.loading import shown

_NCCL: Final = "libnccl.so.2"
_UCX: Final = "libucp.so.0"
_NCCL_VERSION: Final = re.compile(rb"NCCL version (\d{1,3}\.\d{1,3}\.\d{1,3}\w{0,16})\+cuda(\d{1,3}\.\d{1,3})")
_FILE_VERSION: Final = re.compile(r"libnccl\.so\.(\d{1,3}\.\d{1,3}\.\d{1,3})")
_TORCH: Final = "torch/lib/libtorch_cuda.so"
_LIMIT: Final = 16


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
        python = _python.find(os.environ)
    except _python.FailedError as error:
        failure = {"cause": error.cause, "detail": str(error)}
    folders = python.folders if python else ()
    installed = _distributions.look(folders)
    torch = _distributions.holding(folders, "torch/version.py")
    return {
        "engine_python": {"failure": failure} if failure else _told(python),
        "package_versions": {f"{name}_version": said for name, said in installed.versions.items()}
        | _distributions.torch_build(torch),
        "broken_packages": list(installed.broken),
        "nccl_libraries": [_nccl(place, path, python) for place, path in _known(_ncclplaces(python, os.environ))],
        "ucx_libraries": [
            {"place": place, "path": _shown(path, python)} for place, path in _known(_ucxplaces(folders, os.environ))
        ],
        "nccl_loaded": _loaded(python, torch, os.environ),
        "vllm_nccl_path": _named_outright(os.environ),
        "vllm_pins": os.environ.get("VLLM_WSL2_ENABLE_PIN_MEMORY", "").lower() in ("1", "true"),
    }


def _told(python: _python.Python | None) -> Answer | None:
    return python and {"named_by": python.named_by, "kind_of": python.kind, "version": python.version}


def _ncclplaces(python: _python.Python | None, environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for folder in python.folders if python else ():
        for parts in ("nvidia/nccl/lib", "nvidia/cu13/lib", "nvidia/cu12/lib", "torch/lib"):
            yield "python_package", f"{folder}/{parts}/{_NCCL}"
    if python and python.kind == "conda_environment":
        yield "conda_environment", f"{python.prefix}/lib/{_NCCL}"
    if named := environment.get("VLLM_NCCL_SO_PATH"):
        yield "vllm_nccl_so_path", named
    yield from _system(_NCCL, environment)


def _ucxplaces(folders: Iterable[str], environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for folder in folders:
        yield "ucx_wheel", f"{folder}/libucx/lib/{_UCX}"
        for name in ("nixl*.libs", ".nixl*.libs"):
            here = sorted(glob.glob(f"{glob.escape(folder)}/{name}/libucp[-.]*"))  # noqa: PTH207 # names of a wheel
            yield from (("nixl_wheel", path) for path in here)
    yield from _system(_UCX, environment)


def _system(name: str, environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    yield from (("ld_library_path", f"{folder}/{name}") for folder in _loader.library_path(environment))
    yield from (("system_loader", path) for path in _loader.cached(name))
    yield from (("system_loader", f"{folder}/{name}") for folder in _loader.default_folders())


def _known(places: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those that are there, each file once."""
    found: dict[str, tuple[str, str]] = {}
    for place, path in places:
        if os.path.isfile(path):  # noqa: PTH113 # never raises
            found.setdefault(os.path.realpath(path), (place, path))
    return list(found.values())[:_LIMIT]


def _nccl(place: str, path: str, python: _python.Python | None) -> Answer:
    version, cuda = _nccl_version(path)
    return {"place": place, "path": _shown(path, python), "version": version, "cuda_version": cuda}


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


def _named_outright(environment: Mapping[str, str]) -> str | None:
    named = environment.get("VLLM_NCCL_SO_PATH")
    return None if not named else "there" if os.path.isfile(named) else "not_there"  # noqa: PTH113 # never raises


def _loaded(python: _python.Python | None, torch: str | None, environment: Mapping[str, str]) -> Answer:
    if python is None or torch is None:
        return {"way": "no_torch"}
    if not os.path.exists(f"{torch}/{_TORCH}"):  # noqa: PTH110 # never raises
        return {"way": "no_cuda"}
    try:
        chain = list(_chain(torch, python.program))
    except (OSError, _elf.NoElfError) as error:
        return {"way": "not_understood", "detail": f"torch's libraries: {_plain(error)}"}
    if chain[1:] and _NCCL in chain[1][1].needed:  # it was there before the other
        chain = chain[1:]
    if _NCCL not in chain[0][1].needed:
        return {"way": "linked_in"}
    answer = _searched(python, chain, environment)
    if answer["way"] not in ("rpath", "ld_preload") and _distributions.loads_wheels_itself(torch):
        wheel = _distributions.holding(python.folders, f"nvidia/nccl/lib/{_NCCL}")
        if wheel and answer.get("library") != _nccl("python_package", f"{wheel}/nvidia/nccl/lib/{_NCCL}", python):
            return {
                "way": "not_understood",
                "detail": "ld.so finds another NCCL than torch, which looks first, may load",
            }
    return answer


def _searched(python: _python.Python, chain: list[tuple[str, _elf.Elf]], environment: Mapping[str, str]) -> Answer:
    if path := _loader.preloaded(_NCCL, environment):
        return {"way": "ld_preload", "library": _nccl("ld_preload", path, python)}
    try:
        found = _loader.find(_NCCL, chain, environment)
    except _elf.NoElfError as error:
        return {"way": "damaged", "detail": _plain(error)}
    if found is None:
        return {"way": "not_found"}
    return {"way": found.by, "library": _nccl(_place(found.path, python, environment), found.path, python)}


def _chain(torch: str, program: str) -> Iterator[tuple[str, _elf.Elf]]:
    """libtorch_cuda.so, those that load it (the first of them may need NCCL itself), and the program."""
    yield f"{torch}/{_TORCH}", _elf.read(f"{torch}/{_TORCH}")
    bindings = sorted(glob.glob(f"{glob.escape(torch)}/torch/_C.*.so"))[:1]  # noqa: PTH207
    for path in (f"{torch}/torch/lib/libtorch_python.so", *bindings, os.path.realpath(program)):
        if os.path.exists(path):  # noqa: PTH110 # never raises
            yield path, _elf.read(path)


def _place(path: str, python: _python.Python, environment: Mapping[str, str]) -> str:
    real = os.path.realpath(path)
    known = (place for place, other in _known(_ncclplaces(python, environment)) if os.path.realpath(other) == real)
    return next(known, "another_folder")


def _shown(path: str, python: _python.Python | None) -> str:
    """A path without what comes before the environment; outside of it as any other may be."""
    path = os.path.abspath(path)  # noqa: PTH100 # links are left as they are
    for folder in python.folders if python else ():
        name = os.path.basename(folder)  # noqa: PTH119
        if path.startswith(f"{folder}/"):
            return f"{name if name.endswith('-packages') else '…'}{path[len(folder) :]}"
    return shown(path)


def _plain(error: Exception) -> str:
    """An error without its path, or with what may be shown of it."""
    return str(error.strerror if isinstance(error, OSError) else error)[:200]
