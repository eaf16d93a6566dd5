"""WSL2: a Linux that Microsoft builds, and a Windows driver behind /dev/dxg."""

from __future__ import annotations

from typing import Final

from machines.around import INFERRED, around, docker, engine, no_rdma
from machines.asking import Answers, Machines, ask, folder, gave, not_installed, nvml, paths, ran
from machines.cards import GPU_REFUSES, PHB, Card, Way, named, seen
from machines.driver import bus, cuda, library, no_driver, nvml_refuses, versions
from machines.linux import CRIU_MISSES, DOCKER, criu, fails, in_docker, linux
from warmspare.model.facts import Cause
from warmspare.model.transcript import Failed

RELEASE: Final = "6.6.87.2-microsoft-standard-WSL2"
BUILT: Final = (
    "(root@439a258ad544) (gcc (GCC) 11.2.0, GNU ld (GNU Binutils) 2.37) #1 SMP PREEMPT_DYNAMIC "
    "Thu Jun  5 18:30:46 UTC 2025"
)
CONFIG: Final = {
    "CHECKPOINT_RESTORE": "y",
    "MEMFD_CREATE": "y",
    "USERFAULTFD": "y",
    "UNIX_DIAG": "m",
    "PACKET_DIAG": "m",
}
"""As far as published. Source: microsoft/WSL2-Linux-Kernel arch/x86/configs/config-wsl."""
LIB: Final = "/usr/lib/wsl/lib/libcuda.so.1"
STORE: Final = "/usr/lib/wsl/drivers/nv_dispi.inf_amd64_0123456789abcdef/libcuda.so.1.1"
ATTRIBUTES: Final = {
    "managed_memory": 1,
    "pageable_memory_access": 0,
    "concurrent_managed_access": 0,
    "host_register": 1,
    "host_pointer_for_registered": 0,
    "vmm": 1,
    "unified_addressing": 1,
}
"""Source: llvm/llvm-project#198456 and ml-explore/mlx#3095 (concurrent access 0), the CUDA on WSL guide; vmm by the
expandable segments of microsoft/WSL#41176. DMA-buf and GPUDirect RDMA: no published log shows them."""
SMI: Final = "\n==============NVSMI LOG==============\n\nDriver Version                            : {0}\n"
MODEL: Final = "    Driver Model\n        Current                           : {0}\n        Pending     : {0}\n"
UNPUBLISHED: Final = Way(None, None)
"""No published recording shows NVML's P2P status or NVLink state from inside WSL2."""
SMI_EXE: Final = "/mnt/c/Windows/System32/nvidia-smi.exe"

LAPTOP: Final = Card(
    "NVIDIA GeForce RTX 4070 Laptop GPU",
    "0000:01:00.0",
    (8, 9),
    8188,
    reserved_mib=160,
    used_mib=1024,
    pcie=(4, 8, 4, 8),
    ecc=None,
    driver_model=0,
    fabric=None,
    node=None,
)
DESKTOP: Final = tuple(
    LAPTOP._replace(
        name="NVIDIA GeForce RTX 3090", pci=pci, capability=(8, 6), total_mib=24576, pcie=(4, 16, 4, 16), links=None
    )
    for pci in ("0000:01:00.0", "0000:04:00.0")
)
"""Cards that can be bridged: what NVML says of their links under WSL2 is published nowhere."""


def distribution(release: str = RELEASE, built: str = BUILT, *, pid1_seccomp: int = 0) -> Answers:
    """A WSL2 distribution. Its only PCI display device is Microsoft's."""
    traces = ("/dev/dxg", "/usr/lib/wsl/lib", "/usr/lib/wsl/lib/libdxcore.so", "/run/WSL")
    config = {ask("experiment", "kernel_config"): gave({"path": "/proc/config.gz", "options": CONFIG})}
    return {
        **linux(release, built, yama=None, pid1_seccomp=pid1_seccomp, seccomp=pid1_seccomp),
        **(config if release == RELEASE else {}),
        **no_driver(),
        **paths(dict.fromkeys((*traces, "/proc/sys/fs/binfmt_misc/WSLInterop"), True)),
        **bus({"3a5c:00:00.0": ("0x1414", "0x030200"), "5e1d:00:00.0": ("0x1af4", "0x018000")}),
        **folder("/dev", "dxg", "null", "zero", "tty"),
    }


def wslinfo(mode: str, version: str) -> Answers:
    """What WSL says of itself."""
    return {
        ask("run", "wslinfo", "--networking-mode"): ran("/usr/bin/wslinfo", f"{mode}\n"),
        ask("run", "wslinfo", "--wsl-version"): ran("/usr/bin/wslinfo", f"{version}\n"),
    }


def windows(version: str, *models: str) -> Answers:
    """The Windows host's own nvidia-smi, with one driver model a card."""
    text = SMI.format(version) + "".join(MODEL.format(model) for model in models)
    return {
        ask("run", "nvidia-smi.exe", "-q"): ran(SMI_EXE, text),
        ask("experiment", "wsl_drivers"): gave({"found": True, "vendors": ["nvidia"]}),
    }


def loader(version: str) -> Answers:
    """WSL's libcuda, a stub that loads the Windows driver's own out of its store."""
    return library(int(version.split(".", maxsplit=1)[0]), LIB, STORE, None)


def wddm(version: str, nvml_version: str, cards: tuple[Card, ...]) -> Answers:
    """A Windows driver in WDDM that serves the cards."""
    cards, major = named(cards), int(version.split(".", maxsplit=1)[0])
    return {
        **seen(cards, lambda *_: UNPUBLISHED, major),
        **versions(version, major, nvml_version),
        **loader(version),
        **cuda(major, cards, ATTRIBUTES, 0, LIB),
    }


def mirrored_filter() -> Answers:
    """The seccomp filter on PID 1 under networkingMode=mirrored, and what CRIU says under it."""
    complaints = (
        "Warn  (criu/cr-check.c:807): Dirty tracking is OFF. Memory snapshot will not work.\n"
        "Error (criu/cr-check.c:746): couldn't suspend seccomp: Operation not permitted\n"
        "Error (criu/cr-check.c:780): Dumping seccomp filters not supported: Permission denied\n"
    )
    return {
        **criu("4.1.1", complaints + CRIU_MISSES),
        ask("experiment", "suspend_seccomp"): fails("EPERM", own_filter=False, plain_seize=True),
        ask("run", "criu", "check", "--feature", "seccomp_suspend"): ran("/usr/sbin/criu", "", 1),
    }


def desktop_container() -> Answers:
    """Docker's default profile on the same kernel; nothing of Windows' programs is inside."""
    refused = {"userfaultfd": "EPERM", "map_files": "EPERM", "suspend_seccomp": "EPERM", "clone3_set_tid": "ENOSYS"}
    return {
        **linux(RELEASE, BUILT, yama=None, caps=DOCKER, seccomp=2, pid1_seccomp=2),
        **in_docker(),
        **{ask("experiment", name): fails(errno) for name, errno in refused.items()},
        **paths({"/dev/dxg": True, "/usr/lib/wsl/lib": False, "/usr/lib/wsl/lib/libdxcore.so": False}),
        **not_installed("wslinfo", ("--networking-mode",), ("--wsl-version",)),
        **not_installed("nvidia-smi.exe", ("-q",)),
        **not_installed(SMI_EXE, ("-q",)),
        **library(581, "/usr/lib/x86_64-linux-gnu/libcuda.so.1", STORE, None),
        ask("experiment", "shared_memory"): gave({"found": True, "size": 64 * 2**20, "free": 64 * 2**20}),
        ask("experiment", "nvidia_mounts"): gave(
            {
                "libraries": ["libcuda.so.1", "libnvidia-ml.so.1"],
                "devices": ["dxg"],
                "programs": ["nvidia-smi"],
                "folders": ["/usr/lib/wsl/drivers"],
            }
        ),
    }


def unopened(code: int, cards: tuple[Card, ...]) -> Answers:
    """NVML that starts, counts its cards, and opens none: every question about one is refused the same way."""
    refused: Answers = {}
    for _, (call, *about) in seen(cards, lambda *_: Way(GPU_REFUSES, PHB), 576):
        refused |= nvml(call, *about, code=code)
    return {**refused, **nvml("nvmlDeviceGetCount", value=len(cards))}


def cuda_unpublished() -> Answers:
    """Nobody published what cuInit gives there."""
    return {ask("experiment", "cuda_count"): Failed(cause=Cause.UNASKED, detail="no published log shows it")}


def amd() -> Answers:
    """AMD's ROCm under WSL2: /dev/dxg without anything of NVIDIA's."""
    missing = not_installed("nvidia-smi.exe", ("-q",)) | not_installed(SMI_EXE, ("-q",))
    return {**missing, ask("experiment", "wsl_drivers"): gave({"found": True, "vendors": ["amd"]})}


SEEN: Final = (
    "osrelease, /dev/dxg and libdxcore: NVIDIA/go-nvlib, NVIDIA/gpu-operator; /proc/version: microsoft/WSL#14339",
    "driver model, persistence and N/A fields in nvidia-smi -q: NVIDIA/nvidia-container-toolkit#271",
    "no NVIDIA device on the PCI bus: leptonai/gpud#203; Microsoft's own is: linuxserver/docker-rdesktop#48",
    "concurrent managed access 0: llvm/llvm-project#198456, ml-explore/mlx#3095",
    "inferred: that libcuda there exports the same calls as Linux' own of its version",
)
OLD_KERNEL: Final = (
    "5.15.167.4-microsoft-standard-WSL2",
    "(root@f9c826d3017f) (gcc (GCC) 11.2.0, GNU ld (GNU Binutils) 2.37) #1 SMP Tue Nov 5 00:21:55 UTC 2024",
)

MACHINES: Final[Machines] = {
    "wsl2-nat-laptop": (
        {
            **distribution(),
            **wslinfo("nat", "2.6.1.0"),
            **windows("581.29", "WDDM"),
            **wddm("581.29", "580.102", (LAPTOP,)),
        },
        (*SEEN, "the card under WSL2: vllm-project/vllm#9293", "networking mode: microsoft/WSL#9993"),
    ),
    "wsl2-mirrored-two-gpus": (
        {
            **distribution(pid1_seccomp=2),
            **wslinfo("mirrored", "2.6.1.0"),
            **windows("596.36", "WDDM", "WDDM"),
            **wddm("596.36", "595.58", DESKTOP),
            **mirrored_filter(),
            **around(31, shm_mib=15_990),
            **no_rdma(),
            **docker("28.3.1", "1.17.8"),
            **engine(vllm="0.26.0"),
        },
        (
            *SEEN,
            "PID 1's filter: microsoft/WSL#9993, #9548",
            "two cards, driver 596.36: noonghunna/club-3090#102, #50",
            INFERRED,
        ),
    ),
    "wsl2-tcc-card": (
        {
            **distribution(),
            **wslinfo("nat", "2.6.3.0"),
            **windows("591.59", "TCC"),
            **nvml_refuses(17),
            **loader("591.59"),
            **cuda_unpublished(),
        },
        (*SEEN, "an L40S in TCC and NVML's refusal: microsoft/WSL#14339, #11865, #12859"),
    ),
    "wsl2-tcc-beside-wddm": (
        {
            **distribution(*OLD_KERNEL),
            **wslinfo("nat", "2.4.13.0"),
            **windows("576.52", "TCC", "WDDM"),
            **versions("576.52", 576, "575.64"),
            **unopened(999, DESKTOP),
            **loader("576.52"),
            **cuda_unpublished(),
        },
        (*SEEN, "both cards counted and neither opened: microsoft/WSL#13027"),
    ),
    "wsl2-docker-desktop": (
        {**distribution(), **windows("581.29", "WDDM"), **wddm("581.29", "580.102", (LAPTOP,)), **desktop_container()},
        (
            *SEEN,
            "what the toolkit mounts: NVIDIA/nvidia-container-toolkit pkg/nvcdi/driver-wsl.go, device-wsl.go",
            "capabilities, filter and /dev/shm: Docker's documentation of docker run and its default seccomp profile",
        ),
    ),
    "wsl2-amd": (
        {**distribution(), **wslinfo("nat", "2.6.1.0"), **amd()},
        (
            "/dev/dxg without NVIDIA: vllm-project/vllm#49861",
            "AMD's driver in the store: NVIDIA/nvidia-container-toolkit#1890",
        ),
    ),
}
