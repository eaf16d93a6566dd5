"""The kernel: its version, and each ability that CRIU and warmspare need, asked by behaviour.

A configuration file is only a second source: WSL2's newest kernels carry none, and a container's policy
can take away what the kernel has.
"""

from __future__ import annotations

import contextlib
import re
from typing import Annotated, Any, Literal, cast

import msgspec

from warmspare.host.port import Host, Missing, Unreadable
from warmspare.model.facts import Cause, Fact
from warmspare.probes.api import probe
from warmspare.probes.platform import RELEASE

Number = Annotated[int, msgspec.Meta(ge=0, le=2**31)]


class Kernel(Fact, frozen=True, kw_only=True):
    """The running kernel."""

    release: str
    version: tuple[Number, Number]
    machine: str | None


class Ability(Fact, frozen=True, kw_only=True):
    """Whether the kernel did what was asked of it; `errno` names its refusal."""

    works: bool
    errno: str | None
    detail: str = ""


class Memfd(Ability, frozen=True, kw_only=True):
    """memfd_create(2), write and read back."""


class Userfaultfd(Ability, frozen=True, kw_only=True):
    """userfaultfd(2) with its API handshake."""


class Kcmp(Ability, frozen=True, kw_only=True):
    """kcmp(2) on our own open files."""


class MapFiles(Ability, frozen=True, kw_only=True):
    """Opening a mapping of our own through /proc/self/map_files."""


class SuspendSeccomp(Ability, frozen=True, kw_only=True):
    """PTRACE_O_SUSPEND_SECCOMP on a child of ours that has a filter."""


class Clone3SetTid(Ability, frozen=True, kw_only=True):
    """clone3(2) with a chosen pid."""


class PagemapScan(Ability, frozen=True, kw_only=True):
    """The PAGEMAP_SCAN ioctl, Linux 6.7 and later."""


class Pidfd(Ability, frozen=True, kw_only=True):
    """pidfd_open(2), pidfd_send_signal(2) and polling for the end of a process."""


class ParentDeathSignal(Ability, frozen=True, kw_only=True):
    """PR_SET_PDEATHSIG and PR_SET_CHILD_SUBREAPER: what keeps trials from leaving processes behind."""


Family = Literal["unix", "inet_tcp", "inet_udp", "inet_raw", "inet6_tcp", "inet6_udp", "inet6_raw", "packet", "netlink"]


class SockDiag(Fact, frozen=True, kw_only=True):
    """Which socket families the kernel can list for us (sock_diag(7)), with the errno of those it cannot."""

    working: tuple[Family, ...]
    refused: dict[Family, str]


class IoUring(Fact, frozen=True, kw_only=True):
    """kernel.io_uring_disabled: 0 on, 1 for the privileged only, 2 off; None where the kernel has no such setting."""

    disabled: Number | None


class KernelConfig(Fact, frozen=True, kw_only=True):
    """The kernel's build configuration, from the first file found; only the options we ask about."""

    found: bool
    path: str | None
    options: dict[str, Literal["y", "m", "n"]]


@probe
def kernel(host: Host) -> Kernel:
    """The release string and its first two numbers."""
    release = host.read(RELEASE).strip()
    found = re.match(r"(\d{1,4})\.(\d{1,4})", release)
    if not found:
        raise Unreadable(Cause.INVALID, f"no version in {release[:60]!r}")
    machine = None
    with contextlib.suppress(Missing):  # Linux before 6.1 has no such file
        machine = host.read("/proc/sys/kernel/arch").strip()
    return Kernel(release=release, version=(int(found[1]), int(found[2])), machine=machine)


@probe
def memfd(host: Host) -> Memfd:
    """CRIU restores shared memory through memfds."""
    return Memfd(**_ability(host, "memfd_create"))


@probe
def userfaultfd(host: Host) -> Userfaultfd:
    """Lazy restore needs it, a plain restore does not."""
    return Userfaultfd(**_ability(host, "userfaultfd"))


@probe
def kcmp(host: Host) -> Kcmp:
    """CRIU tells shared open files apart by it."""
    return Kcmp(**_ability(host, "kcmp"))


@probe
def map_files(host: Host) -> MapFiles:
    """CRIU reaches mapped files by it."""
    return MapFiles(**_ability(host, "map_files"))


@probe
def suspend_seccomp(host: Host) -> SuspendSeccomp:
    """CRIU cannot dump a process under a seccomp filter without it."""
    return SuspendSeccomp(**_ability(host, "suspend_seccomp"))


@probe
def clone3_set_tid(host: Host) -> Clone3SetTid:
    """CRIU gives restored processes their old pids by it."""
    return Clone3SetTid(**_ability(host, "clone3_set_tid"))


@probe
def pagemap_scan(host: Host) -> PagemapScan:
    """Makes dumps faster; CRIU does without."""
    return PagemapScan(**_ability(host, "pagemap_scan"))


@probe
def pidfd(host: Host) -> Pidfd:
    """How restored processes are held without mistaking a reused pid."""
    return Pidfd(**_ability(host, "pidfd"))


@probe
def parent_death_signal(host: Host) -> ParentDeathSignal:
    """How trials' children die with the tool."""
    return ParentDeathSignal(**_ability(host, "parent_death_signal"))


@probe
def sock_diag(host: Host) -> SockDiag:
    """From WSL2 kernel 6.6 on, unix and packet diag are modules: ask, do not read the configuration."""
    families: dict[Family, Any] = host.experiment("sock_diag")["families"]
    return SockDiag(
        working=tuple(sorted(name for name, answer in families.items() if answer["works"])),
        refused={name: str(answer["errno"]) for name, answer in sorted(families.items()) if not answer["works"]},
    )


@probe
def kernel_config(host: Host) -> KernelConfig:
    """The configuration the kernel was built with, where one is to be found."""
    answer = host.experiment("kernel_config")
    options = cast("dict[str, Literal['y', 'm', 'n']]", answer["options"])
    if not set(options.values()) <= {"y", "m", "n"}:
        raise Unreadable(Cause.INVALID, "an option is neither built in, a module nor off")
    return KernelConfig(found=answer["path"] is not None, path=answer["path"], options=options)


@probe
def io_uring(host: Host) -> IoUring:
    """Source: Documentation/admin-guide/sysctl/kernel.rst (since Linux 6.6)."""
    try:
        return IoUring(disabled=int(host.read("/proc/sys/kernel/io_uring_disabled")))
    except Missing:
        return IoUring(disabled=None)


def _ability(host: Host, experiment: str) -> dict[str, Any]:
    answer = host.experiment(experiment)
    if not isinstance(answer["works"], bool):
        raise Unreadable(Cause.INVALID, f"{experiment} gave no yes or no")
    return {"works": answer["works"], "errno": answer["errno"], "detail": str(answer.get("detail", ""))}
