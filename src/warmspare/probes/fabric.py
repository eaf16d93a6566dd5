"""The NVLink fabric: whether its manager has let each GPU in, how healthy it is, and the switches themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec

from warmspare.host.port import Host, Unreadable
from warmspare.model.facts import Count, Fact, Kind, Text
from warmspare.probes.api import probe
from warmspare.probes.gpus import GPU, Gpu
from warmspare.probes.nvml import FUNCTION_NOT_FOUND, newest_if_supported
from warmspare.probes.pci import NVIDIA, devices

State = Literal["unsupported", "not started", "in progress", "completed", "not told"]
STATES: Final[tuple[State, ...]] = ("unsupported", "not started", "in progress", "completed")
"""nvmlGpuFabricState_t. Source: nvml.h."""
TRUE: Final = 1
FAULTS: Final = {
    "degraded bandwidth": (0, 0x3), "route recovery": (2, 0x3), "unhealthy route": (4, 0x3),
    "access timeout recovery": (6, 0x3),
}  # fmt: skip
"""Where the health mask keeps each of its questions: shift and width. Source: nvml.h, NVML_GPU_FABRIC_HEALTH_MASK."""
CONFIGURATION: Final = (8, 0xF)
MISCONFIGURED: Final = {
    2: "wrong system GUID", 3: "wrong chassis", 4: "no partition", 5: "too few NVLinks", 6: "firmware does not fit",
    7: "wrong place", 8: "GPU state invalid",
}  # fmt: skip
BRIDGE: Final = "0x0680"
"""The PCI class that an NVSwitch shows."""


class Fabric(Fact, frozen=True, kw_only=True):
    """Whether this GPU has joined the fabric; `status` is NVML's code for how that ended, `faults` what is wrong.

    `not told`: the driver is too old for the question.
    """

    KIND: ClassVar[Kind] = GPU

    state: State
    status: Count
    clique: Count
    faults: tuple[Text, ...]


class NvSwitches(Fact, frozen=True, kw_only=True):
    """The NVSwitches that this machine shows, by PCI address. A VM may use some without being shown any."""

    addresses: Annotated[tuple[str, ...], msgspec.Meta(max_length=64)]


@probe
def fabric(host: Host, gpu: Gpu) -> Fabric:
    """Source: nvmlDeviceGetGpuFabricInfoV (since driver 545), before it nvmlDeviceGetGpuFabricInfo."""
    calls = ("nvmlDeviceGetGpuFabricInfoV", "nvmlDeviceGetGpuFabricInfo")
    try:
        told = newest_if_supported(host, *((call, gpu.nvml) for call in calls))
    except Unreadable as unreadable:
        if unreadable.code != FUNCTION_NOT_FOUND:
            raise
        return Fabric(state="not told", status=0, clique=0, faults=())
    return _joined(told) if told else Fabric(state="unsupported", status=0, clique=0, faults=())


def _joined(told: Mapping[str, Any]) -> Fabric:
    state, mask = STATES[int(told["state"])], int(told.get("healthMask", 0))
    faults = [name for name, (shift, width) in FAULTS.items() if mask >> shift & width == TRUE]
    shift, width = CONFIGURATION
    if wrong := MISCONFIGURED.get(mask >> shift & width):
        faults.append(wrong)
    over = state == "completed"  # before that these numbers mean nothing
    return Fabric(
        state=state,
        status=int(told["status"]) if over else 0,
        clique=int(told["cliqueId"]) if over else 0,
        faults=tuple(faults) if over else (),
    )


@probe
def nv_switches(host: Host) -> NvSwitches:
    """By the PCI bus. Source: leptonai/gpud counts them so; an NVSwitch is a bridge of NVIDIA's, class 0680."""
    found = devices(host, NVIDIA)
    return NvSwitches(addresses=tuple(d.address for d in found if d.kind.startswith(BRIDGE)))
