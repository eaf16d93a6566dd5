"""What probes make of answers that are half, odd or none: "there is none" is only said when it is sure."""

from __future__ import annotations

from pathlib import Path

import pytest
from answers import CRASHED, GONE, TIMEOUT, Answers, read

from warmspare.model.facts import Absent, Cause, Known
from warmspare.model.transcript import Answer, Failed, Gave, Listed, Ran, Said
from warmspare.probes.criu import CriuCheck, CriuSeccompSuspend
from warmspare.probes.cuda import CudaInit
from warmspare.probes.driver import Driver
from warmspare.probes.gpus import Gpus
from warmspare.probes.platform import Container, Platform, Wsl
from warmspare.probes.privileges import MemoryLimit

LOGS = Path(__file__).parent.parent / "control" / "logs"
RELEASE = ("read", "/proc/sys/kernel/osrelease")
NVML = ("nvml", "nvmlDeviceGetCount")
CUDA = ("experiment", "cuda_count")
PCI = ("list", "/sys/bus/pci/devices")
INTEROP = ("exists", "/proc/sys/fs/binfmt_misc/WSLInterop")
YES = Gave(value=True)
STATUS = ("read", "/proc/self/status")


def nvml_error(code: int) -> Failed:
    return Failed(cause=Cause.INVALID, detail="nvmlDeviceGetCount: an error", code=str(code))


def cuda(**more: object) -> Gave:
    return Gave({"found": True, "init_code": 0, "count": 0, "uuids": [], "broken": False, **more})


@pytest.mark.parametrize("answer", [GONE, nvml_error(9)])
def test_no_driver_is_not_said_where_proc_is_hidden(answer: Answer) -> None:
    seen = read(Driver, {("nvml", "nvmlSystemGetDriverVersion"): answer, STATUS: GONE})
    assert isinstance(seen, Absent)
    assert seen.cause is Cause.DENIED


@pytest.mark.parametrize("answer", [CRASHED, TIMEOUT, nvml_error(999), nvml_error(18), nvml_error(12)])
def test_an_nvml_that_fails_is_not_no_driver(answer: Answer) -> None:
    assert isinstance(read(Driver, {("nvml", "nvmlSystemGetDriverVersion"): answer}), Absent)


@pytest.mark.parametrize("answer", [GONE, nvml_error(9)])
def test_no_library_and_no_module_are_no_driver(answer: Answer) -> None:
    seen = read(Driver, {("nvml", "nvmlSystemGetDriverVersion"): answer, STATUS: Said("Name:\tpython3\n")})
    assert isinstance(seen, Known)
    assert seen.value.kernel_version is None


def test_a_recording_that_does_not_say_whether_libcuda_is_broken_is_still_read() -> None:
    answer: Answers = {CUDA: Gave({"found": False, "init_code": None, "count": None})}
    init = read(CudaInit, answer)
    assert isinstance(init, Known)
    assert init.value == CudaInit(code=None, name=None)
    gpus = read(Gpus, answer)
    assert isinstance(gpus, Known)
    assert gpus.value.ids == ()


DOUBTS: dict[str, Answers] = {
    "NVML crashes": {NVML: CRASHED},
    "NVML hangs": {NVML: TIMEOUT},
    "NVML fails": {NVML: nvml_error(999)},
    "CUDA crashes": {CUDA: CRASHED},
    "cuInit fails": {CUDA: cuda(init_code=999)},
    "libcuda cannot be loaded": {
        CUDA: Gave({"found": False, "init_code": None, "broken": True, "detail": "libm.so.9"})
    },
    "CUDA cannot count": {CUDA: cuda(init_code=999, count=None)},
}
BUSES: dict[str, Answers] = {
    "no bus": {PCI: GONE},
    "WSL": {RELEASE: Said("6.6.87.2-microsoft-standard-WSL2\n"), INTEROP: YES},
}


@pytest.mark.parametrize("doubt", DOUBTS)
def test_a_doubt_is_settled_only_by_a_bus_that_shows_no_gpu(doubt: str) -> None:
    settled = read(Gpus, DOUBTS[doubt])
    assert isinstance(settled, Known)
    assert settled.value.count == 0
    for bus in BUSES.values():
        assert isinstance(read(Gpus, {**DOUBTS[doubt], **bus}), Absent)
    assert isinstance(read(Gpus, {**DOUBTS[doubt], ("list", "/dev"): Listed(("nvidia0",))}), Absent)


@pytest.mark.parametrize("bus", BUSES)
@pytest.mark.parametrize(
    "answers", [{}, {NVML: nvml_error(9)}, {CUDA: cuda(init_code=100, count=None)}, {CUDA: cuda()}]
)
def test_without_a_doubt_none_is_none(bus: str, answers: Answers) -> None:
    seen = read(Gpus, {**answers, **BUSES[bus]})
    assert isinstance(seen, Known)
    assert seen.value.count == 0


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        ({}, "bare-metal"),
        ({("exists", "/run/WSL"): YES}, "bare-metal"),
        ({("exists", "/dev/dxg"): YES, ("exists", "/run/WSL"): YES}, "bare-metal"),
        ({("exists", "/dev/dxg"): YES, ("exists", "/usr/lib/wsl/lib"): YES}, "wsl2"),
        ({RELEASE: Said("6.6.87.2-microsoft-standard-WSL2\n")}, "bare-metal"),
        ({RELEASE: Said("6.6.87.2-microsoft-standard-WSL2\n"), INTEROP: YES}, "wsl2"),
        ({RELEASE: Said("6.6.87.2-microsoft-standard-WSL2\n"), ("exists", "/run/WSL"): YES}, "wsl2"),
        ({RELEASE: Said("6.6.87.2-microsoft-standard\n"), ("exists", "/run/WSL"): YES}, "bare-metal"),
        ({RELEASE: Said("4.4.0-19041-Microsoft\n")}, "wsl1"),
        ({RELEASE: Said("4.4.0-22621-Microsoft\n"), ("exists", "/run/WSL"): YES, INTEROP: YES}, "wsl1"),
        ({RELEASE: Said("4.4.0-19041-Microsoft\n"), ("exists", "/usr/lib/wsl/lib"): YES}, "wsl1"),
        ({RELEASE: Said("4.4.0-generic\n"), ("exists", "/run/WSL"): YES, INTEROP: YES}, "bare-metal"),
    ],
)
def test_wsl_is_told_by_two_traces(answers: Answers, kind: str) -> None:
    seen = read(Platform, answers)
    assert isinstance(seen, Known)
    assert seen.value.kind == kind


def dmi(vendor: str, product: str, *, flag: bool | None) -> Answers:
    return {
        ("read", "/sys/class/dmi/id/sys_vendor"): Said(f"{vendor}\n"),
        ("read", "/sys/class/dmi/id/product_name"): Said(f"{product}\n"),
        ("experiment", "hypervisor_flag"): Gave({"set": flag}),
    }


@pytest.mark.parametrize(
    ("vendor", "product", "flag", "kind"),
    [
        ("Amazon EC2", "c7g.large", None, "vm"),
        ("Amazon EC2", "c7g.metal", None, "bare-metal"),
        ("Amazon EC2", "m5.metal", False, "bare-metal"),
        ("Amazon EC2", "m5.large", True, "vm"),
        ("Microsoft Corporation", "Virtual Machine", None, "vm"),
        ("Google", "Google Compute Engine", None, "vm"),
        ("QEMU", "KVM Virtual Machine", None, "vm"),
        ("ASUS", "System Product Name", None, "bare-metal"),
    ],
)
def test_without_a_cpu_flag_the_firmware_is_enough(vendor: str, product: str, flag: bool | None, kind: str) -> None:  # noqa: FBT001 # a table's column
    seen = read(Platform, dmi(vendor, product, flag=flag))
    assert isinstance(seen, Known)
    assert seen.value.kind == kind


@pytest.mark.parametrize(
    ("answers", "engine"),
    [
        ({}, None),
        ({("experiment", "root_filesystem"): Gave({"type": "overlay", "engine": "containerd"})}, "containerd"),
        ({("experiment", "root_filesystem"): Gave({"type": "overlay", "engine": None})}, None),
        ({("exists", "/run/secrets/kubernetes.io"): YES}, "kubernetes"),
    ],
)
def test_a_container_with_a_cgroup_namespace_is_still_one(answers: Answers, engine: str | None) -> None:
    seen = read(Container, answers)
    assert isinstance(seen, Known)
    assert (seen.value.inside, seen.value.engine) == (engine is not None, engine)


CONTROLLERS = ("read", "/sys/fs/cgroup/cgroup.controllers")
MAX = ("read", "/sys/fs/cgroup/memory.max")


@pytest.mark.parametrize(
    ("answers", "limit_mib"),
    [({}, None), ({MAX: Said("max\n")}, None), ({MAX: Said("1073741824\n"), CONTROLLERS: GONE}, 1024)],
)
def test_a_memory_limit_is_known_where_the_controller_is_seen(answers: Answers, limit_mib: int | None) -> None:
    seen = read(MemoryLimit, answers)
    assert isinstance(seen, Known)
    assert seen.value.limit_mib == limit_mib


@pytest.mark.parametrize("answer", [GONE, Said("cpuset cpu io pids\n"), Said("\n")])
def test_without_a_memory_controller_the_limit_is_unknown(answer: Answer) -> None:
    assert isinstance(read(MemoryLimit, {CONTROLLERS: answer}), Absent)


WSLINFO = ("run", "wslinfo", "--networking-mode")


def test_a_wslinfo_that_fails_is_not_one_that_is_not_there() -> None:
    wsl2: Answers = {RELEASE: Said("6.6.87.2-microsoft-standard-WSL2\n"), INTEROP: YES}
    for status, stdout in ((1, "nat\n"), (0, "")):
        failed: Answers = {WSLINFO: Ran(program="/usr/bin/wslinfo", status=status, stdout=stdout)}
        assert isinstance(read(Wsl, {**wsl2, **failed}), Absent)
    seen = read(Wsl, wsl2)
    assert isinstance(seen, Known)
    assert seen.value.networking_mode is None
    older: Answers = {
        WSLINFO: Ran(program="w", status=0, stdout="nat\n"),
        (*WSLINFO[:2], "--wsl-version"): Ran(program="w", status=1),
    }
    seen = read(Wsl, {**wsl2, **older})
    assert isinstance(seen, Known)
    assert (seen.value.networking_mode, seen.value.version) == ("nat", None)


def criu(stdout: str, *, status: int = 1) -> Answers:
    asked = (("check", "--all"), ("check", "--feature", "seccomp_suspend"))
    said = {("run", "criu", *args): Ran(program="/usr/sbin/criu", status=status, stdout=stdout) for args in asked}
    return {**said, ("run", "criu", "--version"): Ran(program="/usr/sbin/criu", status=0, stdout="Version: 4.1.1\n")}


@pytest.mark.parametrize("log", ["ordinary_user", "no_sys_admin", "ptrace_refused", "ptrace_filtered", "read_only_tmp"])
def test_a_criu_that_was_kept_from_looking_says_nothing_of_the_kernel(log: str) -> None:
    answers = criu((LOGS / f"{log}.log").read_text())
    for fact in (CriuCheck, CriuSeccompSuspend):
        seen = read(fact, answers)
        assert isinstance(seen, Absent)
        assert seen.cause is Cause.DENIED


def test_a_criu_that_is_too_old_is_told_apart_from_one_that_misses_something() -> None:
    old = read(CriuCheck, criu((LOGS / "too_old.log").read_text()))
    assert isinstance(old, Known)
    assert old.value.result == "too_old"
    misses = (
        "Error (criu/cr-check.c:780): Dumping seccomp filters not supported: Permission denied\nLooks good but some"
    )
    partial = read(CriuCheck, criu(misses))
    assert isinstance(partial, Known)
    assert partial.value.result == "partial"
    failed = "Error (criu/cr-check.c:746): couldn't suspend seccomp: Operation not permitted\n"
    refused = read(CriuSeccompSuspend, criu(failed))
    assert isinstance(refused, Known)
    assert refused.value.supported is False
