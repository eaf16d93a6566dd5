"""Does the CPU say that a hypervisor runs it? One bit of /proc/cpuinfo, which is too long to keep whole.

Source: Linux arch/x86/kernel/cpu/capflags.c; other architectures have no such flag.
"""

import os
from pathlib import Path

_WITH_THE_FLAG = ("x86_64", "i386", "i486", "i586", "i686")


def run() -> dict[str, object]:
    """`{"set": bool | None}`, from the first CPU's flags; None where the architecture has no such flag."""
    if os.uname().machine not in _WITH_THE_FLAG:
        return {"set": None}
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("flags"):
            return {"set": "hypervisor" in line.split()}
    return {"set": False}
