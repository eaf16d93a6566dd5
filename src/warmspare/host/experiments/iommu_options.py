"""Which of the kernel's options are about the IOMMU and PCI?

The whole command line may hold secrets and names; what follows `--` is for the first program.

Source: Documentation/admin-guide/kernel-parameters.txt (quotes keep blanks together); `pcie_acs_override` is of a
patch that Proxmox VE and others carry.
"""

import re
from pathlib import Path
from typing import Final

COMMAND_LINE: Final = Path("/proc/cmdline")
WORD: Final = re.compile(r'(?:[^\s"]|"[^"]*"?)+')
OURS: Final = re.compile(
    r"(?:iommu|iommu\.(?:passthrough|strict|forcedac)|(?:intel|amd)_iommu|pci|pcie_acs_override)=[\w.,:;=@/+-]{0,160}"
)
LIMIT: Final = 32


def run() -> dict[str, object]:
    """`{"options": [word]}`, in their order."""
    words = WORD.findall(COMMAND_LINE.read_text(encoding="utf-8", errors="replace"))
    kernel = words[: words.index("--")] if "--" in words else words
    return {"options": [word for word in kernel if OURS.fullmatch(word)][:LIMIT]}
