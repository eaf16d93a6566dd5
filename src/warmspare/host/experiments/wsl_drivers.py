"""Whose display drivers are in the Windows driver store that WSL2 shows at /usr/lib/wsl/drivers?

The folder may be the whole store, with every modem, printer and monitor Windows ever met: too long and too telling
to keep. A folder is a driver package, `NAME.inf_ARCHITECTURE_HASH`. Not every name in `nv` is a display driver's:
Windows itself brings nvraid and nvdimm, and nvhda is for sound; what is inside decides.

Source: microsoft/WSL#10547 (a whole store), microsoft/WSL#6423 (nvmii.inf beside iigd_dch.inf: igdkmd64.sys is
Intel's), NVIDIA/nvidia-container-toolkit#1890 (u0420529.inf of AMD beside nv_dispsi.inf, whose folder holds
libcuda.so.1.1); AMD's older packages are c0….inf (ADLGPUInfo in AMD's ADL SDK).
"""

import re
from pathlib import Path
from typing import Final

STORE: Final = Path("/usr/lib/wsl/drivers")
LIBRARIES: Final = Path("/usr/lib/wsl/lib")
BY_NAME: Final = (
    ("nvidia", re.compile(r"nv_disp")),
    ("amd", re.compile(r"[cu]0\d{5,6}\.inf_")),
    ("intel", re.compile(r"iigd_|igdlh")),
)
NVIDIA_FILE: Final = re.compile(r"nvlddmkm|libcuda\.so|libnvidia-ml\.so")


def run() -> dict[str, object]:
    """`{"found": bool, "vendors": [name]}`; `found` is whether any driver package is shown at all."""
    try:
        packages = sorted(STORE.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        packages = []
    found = {vendor for package in packages if (vendor := _vendor(package))}
    # NVIDIA's driver also puts its libraries there, which no other vendor's does.
    if LIBRARIES.is_dir() and _is_nvidia(LIBRARIES):
        found.add("nvidia")
    return {"found": bool(packages), "vendors": sorted(found)}


def _vendor(package: Path) -> str | None:
    for vendor, name in BY_NAME:
        if name.match(package.name.lower()):
            return vendor
    return "nvidia" if package.name.lower().startswith("nv") and _is_nvidia(package) else None


def _is_nvidia(folder: Path) -> bool:
    """Also where we may not look: that it is not NVIDIA's is said only when it is sure."""
    try:
        return any(NVIDIA_FILE.match(file.name) for file in folder.iterdir())
    except NotADirectoryError:
        return False
    except OSError:
        return True
