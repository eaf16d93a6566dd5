"""Does the CPU say that a hypervisor runs it? One bit of /proc/cpuinfo, which is too long to keep whole.

Source: Linux arch/x86/kernel/cpu/capflags.c; other architectures have no such flag.
"""

from pathlib import Path


def run() -> dict[str, object]:
    """`{"set": bool}`, from the first CPU's flags."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("flags"):
            return {"set": "hypervisor" in line.split()}
    return {"set": False}
