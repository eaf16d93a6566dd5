"""What NVLink itself says it has carried: the second instrument for the path of a copy.

Source: nvml.h, NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX and _RX: KiB of data over all links of a GPU.
"""

from __future__ import annotations

from typing import Final

from warmspare.host import nvml
from warmspare.model.transcript import Gave

DATA_SENT, DATA_RECEIVED = 138, 139
ALL_LINKS: Final = 0xFFFFFFFF
LINK_LIMIT: Final = 36
KIB: Final = 1024


def sent_bytes(index: int | None) -> int | None:
    """Bytes of data that the GPU with this NVML number has sent over its links; None where it does not count them."""
    if index is None:
        return None
    return _field(index, DATA_SENT, (ALL_LINKS,)) or _field(index, DATA_SENT, range(LINK_LIMIT))


def _field(index: int, field: int, scopes: range | tuple[int, ...]) -> int | None:
    """The sum over links of what NVML gives; None if it gives nothing."""
    asked = [str(number) for scope in scopes for number in (field, scope)]
    answer = nvml.ask("nvmlDeviceGetFieldValues", str(index), *asked)
    told = answer.value if isinstance(answer, Gave) and isinstance(answer.value, list) else []
    values = [one["value"] for one in told if isinstance(one, dict) and isinstance(one.get("value"), int)]
    return sum(values) * KIB if values else None
