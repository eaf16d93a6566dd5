"""NCCL by ctypes: communicators over one process or several, the all-reduce of floats, every raw ncclResult_t kept.

It takes the library that it is told, needs no header and no torch, and imports only the standard library. NCCL reads
its environment once a process: to try another setting, start another process.

Source: nccl.h of NCCL 2; the numbers in it have never changed.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn, cast

from warmspare.control.cuda import Buffer, Stream
from warmspare.control.lever import LeverRefused

LOADING: Final = "dlopen"
FLOAT32: Final = 7
SUM: Final = 0
FLOAT_BYTES: Final = 4
SUCCESS: Final = 0
IN_PROGRESS: Final = 7
UNIQUE_ID_BYTES: Final = 128
RESULTS: Final = {
    0: "ncclSuccess",
    1: "ncclUnhandledCudaError",
    2: "ncclSystemError",
    3: "ncclInternalError",
    4: "ncclInvalidArgument",
    5: "ncclInvalidUsage",
    6: "ncclRemoteError",
    7: "ncclInProgress",
}


class UniqueId(ctypes.Structure):
    """ncclUniqueId: names a communicator to every process that joins it."""

    _fields_ = (("internal", ctypes.c_char * UNIQUE_ID_BYTES),)


CALLS: Final = {
    "ncclGetVersion": (ctypes.c_void_p,),
    "ncclGetUniqueId": (ctypes.c_void_p,),
    "ncclCommInitAll": (ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p),
    "ncclCommInitRank": (ctypes.c_void_p, ctypes.c_int, UniqueId, ctypes.c_int),
    "ncclGroupStart": (),
    "ncclGroupEnd": (),
    "ncclAllReduce": (
        ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p,
    ),
    "ncclCommGetAsyncError": (ctypes.c_void_p, ctypes.c_void_p),
    "ncclCommAbort": (ctypes.c_void_p,),
    "ncclCommDestroy": (ctypes.c_void_p,),
}  # fmt: skip
"""The calls that a collective needs; all of them give an ncclResult_t."""
_OLD: Final = 10_000
"""Until 2.8 a version was written 2708, since 2.9 it is 20908."""


class NcclError(LeverRefused):
    """A call gave another ncclResult_t than success. `result` is it; None where the library lacks the call."""

    def __init__(self, call: str, result: int | None, name: str, said: str = "") -> None:
        """Carry the call, the raw result, its name, and NCCL's own last words on it."""
        super().__init__(name if result is None else f"{result} {name}", f"{call} ({said})" if said else call)
        self.call, self.result, self.name = call, result, name


class Nccl:
    """One NCCL library, loaded."""

    def __init__(self, path: str) -> None:
        """Load it, and make sure that it has every call.

        Raises:
            NcclError: it cannot be loaded, or lacks one (`result` None).
        """
        try:
            self._library = ctypes.CDLL(path)
        except OSError as error:
            said = str(error).replace(path, "")[:200].strip(": ")
            raise NcclError(LOADING, None, f"NO_LIBRARY ({said})") from None
        self._functions = {name: self._function(name, types) for name, types in CALLS.items()}

    def _function(self, name: str, types: tuple[Any, ...]) -> Callable[..., int]:
        try:
            function = getattr(self._library, name)
        except AttributeError:
            raise NcclError(name, None, "MISSING_SYMBOL") from None
        function.argtypes, function.restype = types, ctypes.c_int
        return cast("Callable[..., int]", function)

    def function(self, name: str) -> Callable[..., int]:
        """A call among CALLS, to be made often; it gives the raw ncclResult_t."""
        return self._functions[name]

    def call(self, name: str, *arguments: object) -> None:
        """Call it.

        Raises:
            NcclError: it gave another result than success.
        """
        result = self.function(name)(*arguments)
        if result != SUCCESS:
            self.fail(name, result)

    def fail(self, call: str, result: int) -> NoReturn:
        """A call gave another result than success."""
        raise NcclError(call, result, RESULTS.get(result, "ncclUnnamedError"), self._last_words())

    @property
    def version(self) -> str:
        """What the library says of itself, such as `2.28.9`."""
        number = ctypes.c_int()
        self.call("ncclGetVersion", ctypes.byref(number))
        major, rest = divmod(number.value, _OLD if number.value >= _OLD else 1000)
        return f"{major}.{rest // 100}.{rest % 100}"

    def communicators(self, devices: Sequence[int]) -> Communicators:
        """One communicator over these devices, by CUDA's numbers for them in this process; rank r is the r-th.

        It may never return: nothing in NCCL bounds it.
        """
        handles = (ctypes.c_void_p * len(devices))()
        self.call("ncclCommInitAll", handles, len(devices), (ctypes.c_int * len(devices))(*devices))
        return Communicators(self, [ctypes.c_void_p(handle) for handle in handles])

    def unique_id(self) -> bytes:
        """The name of a new communicator, for all processes that are to join it; this one must live meanwhile."""
        name = UniqueId()
        self.call("ncclGetUniqueId", ctypes.byref(name))
        return bytes(name)

    def joined(self, name: bytes, rank: int, ranks: int) -> Communicators:
        """This process's rank of a communicator over processes, on the GPU of the context that is current.

        It returns when all have joined, and may never return: nothing in NCCL bounds it.
        """
        handle = ctypes.c_void_p()
        self.call("ncclCommInitRank", ctypes.byref(handle), ranks, UniqueId.from_buffer_copy(name), rank)
        return Communicators(self, [handle])

    def _last_words(self) -> str:
        """The text of the last error; empty before 2.13, which keeps none."""
        try:
            function = self._library.ncclGetLastError
        except AttributeError:
            return ""
        function.argtypes, function.restype = (ctypes.c_void_p,), ctypes.c_char_p
        said: bytes | None = function(None)
        return " ".join((said or b"").decode("utf-8", "replace").split())[:200]


class Communicators:
    """Those ranks of one communicator that are in this process."""

    def __init__(self, library: Nccl, handles: Sequence[ctypes.c_void_p]) -> None:
        """Name the ranks' handles."""
        self._library, self.handles = library, handles

    def all_reduce(
        self, sources: Sequence[Buffer], targets: Sequence[Buffer], count: int, streams: Sequence[Stream]
    ) -> Callable[[], None]:
        """Ready the sum of `count` floats over all ranks, as one group; each call of what is returned enqueues it once.

        The arguments are made C's once, so that a call costs microseconds: it is timed against benchmarks in C.
        """
        reduce = self._library.function("ncclAllReduce")
        start, end = (self._library.function(f"ncclGroup{word}") for word in ("Start", "End"))
        ranks = [
            (ctypes.c_void_p(source.pointer), ctypes.c_void_p(target.pointer), ctypes.c_size_t(count),
             ctypes.c_int(FLOAT32), ctypes.c_int(SUM), handle, stream.handle)
            for source, target, handle, stream in zip(sources, targets, self.handles, streams, strict=True)
        ]  # fmt: skip

        def enqueue() -> None:
            results = [("ncclGroupStart", start()), *(("ncclAllReduce", reduce(*rank)) for rank in ranks)]
            for name, result in (*results, ("ncclGroupEnd", end())):
                if result != SUCCESS:
                    self._library.fail(name, result)

        return enqueue

    def check(self) -> None:
        """Ask each rank for an error that came after its calls had returned.

        Raises:
            NcclError: there is one.
        """
        result = ctypes.c_int()
        for handle in self.handles:
            self._library.call("ncclCommGetAsyncError", handle, ctypes.byref(result))
            if result.value not in (SUCCESS, IN_PROGRESS):
                self._library.fail("ncclCommGetAsyncError", result.value)

    def abort(self) -> None:
        """Give up what is under way, and free the ranks without waiting for each other."""
        for handle in self.handles:
            self._library.call("ncclCommAbort", handle)

    def destroy(self) -> None:
        """Free the ranks; all of their work must be done."""
        for handle in self.handles:
            self._library.call("ncclCommDestroy", handle)
