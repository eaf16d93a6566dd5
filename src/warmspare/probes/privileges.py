"""What this process may do: capabilities, seccomp, yama, namespaces and limits."""

from __future__ import annotations

import re
from typing import Final, Literal

from warmspare.host.port import Host, Missing, Unreadable
from warmspare.model.facts import Cause, Count, Fact
from warmspare.probes.api import probe

SELF: Final = "/proc/self/status"
Name = Literal[
    "chown",
    "setgid",
    "setuid",
    "net_admin",
    "ipc_lock",
    "sys_ptrace",
    "sys_admin",
    "sys_resource",
    "checkpoint_restore",
]
NAMES: Final[dict[int, Name]] = {
    0: "chown", 6: "setgid", 7: "setuid", 12: "net_admin", 14: "ipc_lock", 19: "sys_ptrace", 21: "sys_admin",
    24: "sys_resource", 40: "checkpoint_restore",
}  # fmt: skip
"""The capabilities that matter here, by bit. Source: linux/capability.h."""


class Capabilities(Fact, frozen=True, kw_only=True):
    """The user we run as and its effective capabilities, those that matter here."""

    root: bool
    effective: tuple[Name, ...]
    no_new_privs: bool


class Seccomp(Fact, frozen=True, kw_only=True):
    """Our own seccomp mode: 0 none, 1 strict, 2 filter."""

    mode: Count
    filters: Count | None


class SeccompOfPid1(Fact, frozen=True, kw_only=True):
    """PID 1's seccomp mode: what is on it, every process below inherits."""

    mode: Count


class Yama(Fact, frozen=True, kw_only=True):
    """yama's ptrace_scope, 0 to 3; None where the kernel has no yama (then nothing is restricted)."""

    ptrace_scope: Count | None


class UserNamespace(Fact, frozen=True, kw_only=True):
    """Whether we are in the initial user namespace: CRIU's capabilities count there only."""

    initial: bool


class MemoryLimit(Fact, frozen=True, kw_only=True):
    """The smallest cgroup memory limit above us, in MiB; None: no limit. A checkpoint is charged to it."""

    limit_mib: Count | None
    path: str | None


class Memlock(Fact, frozen=True, kw_only=True):
    """How much memory may be locked, in KiB; None: unlimited."""

    limit_kib: Count | None


@probe
def capabilities(host: Host) -> Capabilities:
    """CapEff as the kernel shows it."""
    status = host.read(SELF)
    bits = int(_field(status, "CapEff"), 16)
    return Capabilities(
        root=_field(status, "Uid").split()[1] == "0",
        effective=tuple(name for bit, name in NAMES.items() if bits >> bit & 1),
        no_new_privs=_field(status, "NoNewPrivs") == "1",
    )


@probe
def seccomp(host: Host) -> Seccomp:
    """Source: proc_pid_status(5)."""
    status = host.read(SELF)
    filters = re.search(r"^Seccomp_filters:\s*(\d+)", status, re.MULTILINE)
    return Seccomp(mode=int(_field(status, "Seccomp")), filters=int(filters[1]) if filters else None)


@probe
def seccomp_of_pid1(host: Host) -> SeccompOfPid1:
    """On WSL2 the mirrored networking mode puts a filter there. Source: microsoft/WSL#9548, #9993."""
    try:
        return SeccompOfPid1(mode=int(_field(host.read("/proc/1/status"), "Seccomp")))
    except Missing:
        raise Unreadable(Cause.DENIED, "/proc/1 is hidden from us (hidepid)") from None


@probe
def yama(host: Host) -> Yama:
    """Source: Documentation/admin-guide/LSM/Yama.rst."""
    try:
        return Yama(ptrace_scope=int(host.read("/proc/sys/kernel/yama/ptrace_scope")))
    except Missing:
        return Yama(ptrace_scope=None)


@probe
def user_namespace(host: Host) -> UserNamespace:
    """The initial namespace maps every id to itself. Source: user_namespaces(7)."""
    return UserNamespace(initial=host.read("/proc/self/uid_map").split() == ["0", "0", "4294967295"])


@probe
def memory_limit(host: Host) -> MemoryLimit:
    """Both cgroup versions, each from our group up to the root."""
    limits: list[tuple[int, str]] = []
    visible = False
    for line in host.read("/proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            said = _limits(host, "/sys/fs/cgroup/memory", path, "memory.limit_in_bytes")
        elif number == "0":
            said = _limits(host, "/sys/fs/cgroup", path, "memory.max")
        else:
            continue
        visible |= bool(said)
        limits += [(int(text), where) for text, where in said if text.isdigit()]
    if not visible and not _cgroups(host):
        raise Unreadable(Cause.DENIED, "no cgroup file system is mounted where we could look")
    if not visible and not _controls_memory(host):
        raise Unreadable(Cause.INVALID, "no cgroup that we can see has the memory controller")
    smallest = min(limits, default=None)
    # Version 1 says "no limit" as a huge number.
    if smallest is None or smallest[0] >= 2**60:
        return MemoryLimit(limit_mib=None, path=None)
    return MemoryLimit(limit_mib=smallest[0] // 2**20, path=smallest[1])


def _cgroups(host: Host) -> bool:
    try:
        return bool(host.list("/sys/fs/cgroup"))
    except Missing:
        return False
    except Unreadable:  # a recording in which nobody asked
        return True


def _controls_memory(host: Host) -> bool:
    """Whether version 2's root has the controller: no group of its own then has a limit, as the root has none."""
    try:
        return "memory" in host.read("/sys/fs/cgroup/cgroup.controllers").split()
    except Missing:
        return False


def _limits(host: Host, root: str, path: str, file: str) -> list[tuple[str, str]]:
    parts = [part for part in path.split("/") if part not in ("", "..")]
    found = []
    for depth in range(len(parts), -1, -1):
        where = "/".join([root, *parts[:depth], file])
        try:
            found.append((host.read(where).strip(), where))
        except Missing:
            continue
    return found


@probe
def memlock(host: Host) -> Memlock:
    """Pinned memory is charged to it on some drivers. Source: getrlimit(2)."""
    found = re.search(r"^Max locked memory\s+(\S+)", host.read("/proc/self/limits"), re.MULTILINE)
    if not found:
        raise Unreadable(Cause.INVALID, "/proc/self/limits names no locked memory")
    return Memlock(limit_kib=None if found[1] == "unlimited" else int(found[1]) // 1024)


def _field(status: str, name: str) -> str:
    found = re.search(rf"^{name}:\s*(.+)$", status, re.MULTILINE)
    if not found:
        raise Unreadable(Cause.INVALID, f"a status file has no {name}")
    return found[1].strip()
