"""A Linux machine without its GPU: kernel, platform, privileges, container traces and CRIU.

Nothing here is read off a recording: what is not described stays unasked. The kernel's abilities are those
that mainline has from the version that brought each; a host that cannot do one says so itself.
"""

from __future__ import annotations

import re
from typing import Any, Final

from machines.asking import Answers, ask, files, gave, not_installed, paths, ran

CRIU_CALLS: Final = (("--version",), ("check", "--all"), ("check", "--feature", "seccomp_suspend"))
PLUGIN_FOLDERS: Final = ("/usr/lib/criu", "/usr/local/lib/criu", "/usr/lib64/criu", "/usr/lib/x86_64-linux-gnu/criu")
CRIU_GOOD: Final = "Looks good.\n"
CRIU_NO_DIRTY: Final = "Warn  (criu/cr-check.c:807): Dirty tracking is OFF. Memory snapshot will not work.\n"
CRIU_MISSES: Final = (
    "Looks good but some kernel features are missing\nwhich, depending on your process tree, may cause\n"
    "dump or restore failure.\n"
)
STATUS: Final = (
    "Name:\t{name}\nUmask:\t0022\nState:\tS (sleeping)\nUid:\t0\t0\t0\t0\nCapEff:\t{caps}\n"
    "NoNewPrivs:\t0\nSeccomp:\t{seccomp}\nSeccomp_filters:\t{filters}\n"
)
LIMITS: Final = (
    "Limit                     Soft Limit           Hard Limit           Units     \n"
    "Max locked memory         {0:<21}{0:<21}bytes     \n"
)
ALL: Final = "000001ffffffffff"
DOCKER: Final = "00000000a80425fb"
"""Docker's default capabilities. Source: docker run, "Runtime privilege and Linux capabilities"."""
SINCE: Final = {"clone3_set_tid": ((5, 5), "E2BIG"), "pidfd": ((5, 3), "ENOSYS"), "pagemap_scan": ((6, 7), "ENOTTY")}
"""The kernel that brought an ability, and what an older one says to it. Source: the man pages and kernelnewbies."""
ABILITIES: Final = ("memfd_create", "userfaultfd", "kcmp", "map_files", "parent_death_signal", *SINCE)
FAMILIES: Final = (
    "unix", "inet_tcp", "inet_udp", "inet_raw", "inet6_tcp", "inet6_udp", "inet6_raw", "packet", "netlink",
)  # fmt: skip


def linux(  # noqa: PLR0913 # a machine has that many sides
    release: str,
    built: str,
    *,
    arch: str = "x86_64",
    yama: int | None = 1,
    memlock: str = "8388608",
    caps: str = ALL,
    seccomp: int = 0,
    pid1_seccomp: int = 0,
) -> Answers:
    """The kernel, what it is able to, and what we may do on it; `built` is the rest of /proc/version."""
    number = tuple(map(int, re.findall(r"\d+", release)[:2]))
    texts: dict[str, str | None] = {
        "/proc/sys/kernel/osrelease": f"{release}\n",
        "/proc/version": f"Linux version {release} {built}\n",
        "/proc/sys/kernel/arch": f"{arch}\n" if number >= (6, 1) else None,
        "/proc/self/status": _status("python3", caps, seccomp),
        "/proc/1/status": _status("systemd", ALL, pid1_seccomp),
        "/proc/sys/kernel/yama/ptrace_scope": None if yama is None else f"{yama}\n",
        "/proc/self/uid_map": "         0          0 4294967295\n",
        "/proc/self/limits": LIMITS.format(memlock),
    }
    return {**files(texts), **abilities(number), **not_wsl(), **no_container(), **no_criu()}


def _status(name: str, caps: str, seccomp: int) -> str:
    return STATUS.format(name=name, caps=caps, seccomp=seccomp, filters=int(seccomp > 0))


def abilities(number: tuple[int, ...]) -> Answers:
    """What a kernel of this version does, unfiltered."""
    made: Answers = {}
    for name in ABILITIES:
        since, errno = SINCE.get(name, ((0, 0), ""))
        made[ask("experiment", name)] = works() if number >= since else fails(errno)
    made[ask("experiment", "suspend_seccomp")] = works(filter_installed=True, own_filter=False, plain_seize=True)
    families = {family: {"works": True, "errno": None, "detail": ""} for family in FAMILIES}
    return {**made, ask("experiment", "sock_diag"): gave({"families": families})}


def works(**more: Any) -> Any:  # noqa: ANN401 # the experiment's own details
    """An experiment that went well."""
    return gave({"works": True, "errno": None, "detail": "", **more})


def fails(errno: str, **more: Any) -> Any:  # noqa: ANN401 # as above
    """An experiment that the kernel refused."""
    return gave({"works": False, "errno": errno, "detail": "", **more})


def not_wsl() -> Answers:
    """None of WSL's traces, nor of AMD's driver."""
    traces = ("/dev/dxg", "/usr/lib/wsl/lib", "/usr/lib/wsl/lib/libdxcore.so", "/run/WSL")
    return paths(dict.fromkeys((*traces, "/proc/sys/fs/binfmt_misc/WSLInterop", "/dev/kfd"), False))


def no_container(cgroup: str = "0::/init.scope") -> Answers:
    """None of a container's traces, and no memory limit."""
    places = dict.fromkeys(("/.dockerenv", "/run/.containerenv", "/proc/vz", "/run/secrets/kubernetes.io"), False)
    limit = f"/sys/fs/cgroup{cgroup.removeprefix('0::')}/memory.max".replace("//", "/")
    texts: dict[str, str | None] = {
        "/sys/fs/cgroup/memory.max": None,
        limit: None if limit == "/sys/fs/cgroup/memory.max" else "max\n",
        "/run/systemd/container": None,
        "/proc/self/cgroup": f"{cgroup}\n",
    }
    filesystem = {ask("experiment", "root_filesystem"): gave({"type": "ext4", "engine": None})}
    return {**paths(places), **files(texts), **filesystem}


def in_docker() -> Answers:
    """A container as Docker makes it, with a cgroup namespace of its own."""
    root = {ask("experiment", "root_filesystem"): gave({"type": "overlay", "engine": "docker"})}
    limit = files({"/sys/fs/cgroup/memory.max": "max\n"})
    return {**no_container("0::/"), **paths({"/.dockerenv": True}), **root, **limit}


def bare_metal(vendor: str, product: str, oem: str = "ALASKA") -> Answers:
    """A machine of its own, by its DMI."""
    return _seen_by(vendor, product, oem, flag=False)


def vm(vendor: str, product: str, oem: str) -> Answers:
    """A virtual machine, by its DMI and ACPI."""
    return _seen_by(vendor, product, oem, flag=True)


def _seen_by(vendor: str, product: str, oem: str, *, flag: bool) -> Answers:
    dmi = {"/sys/class/dmi/id/sys_vendor": f"{vendor}\n", "/sys/class/dmi/id/product_name": f"{product}\n"}
    return {
        **files({**dmi, "/sys/hypervisor/type": None}),
        ask("experiment", "hypervisor_flag"): gave({"set": flag}),
        ask("experiment", "acpi_oem"): gave({"oem": oem}),
    }


def no_criu() -> Answers:
    """No CRIU and no plugin of its."""
    plugins = dict.fromkeys((f"{place}/cuda_plugin.so" for place in PLUGIN_FOLDERS), False)
    return {**not_installed("criu", *CRIU_CALLS), **paths(plugins)}


def criu(version: str, check: str = CRIU_GOOD, complaints: str = "", *, plugin: bool = False) -> Answers:
    """A packaged CRIU, and what it says of the kernel."""
    program = "/usr/sbin/criu"
    partly = check != CRIU_GOOD
    return {
        **no_criu(),
        **paths({"/usr/lib/criu/cuda_plugin.so": plugin, "/usr/sbin/../lib/criu/cuda_plugin.so": plugin}),
        ask("run", "criu", "--version"): ran(program, f"Version: {version}\n"),
        ask("run", "criu", "check", "--all"): ran(program, check, int(partly), complaints),
        ask("run", "criu", *CRIU_CALLS[2]): ran(program, "seccomp_suspend is supported\n"),
    }
