"""What is asked of CRIU itself, and the paper on what may stop it. Not a track: `criugpu` weighs these."""

from __future__ import annotations

from warmspare.model.findings import Finding, met, undecided, unmet
from warmspare.probes.criu import CriuCheck, CriuPlugin, CriuProgram, CriuSeccompSuspend
from warmspare.probes.kernel import SuspendSeccomp
from warmspare.probes.platform import Container, Platform, Wsl
from warmspare.probes.privileges import Seccomp, SeccompOfPid1
from warmspare.tracks.shared import NO_OBJECTION, broken
from warmspare.trials.criu_roundtrip import CriuRoundtrip

CRIU = "CRIU {version} ({path})"
NO_CRIU = "no CRIU was found"


def criu_is_there(criu: CriuProgram) -> Finding:
    """CRIU writes the CPU half of a process to disk; without it a process can be suspended in memory only.

    Remedy: install-criu
    Source: Debian packages CRIU up to a version that may be too old for the kernel; scripts/fetch-criu brings one.
    """
    if not criu.found:
        return undecided(NO_CRIU, remedy="install-criu")
    return met(CRIU, version=criu.version, path=criu.path)


WENT_ON = "a process with threads, a child and sockets went on (dump {dump_s:.2f} s, restore {restore_s:.2f} s)"


def process_survives_on_disk(proof: CriuRoundtrip) -> Finding:
    """Tried, not read: a small CPU process tree is dumped, seen gone, restored, and its counters go on.

    Remedy: newer-criu
    Remedy: networking-nat
    Remedy: free-disk
    Remedy: run-as-root
    Source: `criu check` passes on hosts where a dump then fails (microsoft/WSL#9993).
    """
    failed = broken(proof)
    if failed is None:
        return met(WENT_ON, dump_s=proof.dump_s, restore_s=proof.restore_s)
    remedy = {"too_old": "newer-criu", "seccomp": "networking-nat", "disk_full": "free-disk"}.get(
        proof.outcome.code or ""
    )
    if failed.remedy or not remedy:
        return failed
    return unmet(failed.sentence, remedy=remedy, **failed.values)


FITS = "criu check: {result}"
TOO_OLD = "this CRIU is too old for this kernel: it cannot read the kernel's features"
BAD = "criu check fails: {missing}"


def criu_fits_this_kernel(check: CriuCheck) -> Finding:
    """Paper: what `criu check` says of this kernel; a CRIU older than it fails there, and the kernel is not to blame.

    Remedy: newer-criu
    Source: criu/cr-check.c; Debian 12's 3.17.1 on Linux 6.18: "Unexpected rt vDSO area bounds".
    """
    if check.result == "too_old":
        return unmet(TOO_OLD, remedy="newer-criu")
    if check.result == "bad":
        return unmet(BAD, missing=check.missing[:2], remedy="newer-criu")
    return met(FITS, result=check.result)


CAN = "seccomp can be suspended"
NOTHING = "no filter is on us: nothing to suspend"
CANNOT = "a seccomp filter is on us, and suspending it fails ({errno})"
CRIU_CANNOT = "a seccomp filter is on us, and CRIU says that it cannot suspend it"


def seccomp_can_be_suspended(suspend: SuspendSeccomp, seccomp: Seccomp, container: Container) -> Finding:
    """Paper: CRIU cannot dump a process under a filter that it may not suspend.

    Remedy: networking-nat
    Remedy: lift-seccomp
    Source: checkpoint-restore/criu#2391; PTRACE_O_SUSPEND_SECCOMP, ptrace(2).
    """
    if seccomp.mode == 0:
        return met(NOTHING)
    if suspend.works:
        return met(CAN)
    return unmet(CANNOT, errno=suspend.errno, remedy="lift-seccomp" if container.inside else "networking-nat")


def criu_suspends_seccomp(criu: CriuSeccompSuspend, seccomp: Seccomp) -> Finding:
    """Paper: CRIU's own word on the same, which a plain `criu check` does not ask for.

    Remedy: networking-nat
    Source: criu check --feature seccomp_suspend; microsoft/WSL#9993.
    """
    if seccomp.mode == 0:
        return met(NOTHING)
    return met(CAN) if criu.supported else unmet(CRIU_CANNOT, remedy="networking-nat")


NO_FILTER = "PID 1 has no seccomp filter"
FILTER_WSL = "a seccomp filter on PID 1, inherited by all; WSL's networking mode is {mode}"
FILTER = "a seccomp filter on PID 1, inherited by all"


def pid1_has_no_filter(pid1: SeccompOfPid1, wsl: Wsl) -> Finding:
    """Paper: on WSL2 the mirrored networking mode puts a filter on PID 1, and CRIU then refuses to dump.

    Remedy: networking-nat
    Remedy: lift-seccomp
    Source: microsoft/WSL#9548, #9993; the NAT mode is free of it.
    """
    if pid1.mode == 0:
        return met(NO_FILTER)
    if wsl.version or wsl.networking_mode:
        return unmet(FILTER_WSL, mode=wsl.networking_mode, remedy="networking-nat")
    return unmet(FILTER, remedy="lift-seccomp")


PLUGIN = "the CUDA plugin is at {path}"
NO_PLUGIN = "CRIU's CUDA plugin is not there; the driver's own calls do the same"


def plugin_is_there(plugin: CriuPlugin) -> Finding:
    """CRIU's plugin drives cuda-checkpoint for it. Debian packages none, and warmspare does not need it.

    Source: criu/plugins/cuda/README.md.
    """
    return met(PLUGIN, path=plugin.path) if plugin.found else undecided(NO_PLUGIN)


NO_KERNEL = "gVisor's own kernel runs programs here, and CRIU cannot work in it"


def criu_can_work_here(platform: Platform) -> Finding:
    """Paper: CRIU needs a Linux kernel; gVisor puts one of its own in between, which has its own way to checkpoint.

    Remedy: leave-gvisor
    Source: gVisor documentation, checkpoint/restore (runsc checkpoint); google/gvisor pkg/sentry.
    """
    if platform.kind == "gvisor":
        return unmet(NO_KERNEL, remedy="leave-gvisor")
    return met(NO_OBJECTION)
