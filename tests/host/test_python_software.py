"""Which NCCL a Python would load: hand-made libraries and environments, and the real loader as the judge of ours."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from warmspare.control import engine_python
from warmspare.host import engine_nccl, experiments
from warmspare.host.experiments import _distributions, _elf, _loader

Look = Callable[..., dict[str, Any]]
NCCL = "libnccl.so.2"
X86_64, OTHER = 62, 243
WHEEL = "$ORIGIN/../../nvidia/nccl/lib"


def elf(  # noqa: PLR0913 # what a library may say, each with a default
    needed: tuple[str, ...] = (),
    *,
    rpath: str = "",
    runpath: str = "",
    soname: str = "",
    says: str = "",
    machine: int = X86_64,
) -> bytes:
    """A 64-bit library of headers alone, with a table of strings, a dynamic section and constants."""
    strings, entries = b"\0", []
    for tag, text in ((14, soname), (15, rpath), (29, runpath), *((1, name) for name in needed)):
        if text:
            entries.append((tag, len(strings)))
            strings += text.encode() + b"\0"
    base = 0x10000  # what is at 0 in the file is elsewhere in memory
    at = 64 + 2 * 56
    entries += [(5, base + at), (0, 0)]
    dynamic = b"".join(struct.pack("<QQ", *entry) for entry in entries)
    constants = says.encode() + b"\0"
    names = b"\0.rodata\0.shstrtab\0"
    places = [at, at + len(strings), at + len(strings) + len(dynamic)]
    sections_at = places[2] + len(constants) + len(names)
    head = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, 0, 64, sections_at, 0, 64, 56, 2, 64, 3, 2)
    segments = struct.pack("<IIQQQQQQ", 1, 4, 0, base, base, sections_at, sections_at, 4096)
    segments += struct.pack("<IIQQQQQQ", 2, 4, places[1], base + places[1], 0, len(dynamic), len(dynamic), 8)
    sections = bytes(64)
    for name, offset, size in ((1, places[2], len(constants)), (9, places[2] + len(constants), len(names))):
        sections += struct.pack("<IIQQQQIIQQ", name, 1, 2, 0, offset, size, 0, 0, 1, 0)
    return head + segments + strings + dynamic + constants + names + sections


def put(path: Path, data: bytes | str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    path.chmod(0o755)
    return path


def nccl(folder: Path, version: str = "2.28.9", machine: int = X86_64) -> Path:
    return put(folder / NCCL, elf(soname=NCCL, says=f"\0NCCL version {version}+cuda13.0", machine=machine))


def package(site: Path, name: str, version: str, more: str = "") -> None:
    put(
        site / f"{name}-{version.partition('+')[0]}.dist-info/METADATA",
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{more}",
    )


def torch(site: Path, *, rpath: str = "", runpath: str = "") -> None:
    package(site, "torch", "2.11.0", "Requires-Dist: nvidia-nccl-cu13==2.28.9; platform_system == 'Linux'\n")
    put(
        site / "torch/version.py",
        "__version__ = '2.11.0+cu130'\ncuda: Optional[str] = '13.0'\nhip: Optional[str] = None\n",
    )
    put(site / "torch/lib/libtorch_cuda.so", elf((NCCL,), rpath=rpath, runpath=runpath))


def environment_of(root: Path, *, program: bytes = b"") -> Path:
    """A Python 3.12 with its folders; returns the one for packages."""
    put(root / "bin/python3.12", program or elf())
    (root / "bin/python3").symlink_to("python3.12")
    site = root / "lib/python3.12/site-packages"
    site.mkdir(parents=True)
    return site


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Look:
    """Run the experiment in an environment of these variables alone, where the system has no library."""
    monkeypatch.setattr(_loader, "CACHE", str(tmp_path / "ld.so.cache"))
    monkeypatch.setattr(_loader, "default_folders", list)

    def run(**variables: str | Path) -> dict[str, Any]:
        for name in list(os.environ):
            if name != "PYTEST_CURRENT_TEST":
                monkeypatch.delenv(name)
        for name, value in {"PATH": "", **variables}.items():
            monkeypatch.setenv(name, str(value))
        answer = experiments.run("python_software")
        shown = json.dumps(answer)
        assert str(tmp_path) not in shown, "a path that names people"
        found: dict[str, Any] = json.loads(shown)
        return found

    return run


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return environment_of(tmp_path / "env")


@pytest.fixture
def python(tmp_path: Path) -> Path:
    return tmp_path / "env/bin/python3"


def test_a_torch_wheel_loads_the_nccl_wheel_whatever_ld_library_path_says(
    look: Look, site: Path, python: Path, tmp_path: Path
) -> None:
    torch(site, rpath=f"$ORIGIN/../../nvidia/cu13/lib:{WHEEL}:$ORIGIN")
    package(site, "nvidia_nccl_cu13", "2.28.9")
    nccl(site / "nvidia/nccl/lib")
    nccl(tmp_path / "other", "2.18.1")
    answer = look(WARMSPARE_PYTHON=python, LD_LIBRARY_PATH=tmp_path / "other")
    wheel = {
        "place": "python_package", "path": f"site-packages/nvidia/nccl/lib/{NCCL}",
        "version": "2.28.9", "cuda_version": "13.0",
    }  # fmt: skip
    other = {"place": "ld_library_path", "path": f"…/{NCCL}", "version": "2.18.1", "cuda_version": "13.0"}
    assert answer["engine_python"] == {"named_by": "warmspare_python", "kind_of": "other_prefix", "version": "3.12"}
    assert answer["nccl_loaded"] == {"way": "rpath", "library": wheel}
    assert answer["nccl_libraries"] == [wheel, other]
    assert answer["package_versions"] == {
        "torch_version": "2.11.0+cu130", "torch_cuda": "13.0", "torch_nccl_version": "2.28.9",
        "nvidia_nccl_cu13_version": "2.28.9",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("links", "folders", "way"),
    [
        ({"rpath": WHEEL}, "preferred system", "ld_library_path"),
        ({"rpath": WHEEL}, "wheel preferred system", "rpath"),
        ({"runpath": WHEEL}, "wheel preferred system", "ld_library_path"),
        ({"runpath": "${ORIGIN}/../../nvidia/nccl/lib"}, "wheel system", "runpath"),
        ({"rpath": WHEEL, "runpath": "/nowhere"}, "wheel system", "ld_so_cache"),
        ({}, "wheel system", "ld_so_cache"),
        ({}, "wheel", "not_found"),
    ],
)
def test_order_of_the_search(look: Look, tmp_path: Path, links: dict[str, str], folders: str, way: str) -> None:
    site = environment_of(tmp_path / "env")
    torch(site, **links)
    places = {"wheel": site / "nvidia/nccl/lib", "preferred": tmp_path / "preferred", "system": tmp_path / "system"}
    for name in folders.split():
        nccl(places[name])
    if "system" in folders:
        cache(Path(_loader.CACHE), {NCCL: f"{places['system']}/{NCCL}"})
    variables = {"WARMSPARE_PYTHON": tmp_path / "env/bin/python3", "LD_LIBRARY_PATH": f"/nowhere:{tmp_path}/preferred"}
    loaded = look(**variables)["nccl_loaded"]
    assert loaded["way"] == way
    assert ("library" in loaded) == (way != "not_found")


def cache(path: Path, entries: dict[str, str]) -> Path:
    """A cache of ldconfig's, in the format that has been the only one since glibc 2.32."""
    at = 48 + 24 * len(entries)
    rows, strings = b"", b""
    for name, file in entries.items():
        key = at + len(strings)
        strings += os.fsencode(name) + b"\0"
        rows += struct.pack("<iIIIQ", 0x303, key, at + len(strings), 0, 0)
        strings += os.fsencode(file) + b"\0"
    head = b"glibc-ld.so.cache1.1" + struct.pack("<II", len(entries), len(strings)) + bytes(20)
    return put(path, b"ld.so-1.7.0\0" + bytes(4) + head + rows + strings)


def test_a_library_of_another_machine_is_passed_over_and_a_damaged_one_is_not(
    look: Look, site: Path, python: Path, tmp_path: Path
) -> None:
    torch(site)
    nccl(tmp_path / "foreign", "2.1.1", machine=OTHER)
    nccl(tmp_path / "good", "2.2.2")
    variables = {"WARMSPARE_PYTHON": python, "LD_LIBRARY_PATH": f"{tmp_path}/foreign:{tmp_path}/good"}
    assert look(**variables)["nccl_loaded"]["library"]["version"] == "2.2.2"
    put(tmp_path / "foreign" / NCCL, "cut short")
    assert look(**variables)["nccl_loaded"] == {"way": "damaged", "detail": f"…/{NCCL}: no ELF header"}


def test_the_programs_own_rpath_counts_too(look: Look, tmp_path: Path) -> None:
    site = environment_of(tmp_path / "conda", program=elf(rpath="$ORIGIN/../lib"))
    (tmp_path / "conda/conda-meta").mkdir()
    torch(site)
    nccl(tmp_path / "conda/lib")
    answer = look(WARMSPARE_PYTHON=tmp_path / "conda/bin/python3")
    assert answer["engine_python"]["kind_of"] == "conda_environment"
    assert (answer["nccl_loaded"]["way"], answer["nccl_loaded"]["library"]["place"]) == ("rpath", "conda_environment")
    torch(site, runpath="/nowhere")  # with one of its own, no RPATH of another counts
    assert look(WARMSPARE_PYTHON=tmp_path / "conda/bin/python3")["nccl_loaded"]["way"] == "not_found"


def test_ld_preload_and_vllms_own_variable(look: Look, site: Path, python: Path, tmp_path: Path) -> None:
    torch(site, rpath=WHEEL)
    nccl(site / "nvidia/nccl/lib")
    mine = nccl(tmp_path / "mine", "2.30.7")
    answer = look(WARMSPARE_PYTHON=python, LD_PRELOAD=mine, VLLM_NCCL_SO_PATH=mine)
    assert (answer["nccl_loaded"]["way"], answer["nccl_loaded"]["library"]["version"]) == ("ld_preload", "2.30.7")
    assert answer["vllm_nccl_path"] == "there"
    assert [found["place"] for found in answer["nccl_libraries"]] == ["python_package", "vllm_nccl_so_path"]
    assert look(WARMSPARE_PYTHON=python, VLLM_NCCL_SO_PATH="/nowhere")["vllm_nccl_path"] == "not_there"


def test_who_loads_it_is_told_the_file_itself(look: Look, site: Path, python: Path, tmp_path: Path) -> None:
    def found(**variables: str | Path) -> engine_nccl.EngineNccl | None:
        look(WARMSPARE_PYTHON=python, **variables)
        return engine_nccl.find(os.environ)

    assert found() is None
    of_system = nccl(tmp_path / "system")
    libraries = {"LD_LIBRARY_PATH": tmp_path / "system"}
    assert found(**libraries) == (str(of_system), f"…/{NCCL}")
    torch(site, rpath=WHEEL)
    nccl(site / "nvidia/nccl/lib")
    of_torch = found(**libraries)
    assert of_torch
    assert Path(of_torch.path).samefile(site / "nvidia/nccl/lib" / NCCL)
    assert of_torch.shown == f"site-packages/nvidia/nccl/lib/{NCCL}"
    named = found(**libraries, VLLM_NCCL_SO_PATH="/nowhere/libnccl.so.2")
    assert named == ("/nowhere/libnccl.so.2", f"…/{NCCL}")
    torch(site)
    put(site / "torch/__init__.py", "def _load_global_deps():\n    _preload_cuda_deps()\n")
    either = found(**libraries)  # torch looks among its wheels first
    assert either
    assert either.shown == f"site-packages/nvidia/nccl/lib/{NCCL}"


@pytest.mark.parametrize(("said", "pins"), [("1", True), ("true", True), ("True", True), ("0", False), ("", False)])
def test_whether_vllm_pins_under_wsl(look: Look, site: Path, python: Path, said: str, *, pins: bool) -> None:
    torch(site)
    assert look(WARMSPARE_PYTHON=python, VLLM_WSL2_ENABLE_PIN_MEMORY=said)["vllm_pins"] is pins


def test_a_torch_that_loads_wheels_itself_is_believed_only_where_ldso_agrees(
    look: Look, site: Path, python: Path, tmp_path: Path
) -> None:
    put(site / "torch/__init__.py", "def _load_global_deps():\n    _preload_cuda_deps()\n")
    nccl(site / "nvidia/nccl/lib")
    nccl(tmp_path / "other", "2.18.1")
    variables = {"WARMSPARE_PYTHON": python, "LD_LIBRARY_PATH": tmp_path / "other"}
    ways = []
    for links in ({"rpath": WHEEL}, {"runpath": WHEEL}, {}):
        torch(site, **links)
        ways.append(look(**variables)["nccl_loaded"]["way"])
    assert ways == ["rpath", "not_understood", "not_understood"]
    torch(site, runpath=WHEEL)
    assert look(WARMSPARE_PYTHON=python)["nccl_loaded"]["way"] == "runpath"


def test_torch_without_cuda_with_nccl_linked_in_damaged_and_none(look: Look, site: Path, python: Path) -> None:
    def way() -> str:
        return str(look(WARMSPARE_PYTHON=python)["nccl_loaded"]["way"])

    assert way() == "no_torch"
    torch(site)
    put(site / "torch/lib/libtorch_cuda.so", elf(("libc.so.6",)))
    assert way() == "linked_in"
    put(site / "torch/lib/libtorch_cuda.so", elf((NCCL,))[:150])
    assert way() == "not_understood"
    (site / "torch/lib/libtorch_cuda.so").unlink()
    assert way() == "no_cuda"


def test_metadata_that_is_broken_twofold_or_old(look: Look, site: Path, python: Path, tmp_path: Path) -> None:
    (site / "vllm-0.11.0.dist-info").mkdir()
    (site / "~orch-2.9.0.dist-info").mkdir()
    put(site / "nixl-1.5.1.dist-info/METADATA", "Version: \x1b[31m1\n")
    put(site / "ucx_py_cu12-0.44.0-py3.12.egg-info", "Name: ucx-py-cu12\nVersion: 0.44.0\n")
    package(site, "nvidia-nccl-cu12", "2.27.3")
    package(site, "torchvision", "0.26.0")
    package(tmp_path / "first", "cuda.bindings", "13.0.1")
    package(site, "cuda_bindings", "12.9.0")
    put(tmp_path / "first/libucx/lib/libucp.so.0")
    put(site / "nixl_cu13.libs/libucp-0a1b2c3d.so.0.0.0")
    answer = look(WARMSPARE_PYTHON=python, PYTHONPATH=f"{tmp_path}/first:/nowhere:relative")
    assert answer["package_versions"] == {
        "cuda_bindings_version": "13.0.1", "nvidia_nccl_cu12_version": "2.27.3", "ucx_py_cu12_version": "0.44.0",
    }  # fmt: skip
    assert answer["broken_packages"] == ["nixl", "vllm"]
    assert answer["ucx_libraries"] == [
        {"place": "ucx_wheel", "path": "…/libucx/lib/libucp.so.0"},
        {"place": "nixl_wheel", "path": "site-packages/nixl_cu13.libs/libucp-0a1b2c3d.so.0.0.0"},
    ]


def test_the_engines_python_goes_before_that_of_the_environment_and_of_path(look: Look, tmp_path: Path) -> None:
    for name in ("engine", "active", "path"):
        package(environment_of(tmp_path / name), "torch", {"engine": "1.0", "active": "2.0", "path": "3.0"}[name])
    launcher = put(tmp_path / "programs/vllm", f"#!{tmp_path}/engine/bin/python3\nimport sys\n")
    path = f"{tmp_path}/programs:{tmp_path}/path/bin"

    def seen(**variables: str | Path) -> tuple[str, str]:
        answer = look(**variables)
        return answer["engine_python"]["named_by"], answer["package_versions"]["torch_version"]

    assert seen(PATH=path, VIRTUAL_ENV=tmp_path / "active") == ("vllm_program", "1.0")
    put(launcher, f"#!/bin/sh\n'''exec' \"{tmp_path}/engine/bin/python3\" \"$0\" \"$@\"\n' '''\n")
    assert seen(PATH=path) == ("vllm_program", "1.0")
    put(launcher, "#!/usr/bin/env python3\n")
    assert seen(PATH=path) == ("vllm_program", "3.0")
    put(launcher, "#!/bin/bash\n")
    assert seen(PATH=path, VIRTUAL_ENV=tmp_path / "active") == ("virtual_env", "2.0")
    assert seen(PATH=path, VIRTUAL_ENV="/nowhere") == ("search_path", "3.0")
    assert look(PATH=path, WARMSPARE_PYTHON="/nowhere")["engine_python"] is None


def test_virtual_environments_linked_and_with_the_systems_packages(look: Look, tmp_path: Path) -> None:
    base = environment_of(tmp_path / "base")
    package(base, "vllm", "0.11.0")
    venv = tmp_path / "venv"
    package(venv / "lib/python3.12/site-packages", "torch", "2.9.0")
    (venv / "bin").mkdir()
    (venv / "bin/python3").symlink_to(tmp_path / "base/bin/python3")
    (tmp_path / "link").symlink_to(venv)
    config = put(venv / "pyvenv.cfg", f"home = {tmp_path}/base/bin\ninclude-system-site-packages = false\n")
    answer = look(VIRTUAL_ENV=tmp_path / "link")
    assert answer["engine_python"] == {"named_by": "virtual_env", "kind_of": "virtual_environment", "version": "3.12"}
    assert answer["package_versions"] == {"torch_version": "2.9.0"}
    put(config, f"home = {tmp_path}/base/bin\ninclude-system-site-packages = TRUE\n")
    assert look(VIRTUAL_ENV=venv)["package_versions"] == {"torch_version": "2.9.0", "vllm_version": "0.11.0"}


def test_folders_of_pth_files_are_searched_and_their_code_is_not_run(
    look: Look, site: Path, python: Path, tmp_path: Path
) -> None:
    package(tmp_path / "linked", "vllm", "0.12.0")
    put(site / "a.pth", f"# a comment\n{tmp_path}/linked\nimport os; os.mkdir('{tmp_path}/ran')\n/nowhere\n")
    assert look(WARMSPARE_PYTHON=python)["package_versions"] == {"vllm_version": "0.12.0"}
    assert not (tmp_path / "ran").exists()


def test_a_shim_is_asked_which_python_it_stands_for(look: Look, site: Path, tmp_path: Path) -> None:
    package(site, "torch", "2.9.0")
    shim = put(tmp_path / "shims/python3", f"#!/bin/sh\necho {tmp_path}/env/bin/python3\necho python3.12\n")
    assert look(PATH=shim.parent)["package_versions"] == {"torch_version": "2.9.0"}
    put(shim, "#!/bin/sh\necho 'pyenv: python3: command not found' >&2\nexit 127\n")
    failure = look(PATH=shim.parent)["engine_python"]["failure"]
    assert failure == {"cause": "crashed", "detail": "asked for its version, it gave no answer and status 127"}


def test_a_python_that_hangs_is_an_absence(look: Look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_python, "ASK_S", 0.1)
    shim = put(tmp_path / "shims/python3", f"#!/bin/sh\nexec {shutil.which('sleep')} 600\n")
    assert look(PATH=shim.parent)["engine_python"]["failure"]["cause"] == "timeout"


@pytest.mark.root
def test_packages_that_are_kept_from_us_are_an_absence(look: Look) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        environment_of(Path(folder)).chmod(0o700)
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.setresuid(65534, 65534, 65534)
                os.write(writer, json.dumps(look(WARMSPARE_PYTHON=f"{folder}/bin/python3")).encode())
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        os.close(writer)
        said = json.loads(os.read(reader, 65536))
        os.close(reader)
    assert said["engine_python"]["failure"]["cause"] == "denied"


@pytest.mark.parametrize("program", [sys.executable, "/usr/bin/python3"])
def test_package_folders_are_those_that_a_real_python_searches(program: str, tmp_path: Path) -> None:
    if not Path(program).exists():
        pytest.skip(f"{program} is not there")
    environment = {"HOME": str(tmp_path), "PATH": "", "WARMSPARE_PYTHON": program}
    (tmp_path / f".local/lib/python3.{sys.version_info[1]}/site-packages").mkdir(parents=True)
    told = subprocess.run(
        [program, "-c", "import sys; print(*sys.path, sep='\\n')"],
        env=environment, capture_output=True, text=True, check=True, timeout=30,
    ).stdout.splitlines()  # fmt: skip
    found = engine_python.find(environment)
    assert found
    assert [folder for folder in told if folder.endswith("-packages") and Path(folder).is_dir()] == [
        folder for folder in found.folders if folder.endswith("-packages")
    ]


@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")
@pytest.mark.parametrize("flags", ["--disable-new-dtags", "--enable-new-dtags", None])
@pytest.mark.parametrize("folders", [("wheel", "preferred"), ("wheel",), ("preferred",), ()])
def test_the_real_loader_takes_the_file_that_we_name(
    tmp_path: Path, flags: str | None, folders: tuple[str, ...]
) -> None:
    """Libraries built here, loaded by a Python of their own; its maps say which file it was."""

    def build(path: Path, *more: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        source = put(tmp_path / "empty.c", "int answer(void) { return 42; }\n")
        subprocess.run(["cc", "-shared", "-fPIC", "-o", str(path), str(source), *more], check=True, timeout=60)

    name = "libwarmspare_probe.so.2"
    build(tmp_path / "build" / name, f"-Wl,-soname,{name}")
    links = [f"-Wl,{flags}", "-Wl,-rpath,$ORIGIN/../wheel"] if flags else []
    needing = tmp_path / "torch/libneeding.so"
    build(needing, "-Wl,--no-as-needed", str(tmp_path / "build" / name), *links)
    for folder in folders:
        put(tmp_path / folder / name, (tmp_path / "build" / name).read_bytes())
    environment = {"LD_LIBRARY_PATH": f"/nowhere:{tmp_path}/preferred"}
    code = "import ctypes, sys; ctypes.CDLL(sys.argv[1]); print(open('/proc/self/maps').read())"
    ran = subprocess.run(
        [sys.executable, "-c", code, str(needing)], env={**os.environ, **environment}, capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip
    program = os.path.realpath(sys.executable)
    found = _loader.find(name, [(str(needing), _elf.read(str(needing))), (program, _elf.read(program))], environment)
    loaded = {line.split()[-1] for line in ran.stdout.splitlines() if line.endswith(name)}
    assert loaded == ({os.path.realpath(found.path)} if found else set())
    assert (ran.returncode == 0) == (found is not None)


def test_the_real_cache_is_read_as_ldconfig_prints_it() -> None:
    ldconfig = shutil.which("ldconfig", path="/sbin:/usr/sbin:/usr/bin")
    if not ldconfig or not Path(_loader.CACHE).exists():
        pytest.skip("no ld.so.cache here")
    printed = subprocess.run([ldconfig, "-p"], capture_output=True, text=True, check=True, timeout=30).stdout
    told = [line.strip().split(" => ") for line in printed.splitlines() if " => " in line]
    for name in ("libc.so.6", "libm.so.6"):
        assert _loader.cached(name) == [path for said, path in told if said.split()[0] == name]


def test_of_a_thousand_packages_only_those_that_matter_are_opened(
    look: Look, site: Path, python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1000):
        (site / f"package_{number}-1.0.dist-info").mkdir()
    torch(site)
    opened: list[str] = []
    read = _distributions._head  # noqa: SLF001 # counted, not changed

    def head(path: str, *size: int) -> str:
        opened.append(path)
        return read(path, *size)

    monkeypatch.setattr(_distributions, "_head", head)
    assert look(WARMSPARE_PYTHON=python)["package_versions"]["torch_version"] == "2.11.0+cu130"
    assert len(opened) < 5


WORDS = re.compile(b"NCCL version")
SOUND = elf((NCCL,), rpath=WHEEL, soname="libtorch_cuda.so", says="NCCL version 2.28.9+cuda13.0")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.one_of(
        st.binary(max_size=400),
        st.builds(lambda tail: SOUND[:64] + tail, st.binary(max_size=400)),
        st.builds(lambda end: SOUND[:end], st.integers(0, len(SOUND))),
        st.builds(
            lambda at, what: SOUND[:at] + what + SOUND[at + len(what) :],
            st.integers(0, len(SOUND)),
            st.one_of(st.binary(max_size=16), st.sampled_from([b"\xff" * 8, b"\x7f" + b"\xff" * 7])),
        ),
    )
)
@example(SOUND)
@example(SOUND[:32] + b"\xff" * 8 + SOUND[40:])
@example(SOUND[:40] + b"\xff" * 8 + SOUND[48:])
def test_any_bytes_are_understood_or_refused(tmp_path: Path, data: bytes) -> None:
    path = str(put(tmp_path / "library", data))
    for read in (_elf.read, _elf.kind, lambda name: _elf.text(name, WORDS)):
        try:
            read(path)
        except _elf.NoElfError as error:
            assert str(error)  # noqa: PT017 # one of two good ends


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=300), st.integers(0, 200))
def test_any_cache_is_read_or_passed_over(tmp_path: Path, data: bytes, at: int) -> None:
    sound = cache(tmp_path / "sound.cache", {NCCL: "/usr/lib/libnccl.so.2", "libc.so.6": "/lib/libc.so.6"}).read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        for text in (data, sound[:at] + data, sound[:at], sound[:64] + data):
            patch.setattr(_loader, "CACHE", str(put(tmp_path / "hostile.cache", text)))
            assert isinstance(_loader.cached(NCCL), list)


@pytest.mark.parametrize("kind", ["fifo", "folder"])
def test_what_is_no_file_neither_holds_nor_breaks_us(tmp_path: Path, kind: str) -> None:
    path = tmp_path / NCCL
    os.mkfifo(path) if kind == "fifo" else path.mkdir()
    with pytest.raises(_elf.NoElfError):
        _elf.read(str(path))
