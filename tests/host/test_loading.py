"""What the loader says is kept without the folders of people, whatever library it is about."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import Tool
from warmspare.host import loading, nvml, verbs
from warmspare.model.transcript import Failed

HOME = "/data/vault/bob smith"
LIBRARIES = ("libcuda.so.1", "libnvidia-ml.so.1")


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/usr/lib/x86_64-linux-gnu/libcuda.so.1", "/usr/lib/x86_64-linux-gnu/libcuda.so.1"),
        ("/usr/local/cuda/compat/lib.real/libcuda.so.1", "/usr/local/cuda/compat/lib.real/libcuda.so.1"),
        ("/lib64/libcuda.so.1", "/lib64/libcuda.so.1"),
        ("/opt/cuda/libcuda.so.1", "/opt/cuda/libcuda.so.1"),
        ("/nix/store/abc-nvidia/lib/libcuda.so.1", "/nix/store/abc-nvidia/lib/libcuda.so.1"),
        ("/run/opengl-driver/lib/libcuda.so.1", "/run/opengl-driver/lib/libcuda.so.1"),
        ("//usr/lib/libcuda.so.1", "/usr/lib/libcuda.so.1"),
        ("/usr/../data/bob/libcuda.so.1", "…/libcuda.so.1"),
        ("/usrbob/libcuda.so.1", "…/libcuda.so.1"),
        ("/libbob/libcuda.so.1", "…/libcuda.so.1"),
        (f"{HOME}/lib/libcuda.so.1", "…/libcuda.so.1"),
        ("bob/lib/libcuda.so.1", "…/libcuda.so.1"),
        (f"{HOME}/cuda/lib64/stubs/libcuda.so", "…/stubs/libcuda.so"),
        (f"{HOME}/cuda/compat/lib.real/libcuda.so.1", "…/compat/…/libcuda.so.1"),
        (f"{HOME}/cuda-compat-12-8/libcuda.so.1", "…/cuda-compat-12-8/libcuda.so.1"),
        (os.fsdecode(b"/data/\xff/lib\xff.so"), "…/lib\ufffd.so"),
    ],
)
def test_a_path_is_shown_below_a_systems_folder_alone(path: str, shown: str) -> None:
    assert loading.shown(path) == shown
    assert loading.shown(shown).rpartition("/")[2] == shown.rpartition("/")[2]


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (
            "libcuda.so.1: cannot open shared object file: No such file or directory",
            "libcuda.so.1: cannot open shared object file: No such file or directory",
        ),
        (f"{HOME}/lib/libcuda.so.1: file too short", "…/libcuda.so.1: file too short"),
        ("bob smith/lib/libcuda.so.1: invalid ELF header", "…/libcuda.so.1: invalid ELF header"),
        ("/usr/lib/libcuda.so.1: undefined symbol: x", "/usr/lib/libcuda.so.1: undefined symbol: x"),
        (
            f"/lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.38' not found (required by {HOME}/lib/libcuda.so.1)",
            "/lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.38' not found (required by …/libcuda.so.1)",
        ),
        (
            f"Error loading shared library libx.so: No such file or directory (needed by {HOME}/lib/libcuda.so.1)",
            "Error loading shared library libx.so: No such file or directory (needed by …/libcuda.so.1)",
        ),
        (
            f"Error relocating {HOME}/lib/libcuda.so.1: gnu_get_libc_version: symbol not found",
            "Error relocating …/libcuda.so.1: gnu_get_libc_version: symbol not found",
        ),
        (
            f"Error loading shared library {HOME}/libcuda.so.1: Exec format error",
            "Error loading shared library …/libcuda.so.1: Exec format error",
        ),
        ("new words: about '/data/vault/bobsmith/x.so'", "new words: about '…/x.so'"),
        ("new words about '/data/vault/bobsmith/x.so'", "…/x.so'"),
    ],
)
def test_what_the_loader_says_is_kept_without_folders(said: str, kept: str) -> None:
    assert loading.without_folders(said) == kept
    assert loading.without_folders(kept) == kept


FOLDERS = st.text(st.characters(codec="utf-8", exclude_characters="/:;\0"), min_size=1, max_size=12)


@given(FOLDERS, FOLDERS)
def test_no_folder_of_the_search_path_is_left_in_front(one: str, two: str) -> None:
    said = loading.without_folders(f"/7home7/{one}/7{two}7/libcuda.so.1: file too short")
    assert said == "…/libcuda.so.1: file too short" or two in ("stubs", "compat")


def test_the_symbol_verb_names_no_folder(tmp_path: Path) -> None:
    damaged = tmp_path / "bobsmith/libdamaged.so"
    damaged.parent.mkdir()
    damaged.write_text("no library")
    for path, cause in ((damaged, "invalid"), (damaged.with_name("nowhere.so"), None)):
        answer = verbs.do("symbol", (str(path), "x"))
        assert isinstance(answer, Failed)
        assert (answer.cause, answer.detail.partition(":")[0]) == (cause, f"…/{path.name}")


def test_nvml_that_cannot_be_loaded_names_no_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    damaged = tmp_path / "bobsmith/libnvidia-ml.so.1"
    damaged.parent.mkdir()
    damaged.write_text("no library")
    monkeypatch.setattr(nvml, "LIBRARIES", (str(damaged),))
    answer = nvml.ask("nvmlDeviceGetCount")
    assert isinstance(answer, Failed)
    assert (answer.cause, answer.code, answer.detail.partition(":")[0]) == ("invalid", "12", "…/libnvidia-ml.so.1")


@pytest.mark.parametrize("name", ["cuda_library", "cuda_count"])
@pytest.mark.parametrize("whole", [True, False])
def test_no_answer_of_libcuda_names_a_folder(tmp_path: Path, name: str, *, whole: bool) -> None:
    folder = vault(tmp_path, whole=whole) / "lib"
    code = f"import json; from warmspare.host.experiments import run; print(json.dumps(run({name!r})))"
    env = {"LD_LIBRARY_PATH": str(folder), "PYTHONPATH": str(Path(loading.__file__).parents[2])}
    ran = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True, timeout=20)
    answer: dict[str, Any] = msgspec.json.decode(ran.stdout)
    assert b"bobsmith" not in ran.stdout
    if whole:
        assert (answer["found"], answer["broken"]) == (True, False)
    else:
        assert (answer["broken"], answer["detail"].partition(":")[0]) == (True, "…/libcuda.so.1")


def vault(tmp_path: Path, *, whole: bool) -> Path:
    """A home of an unusual place, with libraries in it that are whole and not the driver's, or damaged."""
    home = tmp_path / "vault/bobsmith"
    (home / "lib").mkdir(parents=True)
    import _ctypes  # noqa: PLC0415 # any library will do

    other = Path(_ctypes.__file__).read_bytes() if whole else b"no library"
    for name in LIBRARIES:
        (home / "lib" / name).write_bytes(other)
    return home


@pytest.mark.parametrize("whole", [True, False])
def test_a_snapshot_names_no_home_in_an_unusual_place(tool: Tool, tmp_path: Path, *, whole: bool) -> None:
    home = vault(tmp_path, whole=whole)
    program = home / "bin/docker"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho $HOME/.docker: no such profile\nexit 1\n")
    program.chmod(0o755)
    env = {
        "HOME": str(home),
        "LD_LIBRARY_PATH": f"{home}/lib",
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "CUDA_MPS_PIPE_DIRECTORY": f"{home}/mps",
        "VLLM_NCCL_SO_PATH": f"{home}/lib/libcuda.so.1",
        "WARMSPARE_PYTHON": f"{home}/nowhere/python3",
    }
    ran = tool("snapshot", "--no-trials", "-o", "-", env=env)
    assert ran.returncode == 0, ran.stderr
    assert "bobsmith" not in ran.stdout
    assert "~/.docker: no such profile" in ran.stdout
    assert "~/bin/docker" in ran.stdout


def test_the_loader_here_speaks_as_these_tests_have_it(tmp_path: Path) -> None:
    damaged = tmp_path / "a b/libx.so"
    damaged.parent.mkdir()
    damaged.write_text("no library")
    with pytest.raises(OSError, match="libx") as caught:
        ctypes.CDLL(str(damaged))
    assert str(tmp_path) in str(caught.value)
    assert "/" not in loading.without_folders(str(caught.value)).removeprefix("…/").partition("libx.so")[0]
