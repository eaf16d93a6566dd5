"""Start CUDA, compile kernels for a GPU, run them, and compare what they wrote with what the CPU works out."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import ClassVar, Final

from warmspare.control.cuda import Buffer, Context, Driver
from warmspare.control.kernels import MANY, POISON, WORD_BYTES, Kernels, word
from warmspare.model.facts import Kind, Outcome, Proof, Seconds
from warmspare.probes.gpus import GPU
from warmspare.trials.api import Steps, trial
from warmspare.trials.given import Gpu
from warmspare.trials.on_gpu import TEST_BYTES, seed, shown

FLOAT_BYTES: Final = 4
WINDOW: Final = 2048
"""How many words are compared at each place that a kernel could get wrong."""
PLUS: Final = 3
"""What is added to every float, as an argument of the kernel's own."""
WORDS: Final = TEST_BYTES // WORD_BYTES
FIRST_GO: Final = MANY.blocks * MANY.threads
"""How many words all threads cover before each goes on to its next."""


class CudaCompute(Proof, frozen=True, kw_only=True):
    """CUDA starts, and kernels' results are right on this GPU. `init_s` is cuInit's time."""

    KIND: ClassVar[Kind] = GPU

    init_s: Seconds | None = None
    context_s: Seconds | None = None
    compile_s: Seconds | None = None


@trial(deadline=30, touches="a CUDA context and 8 MiB of each GPU", quick=True)
def cuda_compute(steps: Steps, gpu: Gpu) -> CudaCompute:
    """Every step is a lever here, cuInit too: a machine on which CUDA does not start has failed this very trial.

    Whole numbers and floats are compared word by word with the CPU's own, at both ends and where the threads begin
    anew; then the checking kernel, on which the other trials rest, must see a planted fault.
    """
    driver = steps("start CUDA", Driver)
    device = steps.prepare("find the GPU", shown, driver, gpu)
    context = steps("open a context", Context, device)
    kernels = steps("compile the kernels", Kernels, context)
    buffer = steps("allocate", context.allocate, TEST_BYTES)
    for name, write in (("compute", _whole), ("compute floats", _floats)):
        if problem := steps(name, write, kernels, buffer, seed()):
            steps.wrong(problem)
    if not steps("check", kernels.sees_faults, buffer, seed()):
        steps.wrong("the check kernel did not see a planted fault")
    return CudaCompute(
        outcome=Outcome(kind="done"),
        init_s=steps.took_s["start CUDA"],
        context_s=steps.took_s["open a context"],
        compile_s=steps.took_s["compile the kernels"],
    )


def _whole(kernels: Kernels, buffer: Buffer, number: int) -> str | None:
    _poison(buffer)
    kernels.fill(buffer.pointer, buffer.size, number)
    for start in places(WORDS):
        found = struct.unpack(f"<{WINDOW}Q", buffer.read(WINDOW * WORD_BYTES, start * WORD_BYTES))
        right = (word(number, start + n) for n in range(WINDOW))
        if (n := first_wrong(found, right)) is not None:
            return f"word {start + n} is {found[n]:#x}, and not {word(number, start + n):#x}"
    return None


def _floats(kernels: Kernels, buffer: Buffer, number: int) -> str | None:
    _poison(buffer)
    kernels.fill_floats(buffer.pointer, buffer.size // FLOAT_BYTES, number, PLUS)
    for start in places(buffer.size // FLOAT_BYTES):
        found = struct.unpack(f"<{WINDOW}f", buffer.read(WINDOW * FLOAT_BYTES, start * FLOAT_BYTES))
        right = (float((word(number, start + n) >> 48) + PLUS) for n in range(WINDOW))
        if (n := first_wrong(found, right)) is not None:
            return f"float {start + n} is {found[n]!r}, and not {(word(number, start + n) >> 48) + PLUS}"
    return None


def _poison(buffer: Buffer) -> None:
    buffer.context.set_words(buffer.pointer, POISON, buffer.size // FLOAT_BYTES)


def places(count: int) -> tuple[int, ...]:
    """Where to compare `count` numbers: the first, those around the threads' second beginning, the last."""
    return (0, FIRST_GO - WINDOW // 2, count - WINDOW)


def first_wrong(found: Iterable[float], right: Iterable[float]) -> int | None:
    """The place of the first number that is not as it should be."""
    return next((n for n, (one, other) in enumerate(zip(found, right, strict=True)) if one != other), None)
