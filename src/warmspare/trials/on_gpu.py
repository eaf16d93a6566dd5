"""How trials on GPUs begin: CUDA started, a context opened, the kernels compiled, and the checking kernel checked."""

from __future__ import annotations

import secrets
from typing import Final, NamedTuple

from warmspare.control import cuda_abi as abi
from warmspare.control.cuda import Context, CudaError, Device, Driver, HostBuffer
from warmspare.control.kernels import Kernels
from warmspare.model.facts import Cause
from warmspare.trials.api import NotTried, Steps
from warmspare.trials.given import Gpu

MIB: Final = 2**20
GIB: Final = 2**30
SHARE: Final = 10
"""A trial takes at most this part of what is free: a tenth, of a GPU's memory and of the host's."""
TEST_BYTES: Final = 8 * MIB
"""Twice what all threads of a kernel cover in one go, so that a kernel which stops there is seen through."""
HIDDEN: Final = "CUDA shows {count} devices here, and {gpu} is not among them (CUDA_VISIBLE_DEVICES, or MIG)"
NO_ORACLE: Final = "the check kernel did not see a planted fault"


class Ready(NamedTuple):
    """One GPU, ready for a trial: `share` is how many bytes of it the trial may take in all."""

    context: Context
    kernels: Kernels
    share: int


def ready(steps: Steps, gpu: Gpu) -> Ready:
    """Prepare a GPU; a failure is the instrument's own, since no lever has been pulled.

    Raises:
        NotTried: the checking kernel finds a wrong word right, or a right one wrong.
    """
    context = steps.prepare("open the GPU", opened, gpu)
    share = context.memory().free // SHARE
    kernels = steps.prepare("compile the kernels", Kernels, context)
    steps.prepare("check the check", check_the_check, kernels)
    return Ready(context, kernels, share)


def opened(gpu: Gpu) -> Context:
    """A context on a GPU, in a CUDA that is started for it."""
    return Context(shown(Driver(), gpu))


def shown(driver: Driver, gpu: Gpu) -> Device:
    """The GPU among those that CUDA shows.

    Raises:
        NotTried: it is not among them: that is somebody's wish, or a split GPU, and no fault of it.
    """
    try:
        return driver.device(gpu.id)
    except CudaError as error:
        if error.result != abi.INVALID_DEVICE:
            raise
        raise NotTried(Cause.SKIPPED, HIDDEN.format(count=len(driver.devices()), gpu=gpu.subject)) from None


def check_the_check(kernels: Kernels) -> None:
    """An oracle that cannot fail is none.

    Raises:
        NotTried: it missed a planted fault, or saw one where none is.
    """
    buffer = kernels.context.allocate(TEST_BYTES)
    if not kernels.sees_faults(buffer, seed()):
        raise NotTried(Cause.INVALID, NO_ORACLE)
    buffer.free()


def seed() -> int:
    """Of a pattern that nothing can know beforehand, and that no earlier run has left somewhere."""
    return secrets.randbits(63)


def pinned(context: Context, size: int, step: int) -> HostBuffer:
    """Pinned memory of `size` bytes, or of as much less, in whole steps, as can be had.

    Raises:
        CudaError: not even one step can be pinned.
    """
    while True:
        try:
            return context.pin(size)
        except CudaError:
            size = size // 2 // step * step
            if not size:
                raise
