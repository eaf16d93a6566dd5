"""Hosts made of a few answers: what a probe reads of exactly these."""

from __future__ import annotations

from typing import TypeVar

from warmspare import catalogue
from warmspare.host.recorded import RecordedHost
from warmspare.model.facts import HOST, Cause, Fact, Reading, Readings
from warmspare.model.transcript import Answer, Call, Failed, Gave, Listed, Said, Verb
from warmspare.probes.api import collect

F = TypeVar("F", bound=Fact)
Answers = dict[tuple[str, ...], Answer]
GONE = Failed(cause=None, detail="not there", code="ENOENT")
CRASHED = Failed(cause=Cause.CRASHED, detail="the child asking died: SIGSEGV", code="SIGSEGV")
TIMEOUT = Failed(cause=Cause.TIMEOUT, detail="no answer within 10 s; killed")

BARE: Answers = {
    ("read", "/proc/sys/kernel/osrelease"): Said("6.12.48-amd64\n"),
    ("read", "/proc/version"): Said("Linux version 6.12.48-amd64 #1 SMP\n"),
    ("read", "/proc/driver/nvidia/version"): GONE,
    ("read", "/sys/class/dmi/id/sys_vendor"): Said("ASUS\n"),
    ("read", "/sys/class/dmi/id/product_name"): Said("System Product Name\n"),
    ("read", "/sys/hypervisor/type"): GONE,
    ("read", "/proc/self/cgroup"): Said("0::/\n"),
    ("read", "/sys/fs/cgroup/memory.max"): GONE,
    ("read", "/sys/fs/cgroup/cgroup.controllers"): Said("cpuset cpu io memory pids\n"),
    ("list", "/sys/fs/cgroup"): Listed(("cgroup.controllers",)),
    ("read", "/run/systemd/container"): GONE,
    ("list", "/sys/bus/pci/devices"): Listed(()),
    ("list", "/dev"): Listed(("null",)),
    ("nvml", "nvmlDeviceGetCount"): GONE,
    ("nvml", "nvmlSystemGetDriverVersion"): GONE,
    ("symbol", "libcuda.so.1", "cuInit"): GONE,
    ("symbol", "/usr/lib/wsl/lib/libcuda.so.1", "cuInit"): GONE,
    ("experiment", "cuda_count"): Gave({"found": False, "init_code": None, "count": None, "broken": False}),
    ("experiment", "hypervisor_flag"): Gave({"set": False}),
    ("experiment", "acpi_oem"): Gave({"oem": "ALASKA"}),
    ("experiment", "root_filesystem"): Gave({"type": "ext4", "engine": None}),
    ("run", "wslinfo", "--networking-mode"): GONE,
    ("run", "wslinfo", "--wsl-version"): GONE,
    **{
        ("exists", path): Gave(value=False)
        for path in (
            "/dev/dxg", "/usr/lib/wsl/lib", "/usr/lib/wsl/lib/libdxcore.so", "/run/WSL", "/.dockerenv",
            "/run/.containerenv", "/proc/vz", "/proc/bc", "/proc/sys/fs/binfmt_misc/WSLInterop",
            "/run/secrets/kubernetes.io",
        )
    },
    ("exists", "/sys/class"): Gave(value=True),
}  # fmt: skip
"""A machine without a GPU, a driver or a container."""


def read(fact: type[F], answers: Answers, subject: str = HOST) -> Reading[F]:
    """What the probes read of `fact` about `subject` on the bare machine with these answers."""
    calls = [
        Call(verb=_verb(verb), args=tuple(args), answer=answer) for (verb, *args), answer in {**BARE, **answers}.items()
    ]
    return Readings(collect(RecordedHost(calls), catalogue.probes())).get(fact, subject)


def _verb(name: str) -> Verb:
    return name  # type: ignore[return-value]
