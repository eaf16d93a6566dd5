"""Assemble the synthetic hosts and rewrite every host's report.

    python tests/hosts/assemble.py

A recorded host is a snapshot as `warmspare snapshot -o tests/hosts/NAME.json` wrote it. A synthetic host is
`vm-container-no-gpu` with answers replaced as published logs show them; its `notes` say where each format was
seen. A host's report, NAME.txt, is what `warmspare judge -v` prints of it: read the change before you commit it.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any, Final

import msgspec

from warmspare import catalogue
from warmspare.host.recorded import RecordedHost
from warmspare.judge import judge
from warmspare.model.facts import Absent, Cause, Readings, fact_name
from warmspare.model.snapshot import Reader, Snapshot, encode
from warmspare.model.transcript import Answer, Call, Failed, Gave, Listed, Ran, Said, Verb
from warmspare.probes.api import collect
from warmspare.report import terminal
from warmspare.report.view import view

HERE: Final = Path(__file__).parent
BASE: Final = "vm-container-no-gpu"
WHEN: Final = dt.datetime(2026, 11, 22, 12, tzinfo=dt.UTC)

Question = tuple[Verb, tuple[str, ...]]
Answers = dict[Question, Answer]


def ask(verb: Verb, *args: str) -> Question:
    """A question, as it stands in a transcript."""
    return verb, args


def gone(what: str) -> Failed:
    """The answer about a thing that is not there."""
    return Failed(cause=None, detail=f"{what}: No such file or directory", code="ENOENT")


def ran(program: str, stdout: str, status: int = 0) -> Ran:
    """The answer of a command."""
    return Ran(program=program, status=status, stdout=stdout)


def gpus(*uuids: str) -> Answers:
    """NVML and CUDA as they name these GPUs."""
    cuda = {"found": True, "path": "libcuda.so.1", "init_code": 0, "count": len(uuids), "uuids": list(uuids)}
    named: Answers = {ask("nvml", "nvmlDeviceGetUUID", str(n)): Gave(uuid) for n, uuid in enumerate(uuids)}
    modes: Answers = {ask("nvml", "nvmlDeviceGetVirtualizationMode", str(n)): Gave(1) for n in range(len(uuids))}
    return {
        **named,
        **modes,
        ask("nvml", "nvmlDeviceGetCount"): Gave(len(uuids)),
        ask("experiment", "cuda_count"): Gave(cuda),
        ask("symbol", "libcuda.so.1", "cuInit"): Gave(value=True),
    }


ONE: Final = "GPU-11111111-1111-4111-8111-111111111111"
TWO: Final = "GPU-22222222-2222-4222-8222-222222222222"
WSL_RELEASE: Final = "6.6.87.2-microsoft-standard-WSL2"
SMI: Final = "\n==============NVSMI LOG==============\n\nDriver Version                            : 581.29\n"
MODEL: Final = "    Driver Model\n        Current                           : {0}\n        Pending     : {0}\n"
NO_CRIU: Final[Answers] = {
    ask("run", "criu", *args): Failed(cause=None, detail="criu: not found in PATH")
    for args in (("--version",), ("check", "--all"), ("check", "--feature", "seccomp_suspend"))
}
NO_CONTAINER: Final[Answers] = {
    ask("exists", "/.dockerenv"): Gave(value=False),
    ask("read", "/proc/self/cgroup"): Said("0::/init.scope\n"),
    ask("read", "/sys/fs/cgroup/init.scope/memory.max"): Said("max\n"),
    ask("read", "/sys/fs/cgroup/memory.max"): gone("/sys/fs/cgroup/memory.max"),
}


BESIDES: Final[Answers] = {
    ask("exists", "/usr/lib/wsl/lib"): Gave(value=False),
    ask("exists", "/run/secrets/kubernetes.io"): Gave(value=False),
    ask("exists", "/proc/sys/fs/binfmt_misc/WSLInterop"): Gave(value=False),
    ask("exists", "/run/WSL"): Gave(value=False),
    ask("read", "/sys/fs/cgroup/cgroup.controllers"): Said("cpuset cpu io memory pids\n"),
    ask("experiment", "root_filesystem"): Gave({"type": "ext4", "engine": None}),
}
"""What every host is asked besides, where nothing else is said."""


def wsl2(mode: str, *models: str) -> Answers:
    """A WSL2 distribution in the given networking mode, with one Windows driver model a card."""
    version = f"Linux version {WSL_RELEASE} (root@439a258ad544) (gcc (GCC) 11.2.0) #1 SMP PREEMPT_DYNAMIC\n"
    return {
        **NO_CONTAINER,
        ask("read", "/proc/sys/kernel/osrelease"): Said(f"{WSL_RELEASE}\n"),
        ask("read", "/proc/version"): Said(version),
        ask("exists", "/dev/dxg"): Gave(value=True),
        ask("exists", "/usr/lib/wsl/lib"): Gave(value=True),
        ask("exists", "/usr/lib/wsl/lib/libdxcore.so"): Gave(value=True),
        ask("exists", "/proc/sys/fs/binfmt_misc/WSLInterop"): Gave(value=True),
        ask("exists", "/run/WSL"): Gave(value=True),
        ask("list", "/sys/bus/pci/devices"): Listed(()),
        ask("nvml", "nvmlSystemGetDriverVersion"): Gave("581.29"),
        ask("run", "wslinfo", "--networking-mode"): ran("/usr/bin/wslinfo", f"{mode}\n"),
        ask("run", "wslinfo", "--wsl-version"): ran("/usr/bin/wslinfo", "2.6.1.0\n"),
        ask("run", "nvidia-smi.exe", "-q"): ran(
            "/mnt/c/Windows/System32/nvidia-smi.exe", SMI + "".join(MODEL.format(model) for model in models)
        ),
    }


STATUS: Final = "Name:\tinit\nUmask:\t0022\nState:\tS (sleeping)\nUid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\n"
FILTERED: Final = STATUS + "NoNewPrivs:\t0\nSeccomp:\t2\nSeccomp_filters:\t1\n"
MIRRORED_CHECK: Final = (
    "Warn  (criu/cr-check.c:807): Dirty tracking is OFF. Memory snapshot will not work.\n"
    "Error (criu/cr-check.c:746): couldn't suspend seccomp: Operation not permitted\n"
    "Error (criu/cr-check.c:780): Dumping seccomp filters not supported: Permission denied\n"
    "Looks good but some kernel features are missing\nwhich, depending on your process tree, may cause\n"
    "dump or restore failure.\n"
)
WSL_SOURCES: Final = (
    "osrelease, /dev/dxg and libdxcore: NVIDIA/go-nvlib, NVIDIA/gpu-operator",
    "networking mode and PID 1's filter: microsoft/WSL#9993, #9548",
    "driver model in nvidia-smi -q: NVIDIA/nvidia-container-toolkit#271",
)

SYNTHETIC: Final[dict[str, tuple[Answers, tuple[str, ...]]]] = {
    "synthetic-wsl2-nat-laptop": ({**wsl2("nat", "WDDM"), **gpus(ONE), **NO_CRIU}, WSL_SOURCES),
    "synthetic-wsl2-mirrored-two-gpus": (
        {
            **wsl2("mirrored", "WDDM", "WDDM"),
            **gpus(ONE, TWO),
            ask("read", "/proc/self/status"): Said(FILTERED),
            ask("read", "/proc/1/status"): Said(FILTERED),
            ask("experiment", "suspend_seccomp"): Gave(
                {"works": False, "errno": "EPERM", "detail": "", "own_filter": False, "plain_seize": True}
            ),
            ask("run", "criu", "check", "--all"): ran("/usr/sbin/criu", MIRRORED_CHECK, 1),
            ask("run", "criu", "check", "--feature", "seccomp_suspend"): ran("/usr/sbin/criu", "", 1),
            ask("run", "criu", "--version"): ran("/usr/sbin/criu", "Version: 4.1.1\n"),
        },
        WSL_SOURCES,
    ),
    "synthetic-wsl2-amd": (
        {
            **wsl2("nat"),
            **NO_CRIU,
            ask("nvml", "nvmlSystemGetDriverVersion"): gone("NVML"),
            ask("run", "nvidia-smi.exe", "-q"): gone("nvidia-smi.exe"),
            ask("run", "/mnt/c/Windows/System32/nvidia-smi.exe", "-q"): gone("nvidia-smi.exe"),
        },
        ("/dev/dxg without NVIDIA: vllm-project/vllm#49861",),
    ),
    "synthetic-azure-h100": (
        {
            **NO_CONTAINER,
            **gpus(ONE),
            ask("read", "/proc/sys/kernel/osrelease"): Said("6.8.0-1021-azure\n"),
            ask("read", "/sys/class/dmi/id/sys_vendor"): Said("Microsoft Corporation\n"),
            ask("read", "/sys/class/dmi/id/product_name"): Said("Virtual Machine\n"),
            ask("experiment", "acpi_oem"): Gave({"oem": "VRTUAL"}),
            ask("read", "/proc/driver/nvidia/version"): Said(
                "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.144.03  Mon Dec 30 17:44:08 UTC 2024\n"
            ),
        },
        ("DMI of an Azure VM is Microsoft's although it is no WSL2: systemd/systemd src/basic/virt.c",),
    ),
    "synthetic-bare-metal-no-driver": (
        {
            **NO_CONTAINER,
            **NO_CRIU,
            ask("read", "/proc/sys/kernel/osrelease"): Said("6.12.48-amd64\n"),
            ask("experiment", "hypervisor_flag"): Gave({"set": False}),
            ask("experiment", "acpi_oem"): Gave({"oem": "ALASKA"}),
            ask("list", "/sys/bus/pci/devices"): Listed(("0000:01:00.0",)),
            ask("read", "/sys/bus/pci/devices/0000:01:00.0/vendor"): Said("0x10de\n"),
            ask("read", "/sys/bus/pci/devices/0000:01:00.0/class"): Said("0x030000\n"),
        },
        ("PCI ids as sysfs shows them: a GeForce card under nouveau or no driver at all",),
    ),
    "synthetic-gvisor": (
        {
            **NO_CRIU,
            ask("read", "/proc/sys/kernel/osrelease"): Said("4.4.0\n"),
            ask("read", "/proc/version"): Said("Linux version 4.4.0 #1 SMP Sun Jan 10 15:06:54 PST 2016\n"),
            ask("list", "/sys/bus/pci/devices"): gone("/sys/bus/pci/devices"),
            ask("experiment", "kcmp"): Gave({"works": False, "errno": "ENOSYS", "detail": ""}),
            ask("experiment", "userfaultfd"): Gave({"works": False, "errno": "ENOSYS", "detail": ""}),
        },
        ("the fixed banner: google/gvisor pkg/sentry/syscalls/linux/linux64.go",),
    ),
}


def assembled(base: Snapshot, answers: Answers, notes: tuple[str, ...]) -> Snapshot:
    """The base with answers replaced, and read again by today's probes."""
    asked: Answers = {(call.verb, call.args): call.answer for call in base.transcript}
    # The ordinary answers of the machine must not shine through where the synthetic one is another.
    calls = tuple(Call(verb=v, args=a, answer=answer) for (v, a), answer in {**BESIDES, **asked, **answers}.items())
    readings: dict[tuple[str, str], Any] = dict(collect(RecordedHost(calls), catalogue.probes(), at=WHEN))
    trial = Absent(cause=Cause.SKIPPED, detail="a synthetic host")
    readings |= {(fact_name(t.proof), "host"): trial for t in catalogue.trials()}
    return msgspec.structs.replace(
        base, made_at=WHEN, readings=Readings(readings), transcript=calls, notes=("synthetic", *notes)
    )


def report(snapshot: Snapshot) -> str:
    """What `warmspare judge -v` prints."""
    tracks = catalogue.tracks()
    judgement = judge(snapshot.readings, tracks)
    return terminal.render(view(snapshot, judgement, catalogue.rules(tracks), catalogue.remedies()), verbose=True)


def main() -> None:
    """Rewrite everything."""
    reader = Reader(catalogue.facts())
    base = reader.read((HERE / f"{BASE}.json").read_bytes())
    for name, (answers, notes) in SYNTHETIC.items():
        (HERE / f"{name}.json").write_bytes(encode(assembled(base, answers, notes)))
    for path in sorted(HERE.glob("*.json")):
        path.with_suffix(".txt").write_text(report(reader.read(path.read_bytes())), encoding="utf-8")


if __name__ == "__main__":
    main()
