"""The CUDA driver's library by ctypes: loaded, initialised, asked for its devices, every raw CUresult kept.

Source: CUDA driver API; NVIDIA "CUDA on WSL" (/usr/lib/wsl/lib).
"""

from __future__ import annotations

import ctypes
import uuid
from typing import Final, NoReturn

from warmspare.control import cuda_abi as abi
from warmspare.control.lever import LeverRefused

LIBRARIES: Final = ("libcuda.so.1", "/usr/lib/wsl/lib/libcuda.so.1")
LOADING: Final = "dlopen"
_TEXT_BYTES: Final = 256


class CudaError(LeverRefused):
    """A driver call gave another CUresult than success. `result` is it; None where the driver lacks the call."""

    def __init__(self, call: str, result: int | None, name: str) -> None:
        """Carry the call, the raw CUresult and its name."""
        super().__init__(name if result is None else f"{result} {name}", call)
        self.call, self.result, self.name = call, result, name


class Driver:
    """The driver's library, loaded and, but for who wants no more than to ask of other processes, initialised."""

    def __init__(self, *, initialise: bool = True) -> None:
        """Load it and call cuInit.

        Raises:
            CudaError: no library can be loaded (`result` None), or cuInit refuses.
        """
        self._library = _load()
        if initialise:
            self.initialise()

    def initialise(self) -> None:
        """Call cuInit, which may be called again.

        Raises:
            CudaError: it refuses.
        """
        self.call("cuInit", 0)

    def call(self, name: str, *arguments: object) -> None:
        """Call the driver.

        Raises:
            CudaError: it gave another result than success, or has no such call.
        """
        result = self.result(name, *arguments)
        if result != abi.SUCCESS:
            self.fail(name, result)

    def fail(self, call: str, result: int) -> NoReturn:
        """A call gave another result than success."""
        raise CudaError(call, result, self.name_of(result))

    def result(self, name: str, *arguments: object) -> int:
        """Call the driver and give its raw CUresult.

        Raises:
            CudaError: it has no such call.
        """
        try:
            function = getattr(self._library, name)
        except AttributeError:
            raise CudaError(name, None, "MISSING_SYMBOL") from None
        function.argtypes, function.restype = abi.CALLS[name], ctypes.c_int
        return int(function(*arguments))

    def has(self, name: str) -> bool:
        """Whether this driver has the call."""
        return hasattr(self._library, name)

    def name_of(self, result: int) -> str:
        """A CUresult's name."""
        if result in abi.RESULTS:
            return abi.RESULTS[result]
        text = ctypes.c_char_p()
        known = self.has("cuGetErrorName") and not self.result("cuGetErrorName", result, ctypes.byref(text))
        return text.value.decode("ascii", "replace") if known and text.value else "CUDA_ERROR_UNNAMED"

    def number(self, name: str, *arguments: object) -> int:
        """What a call writes to its first argument, an int."""
        value = ctypes.c_int()
        self.call(name, ctypes.byref(value), *arguments)
        return value.value

    def devices(self) -> tuple[Device, ...]:
        """All devices, in CUDA's own order."""
        return tuple(Device(self, self.number("cuDeviceGet", n)) for n in range(self.number("cuDeviceGetCount")))

    def device(self, uuid_or_pci: str) -> Device:
        """The device with this UUID (`GPU-…`) or PCI address (`0000:01:00.0`): numbers differ from library to library.

        Raises:
            CudaError: CUDA shows no such device.
        """
        wanted = uuid_or_pci.lower()
        found = next((d for d in self.devices() if wanted in (d.uuid.lower(), d.pci.lower())), None)
        return found or self.fail("cuDeviceGet", abi.INVALID_DEVICE)


class Device:
    """One GPU as CUDA knows it."""

    def __init__(self, driver: Driver, ordinal: int) -> None:
        """Name a device by CUDA's number for it in this process."""
        self.driver, self.ordinal = driver, ordinal

    @property
    def uuid(self) -> str:
        """Such as `GPU-731c59fc-…`; a MIG slice has its own under the same prefix."""
        octets = ctypes.create_string_buffer(abi.UUID_BYTES)
        call = "cuDeviceGetUuid_v2" if self.driver.has("cuDeviceGetUuid_v2") else "cuDeviceGetUuid"  # before R470
        self.driver.call(call, octets, self.ordinal)
        return f"GPU-{uuid.UUID(bytes=octets.raw)}"

    @property
    def pci(self) -> str:
        """Its PCI address with a domain of four digits, in lower case."""
        text = ctypes.create_string_buffer(_TEXT_BYTES)
        self.driver.call("cuDeviceGetPCIBusId", text, _TEXT_BYTES, self.ordinal)
        return text.value.decode("ascii", "replace").lower()

    def attribute(self, name: str) -> int:
        """An attribute by its name in `cuda_abi.ATTRIBUTES`."""
        return self.driver.number("cuDeviceGetAttribute", abi.ATTRIBUTES[name], self.ordinal)

    def can_access(self, peer: Device) -> bool:
        """What the driver says of access to a peer's memory; it has been wrong both ways."""
        return self.driver.number("cuDeviceCanAccessPeer", self.ordinal, peer.ordinal) == 1


def _load() -> ctypes.CDLL:
    problem = ""
    for name in LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError as error:
            problem = problem or str(error)
    raise CudaError(LOADING, None, f"NO_LIBRARY ({problem[:200]})")
