"""Where the host runs: bare metal, a virtual machine or WSL2; in a container or a sandbox; on what."""

from __future__ import annotations

import re
from typing import Final, Literal

from warmspare.host.port import Host, Missing, Unreadable
from warmspare.model.facts import Cause, Fact
from warmspare.model.transcript import Ran
from warmspare.probes.api import probe

RELEASE: Final = "/proc/sys/kernel/osrelease"
INTEROP: Final = "/proc/sys/fs/binfmt_misc/WSLInterop"
MachineKind = Literal["bare-metal", "vm", "wsl1", "wsl2", "gvisor"]


class Platform(Fact, frozen=True, kw_only=True):
    """What kind of machine it is; `signals` are the traces that say so, each named by where it was seen."""

    kind: MachineKind
    hypervisor: str | None
    signals: tuple[str, ...]


class Container(Fact, frozen=True, kw_only=True):
    """Whether we are inside a container, and which engine's traces say so."""

    inside: bool
    engine: str | None
    signals: tuple[str, ...]


class Wsl(Fact, frozen=True, kw_only=True):
    """WSL's own account of itself; all None outside WSL. A command that is not there leaves None."""

    networking_mode: str | None
    version: str | None


class WindowsDriver(Fact, frozen=True, kw_only=True):
    """The GPU driver models that the Windows host's own nvidia-smi names; empty outside WSL."""

    models: tuple[str, ...]


@probe
def platform(host: Host) -> Platform:
    """Bare metal, VM, WSL or gVisor. WSL2 needs two signals: kernels are renamed and /dev/dxg is not only NVIDIA's.

    Source: NVIDIA/go-nvlib HasDXCore; vllm in_wsl(); gVisor's fixed 4.4.0 banner.
    """
    if gvisor := _gvisor(host):
        return Platform(kind="gvisor", hypervisor=None, signals=gvisor)
    wsl, release = wsl_signals(host), host.read(RELEASE)
    if re.match(r"4\.4\.0-\d+-Microsoft", release):  # its kernel is a pretence of Windows' own
        return Platform(kind="wsl1", hypervisor=None, signals=wsl)
    if wsl and "WSL2" in release:  # without a GPU there is none of its traces
        wsl += tuple(path for path in (INTEROP, "/run/WSL") if _has(host, path))
    if len(wsl) >= 2:  # noqa: PLR2004 # the two-signal rule
        return Platform(kind="wsl2", hypervisor="hyper-v", signals=wsl)
    hypervisor, signals = _hypervisor(host)
    return Platform(kind="vm" if signals else "bare-metal", hypervisor=hypervisor, signals=signals)


@probe
def container(host: Host) -> Container:
    """Whether this is a container, by the traces engines leave. None of them is not a proof of none."""
    signals: list[tuple[str, str]] = []
    if _has(host, "/.dockerenv"):
        signals.append(("docker", "/.dockerenv"))
    if _has(host, "/run/.containerenv"):
        signals.append(("podman", "/run/.containerenv"))
    if mark := _text(host, "/run/systemd/container").strip():
        signals.append((mark, "/run/systemd/container"))
    groups = _text(host, "/proc/self/cgroup")
    engines = ("kubepods", "docker", "containerd", "lxc", "libpod")
    signals += [(engine, "/proc/self/cgroup") for engine in engines if re.search(rf"[/:-]{engine}", groups)]
    if _has(host, "/proc/vz") and not _has(host, "/proc/bc"):
        signals.append(("openvz", "/proc/vz"))
    if _has(host, "/run/secrets/kubernetes.io"):
        signals.append(("kubernetes", "/run/secrets/kubernetes.io"))
    # With a cgroup namespace of its own, containerd leaves no other trace.
    if engine := host.experiment("root_filesystem")["engine"]:
        signals.append((str(engine), "the root file system"))
    where = tuple(path for _, path in signals)
    return Container(inside=bool(signals), engine=signals[0][0] if signals else None, signals=where)


@probe
def wsl(host: Host) -> Wsl:
    """`wslinfo`: the networking mode decides whether CRIU meets a seccomp filter. Source: microsoft/WSL#9548."""
    if not wsl_signals(host):
        return Wsl(networking_mode=None, version=None)
    mode = _wslinfo(host, "--networking-mode")
    if mode is not None and (mode.status or not mode.stdout.strip()):
        said = ascii(mode.output.strip()[:60])
        raise Unreadable(Cause.INVALID, f"wslinfo --networking-mode said {said}, status {mode.status}")
    version = _wslinfo(host, "--wsl-version")  # younger than the other: the oldest wslinfo refuses it
    return Wsl(
        networking_mode=mode.stdout.strip() if mode else None,
        version=(version.stdout.strip() or None) if version and version.status == 0 else None,
    )


@probe
def windows_driver(host: Host) -> WindowsDriver:
    """WDDM, TCC or MCDM, as the Windows host names it; cards in TCC are not seen inside WSL2.

    Source: microsoft/WSL#11865, #13027.
    """
    if not wsl_signals(host):
        return WindowsDriver(models=())
    answer = windows_smi(host)
    models = re.findall(r"Driver Model\s*\n\s*Current\s*:\s*(\S+)", answer.stdout.replace("\r", ""))
    if answer.status or not models:
        raise Unreadable(Cause.INVALID, f"nvidia-smi.exe -q named no driver model (status {answer.status})")
    return WindowsDriver(models=tuple(models))


def windows_smi(host: Host) -> Ran:
    """What `nvidia-smi.exe -q` says on the Windows host; Missing in a container there."""
    try:
        return host.run("nvidia-smi.exe", "-q")
    except Missing:  # sudo drops the Windows folders from PATH
        return host.run("/mnt/c/Windows/System32/nvidia-smi.exe", "-q")


def wsl_signals(host: Host) -> tuple[str, ...]:
    """The traces of WSL on this host; two make WSL2."""
    found = [f"{RELEASE} says microsoft"] if "microsoft" in host.read(RELEASE).lower() else []
    paths = ("/dev/dxg", "/usr/lib/wsl/lib/libdxcore.so", "/usr/lib/wsl/lib")
    return (*found, *(path for path in paths if _has(host, path)))


def _gvisor(host: Host) -> tuple[str, ...]:
    version = _text(host, "/proc/version")
    banner = "Linux version 4.4.0 #1 SMP Sun Jan 10 15:06:54 PST 2016"
    return ("/proc/version is gVisor's",) if version.startswith(banner) or "gvisor" in version.lower() else ()


VENDORS: Final = (
    ("firecracker", ("FIRECK", "Firecracker")),
    ("kvm", ("KVM", "QEMU", "Red Hat", "RHEV", "OpenStack", "oVirt")),
    ("vmware", ("VMware",)),
    ("hyper-v", ("Microsoft Corporation Virtual Machine", "Hyper-V")),
    ("xen", ("Xen",)),
    ("virtualbox", ("VirtualBox", "innotek")),
    ("aws-nitro", ("Amazon EC2",)),
    ("google", ("Google Compute Engine",)),
    ("parallels", ("Parallels",)),
    ("cloud-hypervisor", ("Cloud Hypervisor",)),
)


def _hypervisor(host: Host) -> tuple[str | None, tuple[str, ...]]:
    signals = []
    flag = host.experiment("hypervisor_flag")["set"]
    if flag:
        signals.append("/proc/cpuinfo has the hypervisor flag")
    texts = {
        "/sys/class/dmi/id": " ".join(
            _text(host, f"/sys/class/dmi/id/{name}").strip() for name in ("sys_vendor", "product_name")
        ),
        "/sys/hypervisor/type": _text(host, "/sys/hypervisor/type"),
        "ACPI's OEM id": str(host.experiment("acpi_oem")["oem"] or ""),
        RELEASE: "Firecracker" if "-fc-" in _text(host, RELEASE) else "",
    }
    for name, words in VENDORS:
        where = [path for path, text in texts.items() if any(word.lower() in text.lower() for word in words)]
        # Some clouds sell bare metal under the same vendor's name; the CPU's flag tells them apart, where it has one.
        metal = ".metal" in texts["/sys/class/dmi/id"] if flag is None else not signals
        if where and not (metal and name in ("aws-nitro", "google", "hyper-v")):
            return name, (*signals, *where)
    return None, tuple(signals)


def _wslinfo(host: Host, flag: str) -> Ran | None:
    try:
        return host.run("wslinfo", flag)
    except Missing:  # WSL before 2.0 has no wslinfo
        return None


def _has(host: Host, path: str) -> bool:
    try:
        return host.exists(path)
    except Unreadable as unreadable:
        if unreadable.cause is Cause.DENIED:
            return False
        raise


def _text(host: Host, path: str) -> str:
    try:
        return host.read(path)
    except Unreadable as unreadable:
        if isinstance(unreadable, Missing) or unreadable.cause is Cause.DENIED:
            return ""
        raise
