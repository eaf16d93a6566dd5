"""NCCL by ctypes: refusals by name, what a version number means; the real calls are tried in tests/trials."""

from __future__ import annotations

from pathlib import Path

import pytest

from standins import NOW, Drivers
from warmspare.control.nccl import Nccl, NcclError

VERSIONS = [(2708, "2.7.8"), (2804, "2.8.4"), (20908, "2.9.8"), (21304, "2.13.4"), (22809, "2.28.9"), (23000, "2.30.0")]


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Nccl, Path]:
    monkeypatch.delenv("NCCL_P2P_DISABLE", raising=False)
    Drivers(tmp_path).world("here", nccl=NOW)
    return Nccl(str(tmp_path / "here/libnccl.so.2")), tmp_path / "here/plan"


@pytest.mark.parametrize(("number", "version"), VERSIONS)
def test_versions(library: tuple[Nccl, Path], number: int, version: str) -> None:
    nccl, plan = library
    plan.write_text(f"version: gives {number}\n")
    assert nccl.version == version


@pytest.mark.parametrize(
    ("result", "name"), [(1, "ncclUnhandledCudaError"), (6, "ncclRemoteError"), (99, "ncclUnnamedError")]
)
def test_a_refusal_has_its_raw_number_its_name_and_nccls_words(
    library: tuple[Nccl, Path], result: int, name: str
) -> None:
    nccl, plan = library
    plan.write_text(f"ncclGetVersion *: returns {result}\nsaid *: gives 217\n")
    with pytest.raises(NcclError) as caught:
        _ = nccl.version
    assert (caught.value.code, caught.value.result, caught.value.name) == (f"{result} {name}", result, name)
    assert caught.value.detail == "ncclGetVersion (Cuda failure 217 'peer access is not supported')"


def test_a_library_that_is_not_there_is_named_without_its_folder(tmp_path: Path) -> None:
    with pytest.raises(NcclError) as caught:
        Nccl(str(tmp_path / "libnccl.so.2"))
    assert (caught.value.result, caught.value.call) == (None, "dlopen")
    assert "cannot open shared object file" in caught.value.code
    assert str(tmp_path) not in str(caught.value)


def test_an_empty_group_and_a_freed_rank_are_refused(library: tuple[Nccl, Path]) -> None:
    nccl, _ = library
    with pytest.raises(NcclError, match="4 ncclInvalidArgument"):
        nccl.communicators([])
    group = nccl.communicators([0, 1])
    group.check()
    group.abort()
    with pytest.raises(NcclError, match="ncclCommDestroy: 4"):
        group.destroy()


def test_an_async_error_is_raised_and_one_in_progress_is_none(library: tuple[Nccl, Path]) -> None:
    nccl, plan = library
    group = nccl.communicators([0, 1])
    plan.write_text("async error p2p rank0: gives 7\n")
    group.check()
    plan.write_text("async error p2p rank1: gives 6\n")
    with pytest.raises(NcclError, match="6 ncclRemoteError"):
        group.check()
