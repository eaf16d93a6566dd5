"""The experiments, run for real: on this kernel, as an ordinary user, under filters that refuse one call."""

import ctypes
import errno
import importlib
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from warmspare.host import experiments
from warmspare.host.experiments import _children, _syscalls, cuda_count

DEADLINE_S = 20.0
NOBODY = 65534
ABILITIES = [
    "clone3_set_tid",
    "kcmp",
    "map_files",
    "memfd_create",
    "ns_last_pid",
    "pagemap_scan",
    "parent_death_signal",
    "pidfd",
    "soft_dirty",
    "suspend_seccomp",
    "userfaultfd",
]

PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38


class Outcome(NamedTuple):
    """What an experiment answered, and what it left in the process that ran it."""

    answer: dict[str, Any]
    children: bool
    descriptors: list[str]


def nothing() -> None:
    """Prepare nothing."""


def outcome(name: str, prepare: Callable[[], None] = nothing) -> Outcome:
    """Run an experiment in a forked child with a deadline."""
    # An ordinary user may not be able to read this checkout.
    importlib.import_module(f"{experiments.__name__}.{name}")
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            os.write(writer, json.dumps(observe(name, prepare)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    try:
        ready, _, _ = select.select([reader], [], [], DEADLINE_S)
        assert ready, f"{name} did not answer in {DEADLINE_S:.0f} s"
        return Outcome(*json.loads(os.read(reader, 65536)))
    finally:
        os.close(reader)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def observe(name: str, prepare: Callable[[], None]) -> Outcome:
    # Orphans come to us too, so that none is overlooked.
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    prepare()
    before = descriptors()
    answer = experiments.run(name)
    left = sorted(descriptors() - before)
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return Outcome(answer, children=False, descriptors=left)
    return Outcome(answer, children=True, descriptors=left)


def descriptors() -> set[str]:
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}


def prctl(option: int, *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, *(ctypes.c_ulong(word) for word in (*arguments, 0, 0, 0, 0)[:4])):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "prctl")


def refuse(call: tuple[int, int], code: int) -> None:
    """Put this process behind a seccomp filter that answers one call, (x86_64, aarch64), with an errno."""
    number = call[0] if os.uname().machine == "x86_64" else call[1]
    program = ctypes.create_string_buffer(
        struct.pack("=HBBI", 0x20, 0, 0, 0)
        + struct.pack("=HBBI", 0x15, 0, 1, number)
        + struct.pack("=HBBI", 0x06, 0, 0, 0x00050000 | code)
        + struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)
    )
    filters = ctypes.create_string_buffer(struct.pack("@HP", 4, ctypes.addressof(program)))
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    prctl(PR_SET_SECCOMP, 2, ctypes.addressof(filters))


def become_nobody() -> None:
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    # As after a login's exec: without it /proc/self would stay root's.
    prctl(PR_SET_DUMPABLE, 1)


def test_names_are_the_files_of_the_folder() -> None:
    folder = Path(experiments.__file__).parent
    assert list(experiments.names()) == sorted(p.stem for p in folder.glob("[!_]*.py"))
    assert "suspend_seccomp" in experiments.names()


@pytest.mark.parametrize("name", ["", "_syscalls", "os", "../kcmp", "kcmp.os", "warmspare"])
def test_a_name_from_outside_is_not_imported(name: str) -> None:
    with pytest.raises(ValueError, match="no experiment"):
        experiments.run(name)


@pytest.mark.parametrize("name", experiments.names())
def test_each_module_is_one_documented_function(name: str) -> None:
    module = importlib.import_module(f"{experiments.__name__}.{name}")
    public = [
        key
        for key, value in vars(module).items()
        if not key.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]
    assert public == ["run"]
    assert module.__doc__ is not None
    assert "Source: " in module.__doc__


@pytest.mark.parametrize("name", experiments.names())
@pytest.mark.parametrize(
    "prepare", [nothing, pytest.param(become_nobody, marks=pytest.mark.root)], ids=["as we are", "as nobody"]
)
def test_each_answers_and_leaves_nothing_behind(
    name: str, prepare: Callable[[], None], capfd: pytest.CaptureFixture[str]
) -> None:
    answer, children, descriptors = outcome(name, prepare)
    assert answer
    assert not children
    assert descriptors == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ABILITIES)
def test_an_ability_has_its_three_keys(name: str) -> None:
    answer = outcome(name).answer
    assert isinstance(answer["works"], bool)
    assert isinstance(answer["detail"], str)
    assert answer["errno"] is None or hasattr(errno, answer["errno"])
    if answer["works"]:
        assert answer["errno"] is None


@pytest.mark.parametrize("name", ["memfd_create", "parent_death_signal", "pidfd"])
def test_what_any_linux_can(name: str) -> None:
    assert outcome(name).answer == {"works": True, "errno": None, "detail": ""}


@pytest.mark.parametrize("family", ["unix", "inet_tcp", "inet_udp", "inet_raw", "inet6_tcp", "packet", "netlink"])
def test_sock_diag_answers_for_each_family(family: str) -> None:
    ability = outcome("sock_diag").answer["families"][family]
    assert ability["works"] or ability["errno"] in {"ENOENT", "EOPNOTSUPP", "EPROTONOSUPPORT", "EPERM"}


REFUSED = {
    "memfd_create": (319, 279),
    "userfaultfd": (323, 282),
    "kcmp": (312, 272),
    "clone3_set_tid": (435, 435),
    "pidfd": (434, 434),
    "parent_death_signal": (157, 167),
    "pagemap_scan": (16, 29),
}


@pytest.mark.root
@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOSYS], ids=errno.errorcode.get)
@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_call_is_the_answer(name: str, code: int) -> None:
    answer, children, _ = outcome(name, partial(refuse, REFUSED[name], code))
    assert (answer["works"], answer["errno"]) == (False, errno.errorcode[code])
    assert not children


@pytest.mark.root
@pytest.mark.parametrize("kind", ["user", "pid"])
def test_a_refused_unshare_is_the_answer(kind: str) -> None:
    answer = outcome("namespaces", partial(refuse, (272, 97), errno.ENOSPC)).answer
    assert answer[kind]["errno"] == "ENOSPC"


@pytest.mark.root
def test_a_refused_socket_is_the_answer_for_every_family() -> None:
    answer = outcome("sock_diag", partial(refuse, (41, 198), errno.EPROTONOSUPPORT)).answer
    assert {ability["errno"] for ability in answer["families"].values()} == {"EPROTONOSUPPORT"}


@pytest.mark.root
def test_filters_can_be_suspended_only_by_a_tracer_without_one() -> None:
    free = outcome("suspend_seccomp").answer
    if free["own_filter"]:
        pytest.skip("this test itself runs behind a seccomp filter")
    acct = (163, 89)
    inherited = outcome("suspend_seccomp", partial(refuse, acct, errno.EPERM)).answer
    told = {"filter_installed": True, "own_filter": True, "plain_seize": True}
    assert free == {"works": True, "errno": None, "detail": "", **told, "own_filter": False}
    assert inherited == {
        "works": False,
        "errno": "EPERM",
        "detail": "ptrace: Operation not permitted",
        **told,
    }


@pytest.mark.root
def test_refused_tracing_is_told_from_refused_suspension() -> None:
    answer = outcome("suspend_seccomp", partial(refuse, (101, 117), errno.EPERM)).answer
    assert (answer["errno"], answer["plain_seize"]) == ("EPERM", False)


@pytest.mark.root
def test_an_ordinary_user_reads_map_files_links_and_opens_none() -> None:
    if not outcome("map_files").answer["works"]:
        pytest.skip("this root may not open them either")
    answer = outcome("map_files", become_nobody).answer
    assert answer == {
        "works": False,
        "errno": "EPERM",
        "detail": "opening the map_files link: Operation not permitted",
    }


@pytest.mark.root
@pytest.mark.parametrize("name", ["suspend_seccomp", "clone3_set_tid"])
def test_an_ordinary_user_may_not(name: str) -> None:
    assert outcome(name, become_nobody).answer["errno"] == "EPERM"


@pytest.mark.root
def test_userfaultfd_without_privilege_follows_the_sysctl() -> None:
    granted_to_all = Path("/proc/sys/vm/unprivileged_userfaultfd").read_text(encoding="ascii").strip() == "1"
    answer = outcome("userfaultfd", become_nobody).answer
    assert answer["works"]
    assert answer["user_mode_only"] is not granted_to_all


def test_without_a_driver_cuda_is_not_found() -> None:
    answer = outcome("cuda_count").answer
    if answer["found"]:
        pytest.skip("this machine has the CUDA driver's library")
    assert answer["path"] is None
    assert "libcuda.so.1" in answer["detail"]


DRIVER = """
#include <stdio.h>
#include <string.h>
int cuInit(unsigned flags) { return INIT; }
int cuDriverGetVersion(int *version) { *version = 12080; return 0; }
int cuDeviceGetCount(int *count) { *count = 2; return INIT; }
int cuDeviceGet(int *device, int ordinal) { *device = 40 + ordinal; return 0; }
int cuDeviceGetUuid(char *uuid, int device) { memset(uuid, device, 16); return device == 41 ? 999 : 0; }
int cuDeviceGetPCIBusId(char *text, int size, int device) {
    return snprintf(text, size, "0000:%02x:00.0", device) < 0;
}
"""


def cuda_with(folder: Path) -> dict[str, Any]:
    """Ask where `folder` is searched for the library first; the loader reads its path only at exec."""
    source = Path(experiments.__file__).parents[3]
    code = "import json; from warmspare.host.experiments import run; print(json.dumps(run('cuda_count')))"
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={"LD_LIBRARY_PATH": str(folder), "PYTHONPATH": str(source)},
        capture_output=True,
        check=True,
        timeout=DEADLINE_S,
    )
    answer: dict[str, Any] = json.loads(found.stdout)
    return answer


@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler for the stand-in driver")
@pytest.mark.parametrize("init_code", [0, 100])
def test_a_driver_is_asked_and_its_refusals_are_kept(tmp_path: Path, init_code: int) -> None:
    library, source = tmp_path / "libcuda.so.1", tmp_path / "driver.c"
    source.write_text(DRIVER.replace("INIT", str(init_code)), encoding="ascii")
    subprocess.run([str(shutil.which("cc")), "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    ready = init_code == 0
    assert cuda_with(tmp_path) == {
        "found": True,
        "path": f"…/{library.name}",
        "init_code": init_code,
        "count": 2 if ready else None,
        "driver_version": 12080,
        "uuids": ["GPU-28282828-2828-2828-2828-282828282828", None] if ready else [],
        "pci_bus_ids": ["0000:28:00.0", "0000:29:00.0"] if ready else [],
        "attributes": [dict.fromkeys(cuda_count.ATTRIBUTES)] * 2 if ready else [],
        "missing_symbols": ["cuDeviceGetAttribute"],
        "broken": False,
        "detail": "",
    }


def test_a_library_without_its_functions_is_found_and_says_what_it_lacks(tmp_path: Path) -> None:
    # Any other library will do: the loader goes by the file's name.
    other = Path(importlib.import_module("_ctypes").__file__ or "")
    shutil.copy(other, tmp_path / "libcuda.so.1")
    answer = cuda_with(tmp_path)
    assert (answer["found"], answer["init_code"], answer["count"]) == (True, None, None)
    assert answer["missing_symbols"] == [
        "cuDriverGetVersion",
        "cuInit",
        "cuDeviceGetCount",
        "cuDeviceGet",
        "cuDeviceGetUuid_v2",
        "cuDeviceGetPCIBusId",
        "cuDeviceGetAttribute",
    ]


def test_a_machine_not_numbered_here_is_no_answer() -> None:
    strange = _syscalls.Call("none", x86_64=-1, aarch64=-1)
    assert _syscalls.answer(lambda: str(_syscalls.syscall(strange)))["errno"] == "ENOSYS"
    assert not issubclass(_syscalls.UnknownMachine, OSError)


def test_an_errno_without_a_name_is_its_number() -> None:
    assert _syscalls.errno_name(OSError(524, "")) == "524"
    assert _syscalls.errno_name(TimeoutError()) == "ETIMEDOUT"


def test_a_child_that_dies_is_no_answer() -> None:
    def die() -> _syscalls.Answer:
        os.kill(os.getpid(), signal.SIGKILL)
        return {}

    with pytest.raises(_children.LostChildError, match="died of SIGKILL without an answer"):
        _children.in_child(die)


def test_a_bug_in_a_child_is_no_answer(capfd: pytest.CaptureFixture[str]) -> None:
    def stumble() -> _syscalls.Answer:
        raise ZeroDivisionError

    with pytest.raises(_children.LostChildError, match="exited 1 without an answer"):
        _children.in_child(stumble)
    assert capfd.readouterr() == ("", "")


def test_children_die_with_the_experiment() -> None:
    """A SIGKILL to the experiment ends its child at once: both hold our pipe's end, and its EOF comes."""
    reader, writer = os.pipe()

    def sleep(_line: socket.socket) -> None:
        os.write(writer, b"!")
        time.sleep(DEADLINE_S)

    pid = os.fork()
    if pid == 0:
        try:
            with _children.child(sleep):
                signal.pause()
        finally:
            os._exit(0)
    os.close(writer)
    assert os.read(reader, 1) == b"!"
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    ready, _, _ = select.select([reader], [], [], DEADLINE_S / 4)
    assert ready
    assert os.read(reader, 1) == b""
    os.close(reader)
