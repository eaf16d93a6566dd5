"""The kernel's build options that matter here, from the first configuration file found.

The file is too long to keep whole. WSL2's kernel 6.18 has none: what counts is behaviour.

Source: criu.org/Linux_kernel, as quoted in checkpoint-restore/criu#2026.
"""

import gzip
import os
import re
from pathlib import Path
from typing import Final

OPTIONS: Final = (
    "CHECKPOINT_RESTORE", "MEMFD_CREATE", "USERFAULTFD", "KCMP", "PROC_CHILDREN", "SECCOMP_FILTER", "UNIX_DIAG",
    "INET_DIAG", "INET_TCP_DIAG", "INET_UDP_DIAG", "INET_RAW_DIAG", "PACKET_DIAG", "NETLINK_DIAG", "NAMESPACES",
    "MEM_SOFT_DIRTY", "FHANDLE", "EVENTFD", "EPOLL",
)  # fmt: skip


def run() -> dict[str, object]:
    """`{"path": str | None, "options": {name: "y" | "m" | "n"}}`; no file found is an answer."""
    release = os.uname().release
    for path in ("/proc/config.gz", f"/boot/config-{release}", f"/lib/modules/{release}/config"):
        try:
            data = Path(path).read_bytes()
        except (FileNotFoundError, PermissionError):
            continue
        text = (gzip.decompress(data) if path.endswith(".gz") else data).decode("utf-8", "replace")
        found = dict(re.findall(r"^CONFIG_(\w+)=(\w+)$", text, re.MULTILINE))
        return {"path": path, "options": {option: found.get(option, "n") for option in OPTIONS}}
    return {"path": None, "options": {}}
