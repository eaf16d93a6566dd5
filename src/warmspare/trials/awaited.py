"""Proofs that tracks rest on and whose trials are not in this version: their readings stay absent.

Each moves to a file of its own together with its trial. What a proof must hold is fixed here already, so
that recordings and requirements can speak of it.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from warmspare.model.facts import Count, GbPerS, Kind, Proof, Seconds
from warmspare.probes.gpus import PAIR


class CudaCompute(Proof, frozen=True, kw_only=True):
    """CUDA initialises, and a kernel's result is right."""


class PinnedMemory(Proof, frozen=True, kw_only=True):
    """How much host memory could be pinned, in MiB."""

    budget_mib: Count | None = None


class CudaVmm(Proof, frozen=True, kw_only=True):
    """Addresses reserved, memory created, mapped, unmapped and mapped again, its content checked."""


class ManagedMemory(Proof, frozen=True, kw_only=True):
    """Managed memory, touched by CPU and GPU at once."""

    concurrent: bool | None = None


class HostSpeed(Proof, frozen=True, kw_only=True):
    """CPU and I/O speed, as a fraction of a stored native run of the same machine."""

    of_native: Seconds | None = None


class PeerCopy(Proof, frozen=True, kw_only=True):
    """One-way copy of a non-repeating pattern, checked by the destination GPU on its own memory."""

    KIND: ClassVar[Kind] = PAIR

    peer_access: bool | None = None
    path: Literal["nvlink", "pcie", "staged"] | None = None
    gb_per_s: GbPerS | None = None


class NcclAllreduce(Proof, frozen=True, kw_only=True):
    """A value-checked all-reduce over all GPUs; busbw in GB/s."""

    busbw_gb_per_s: GbPerS | None = None


class GpuSuspend(Proof, frozen=True, kw_only=True):
    """A CUDA canary suspended and resumed by the driver, its bytes compared."""

    bytes_survived: bool | None = None
    mib_freed: Count | None = None
    suspend_s: Seconds | None = None
    resume_s: Seconds | None = None


class CriugpuRoundtrip(Proof, frozen=True, kw_only=True):
    """The same canary, to disk with CRIU and back."""

    bytes_survived: bool | None = None
    dump_s: Seconds | None = None
    restore_s: Seconds | None = None


class SleepCycles(Proof, frozen=True, kw_only=True):
    """Level-1 sleep and wake of a real engine: VRAM freed, same tokens and logprobs, requests survived."""

    tokens_equal: bool | None = None
    mib_freed: Count | None = None
    sleep_s: Seconds | None = None
    wake_s: Seconds | None = None
