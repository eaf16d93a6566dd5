"""gVisor: a kernel of its own in user space, without and with its proxy for NVIDIA's driver."""

from __future__ import annotations

from typing import Final

from machines.asking import Answers, Machines, ask, files, folder, gave, gone
from machines.cards import Card, Way
from machines.driver import NATIVE, Driver, no_driver, runs
from machines.linux import ABILITIES, DOCKER, fails, in_docker, linux

BUILT: Final = "#1 SMP Sun Jan 10 15:06:54 PST 2016"
UNKNOWN: Final = ("suspend_seccomp", "map_files", "clone3_set_tid", "pagemap_scan", "sock_diag", "pidfd")
"""Abilities that nothing published says it has or lacks."""
H100: Final = Card(
    "NVIDIA H100 80GB HBM3",
    "0000:00:04.0",
    (9, 0),
    81559,
    reserved_mib=551,
    virtualization=1,
    mig=0,
    pcie=(5, 16, 5, 16),
    fabric=None,
)
PROXIED: Final = Driver("580.126.09", open=True, built="")


def sandbox() -> Answers:
    """GVisor's fixed banner, a container's file system, and no PCI bus."""
    linux_ = linux("4.4.0", BUILT, yama=None, caps=DOCKER)
    known = {question: answer for question, answer in linux_.items() if question[1][0] not in UNKNOWN}
    return {
        **known,
        **in_docker(),
        **{ask("experiment", name): fails("ENOSYS") for name in ("kcmp", "userfaultfd")},
        **files(
            {"/sys/class/dmi/id/sys_vendor": None, "/sys/class/dmi/id/product_name": None, "/sys/hypervisor/type": None}
        ),
        ask("list", "/sys/bus/pci/devices"): gone("/sys/bus/pci/devices"),
        ask("exists", "/sys/class"): gave(value=True),
    }


SEEN: Final = ("the fixed banner: google/gvisor pkg/sentry/syscalls/linux/linux64.go",)
assert set(UNKNOWN) <= {*ABILITIES, "suspend_seccomp", "sock_diag"}  # a name that is gone would shine through

MACHINES: Final[Machines] = {
    "gvisor": ({**sandbox(), **no_driver()}, SEEN),
    "gvisor-nvproxy": (
        {
            **sandbox(),
            **runs(PROXIED, (H100,), lambda *_: Way(None, None), attributes=NATIVE),
            **files({"/proc/driver/nvidia/version": None}),
            **folder("/dev", "nvidia0", "nvidiactl", "nvidia-uvm", "null"),
        },
        (
            *SEEN,
            "nvidia-smi and CUDA through nvproxy: google/gvisor#9846, #14617; its files: pkg/sentry/devices/nvproxy",
            "the driver's version is among those it supports: ray-project/ray#66161",
            "inferred: that CUDA's attributes pass through unchanged",
        ),
    ),
}
