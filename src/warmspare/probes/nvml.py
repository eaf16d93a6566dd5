"""What probes need of NVML besides its answers: its error codes, and asking for what a GPU may not have."""

from __future__ import annotations

from typing import Any, Final

from warmspare.host.port import Host, Unreadable

INVALID_ARGUMENT: Final = "2"
NOT_SUPPORTED: Final = "3"
DRIVER_NOT_LOADED: Final = "9"
LIBRARY_NOT_FOUND: Final = "12"
FUNCTION_NOT_FOUND: Final = "13"
OPERATING_SYSTEM: Final = "17"
MISMATCH: Final = "18"
"""Some of NVML's codes. Source: nvml.h, nvmlReturn_t."""


def text(value: object) -> str:
    """A string that NVML gave.

    Raises:
        ValueError: it gave something else, or nothing.
    """
    if not isinstance(value, str) or not value:
        message = f"NVML gave {value!a} for a text"[:80]
        raise ValueError(message)
    return value


def number(value: object, below: int) -> int:
    """A number that NVML gave, from 0 on.

    Raises:
        ValueError: it gave something else, or one that is too large to be true.
    """
    if not isinstance(value, int) or not 0 <= value < below:
        message = f"NVML gave {value!a} for a number below {below}"[:80]
        raise ValueError(message)
    return value


def if_supported(host: Host, call: str, *numbers: int) -> Any:  # noqa: ANN401 # whatever NVML gives
    """The value of a query, or None where NVML says that this GPU has no such thing."""
    try:
        return host.nvml(call, *numbers)
    except Unreadable as unreadable:
        if unreadable.code == NOT_SUPPORTED:
            return None
        raise


def newest_if_supported(host: Host, *calls: tuple[Any, ...]) -> Any:  # noqa: ANN401 # whatever NVML gives
    """`if_supported` of the first of these queries that this NVML has; each is a name and its numbers.

    Raises:
        Unreadable: as NVML answers; FUNCTION_NOT_FOUND where it has none of them.
    """
    *newer, oldest = calls
    for call in newer:
        try:
            return if_supported(host, *call)
        except Unreadable as unreadable:
            if unreadable.code != FUNCTION_NOT_FOUND:
                raise
    return if_supported(host, *oldest)
