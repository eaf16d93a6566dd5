"""What CRIU asks of a kernel and of our rights. Not a track: `criugpu` weighs these."""

from __future__ import annotations

from warmspare.model.facts import Cause
from warmspare.model.findings import Finding, met, undecided, unmet
from warmspare.probes.kernel import (
    Clone3SetTid,
    Kcmp,
    KernelConfig,
    MapFiles,
    Memfd,
    PagemapScan,
    Pidfd,
    SockDiag,
    Userfaultfd,
)
from warmspare.probes.privileges import Capabilities, Seccomp, UserNamespace, Yama
from warmspare.tracks.shared import REFUSED_US, ability

RESTRICTED = 2
"""yama's ptrace_scope from which only an administrator may trace."""


def kernel_has_memfd(memfd: Memfd, seccomp: Seccomp) -> Finding:
    """CRIU restores shared memory through memfds.

    Remedy: newer-kernel
    Remedy: run-as-root
    Source: memfd_create(2); checkpoint-restore/criu#1986 shows the failure, on a Raspberry Pi.
    """
    return ability(memfd, seccomp)


def kernel_has_kcmp(kcmp: Kcmp, seccomp: Seccomp) -> Finding:
    """CRIU tells by it which processes share an open file; its own check fails without.

    Remedy: newer-kernel
    Remedy: run-as-root
    Source: kcmp(2); criu/cr-check.c, category 1.
    """
    return ability(kcmp, seccomp)


def kernel_has_map_files(map_files: MapFiles, seccomp: Seccomp) -> Finding:
    """CRIU reaches the files behind mappings by it; the kernel asks for CAP_CHECKPOINT_RESTORE there.

    Remedy: newer-kernel
    Remedy: run-as-root
    Source: criu/cr-check.c, category 1; CONFIG_CHECKPOINT_RESTORE.
    """
    return ability(map_files, seccomp)


def kernel_can_choose_pids(clone3: Clone3SetTid, seccomp: Seccomp) -> Finding:
    """A restored process must get its old pid back; before Linux 5.5 CRIU used ns_last_pid, which races.

    Remedy: newer-kernel
    Remedy: run-as-root
    Source: clone3(2), set_tid.
    """
    return ability(clone3, seccomp)


LISTS = "it lists {working}"
LISTS_NOT = "it cannot list {refused}"


def kernel_lists_sockets(diag: SockDiag) -> Finding:
    """CRIU finds sockets through sock_diag; unix sockets stand in nearly every process.

    Under WSL2 kernels from 6.6 on, unix and packet diag are modules that must be loadable.

    Remedy: load-diag-modules
    Remedy: run-as-root
    Source: sock_diag(7); criu/cr-check.c, category 1.
    """
    if "unix" in diag.working:
        return met(LISTS, working=diag.working)
    refused = tuple(f"{family} ({errno})" for family, errno in diag.refused.items())
    if diag.refused.get("unix") in REFUSED_US:
        return undecided(LISTS_NOT, refused=refused, cause=Cause.DENIED, remedy="run-as-root")
    return unmet(LISTS_NOT, refused=refused, remedy="load-diag-modules")


def kernel_has_userfaultfd(userfaultfd: Userfaultfd, seccomp: Seccomp) -> Finding:
    """CRIU's lazy restore, which brings pages back when they are touched, needs userfaultfd; nothing else does.

    Remedy: newer-kernel
    Remedy: run-as-root
    Source: userfaultfd(2).
    """
    return ability(userfaultfd, seccomp)


def kernel_has_pagemap_scan(pagemap_scan: PagemapScan, seccomp: Seccomp) -> Finding:
    """Makes finding dirty pages faster; Linux 6.7 and later.

    Remedy: newer-kernel
    Remedy: run-as-root
    Source: PAGEMAP_SCAN, Documentation/admin-guide/mm/pagemap.rst.
    """
    return ability(pagemap_scan, seccomp)


def kernel_has_pidfd(pidfd: Pidfd, seccomp: Seccomp) -> Finding:
    """Restored processes are held by pidfd, so that a reused pid is never signalled.

    Remedy: newer-kernel
    Remedy: run-as-root
    Source: pidfd_open(2).
    """
    return ability(pidfd, seccomp)


AGREES = "{path} agrees with what was tried"
NO_CONFIG = "no configuration file was found; what was tried stands alone"
DISAGREES = "{path} says {options} is built in, and trying says otherwise: a filter or a container is in between"


def config_agrees(config: KernelConfig, memfd: Memfd, userfaultfd: Userfaultfd, kcmp: Kcmp) -> Finding:
    """The build configuration is a second source: where it says yes and the kernel no, policy is between.

    Remedy: run-as-root
    Source: criu.org/Linux_kernel.
    """
    if not config.found:
        return undecided(NO_CONFIG)
    tried = {"MEMFD_CREATE": memfd, "USERFAULTFD": userfaultfd, "KCMP": kcmp}
    odd = tuple(o for o, found in tried.items() if config.options.get(o) == "y" and not found.works)
    return (
        unmet(DISAGREES, path=config.path, options=odd, remedy="run-as-root") if odd else met(AGREES, path=config.path)
    )


MAY = "with {effective}"
MAY_NOT = "neither root's rights nor CAP_CHECKPOINT_RESTORE"


def may_checkpoint(capabilities: Capabilities) -> Finding:
    """CRIU needs CAP_SYS_ADMIN, or CAP_CHECKPOINT_RESTORE with `--unprivileged`. The driver's half needs neither.

    Remedy: run-as-root
    Source: criu(8), NON-ROOT; capabilities(7).
    """
    if {"sys_admin", "checkpoint_restore"} & set(capabilities.effective):
        return met(MAY, effective=capabilities.effective)
    return undecided(MAY_NOT, cause=Cause.DENIED, remedy="run-as-root")


TRACES = "ptrace is allowed ({how})"
TRACES_NOT = "yama's ptrace_scope is {scope}: only an administrator may trace"


def may_trace(yama: Yama, capabilities: Capabilities) -> Finding:
    """CRIU freezes a process by tracing it, which a machine may forbid to all but administrators.

    Remedy: relax-yama
    Source: Documentation/admin-guide/LSM/Yama.rst.
    """
    scope = yama.ptrace_scope or 0
    if scope > RESTRICTED:
        return unmet(TRACES_NOT, scope=scope, remedy="relax-yama")
    if "sys_ptrace" in capabilities.effective:
        return met(TRACES, how="CAP_SYS_PTRACE")
    if scope == 0:
        return met(TRACES, how="no yama restriction")
    return undecided(TRACES_NOT, scope=scope, cause=Cause.DENIED, remedy="relax-yama")


INITIAL = "the initial user namespace"
NESTED = "a user namespace of its own: CRIU's capabilities count only in the initial one"


def namespace_is_initial(namespace: UserNamespace) -> Finding:
    """Being root of a container's own user namespace is not being root for CRIU.

    Remedy: run-as-root
    Source: user_namespaces(7); checkpoint-restore/criu#2523.
    """
    return met(INITIAL) if namespace.initial else unmet(NESTED, remedy="run-as-root")
