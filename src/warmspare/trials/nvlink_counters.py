"""What NVLink itself says it has carried: the second instrument for the path of a copy.

Source: nvml.h, NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX and _RX: KiB of data over all links of a GPU.
"""

from __future__ import annotations

import threading
from typing import Final, NamedTuple

from warmspare.host import nvml
from warmspare.model.transcript import Gave

DATA_SENT, DATA_RECEIVED = 138, 139
ALL_LINKS: Final = 0xFFFFFFFF
LINK_LIMIT: Final = 36
KIB: Final = 1024
PATIENCE_S: Final = 2.0


class Carried(NamedTuple):
    """Bytes of data that one GPU has sent over its links, and that another has received over its own."""

    sent: int
    received: int

    def since(self, earlier: Carried) -> int:
        """What both have seen: the lesser of the two, since either may also talk to others meanwhile."""
        return min(self.sent - earlier.sent, self.received - earlier.received)


def carried(source: int | None, target: int | None) -> Carried | None:
    """What the GPUs with these NVML numbers have counted; None where one does not count, or NVML does not answer.

    An NVML that hangs is none of the copy's doing: the thread that asked it is left behind.
    """
    told: list[int | None] = []
    asking = threading.Thread(
        target=lambda: told.extend((_bytes(source, DATA_SENT), _bytes(target, DATA_RECEIVED))), daemon=True
    )
    asking.start()
    asking.join(PATIENCE_S)
    if len(told) < len(Carried._fields) or told[0] is None or told[1] is None:
        return None
    return Carried(told[0], told[1])


def _bytes(index: int | None, field: int) -> int | None:
    if index is None:
        return None
    return _field(index, field, (ALL_LINKS,)) or _field(index, field, range(LINK_LIMIT))


def _field(index: int, field: int, scopes: range | tuple[int, ...]) -> int | None:
    """The sum over links of what NVML gives; None if it gives nothing."""
    asked = [str(number) for scope in scopes for number in (field, scope)]
    answer = nvml.ask("nvmlDeviceGetFieldValues", str(index), *asked)
    told = answer.value if isinstance(answer, Gave) and isinstance(answer.value, list) else []
    values = [one["value"] for one in told if isinstance(one, dict) and isinstance(one.get("value"), int)]
    return sum(values) * KIB if values else None
