"""What is tried of the driver itself: its refusals, its memory, its streams, and two processes at one buffer."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pynvml

from scenes import MUCH, SEED, SIZE, contexts, perform, put, refusal, say, timed, words_of
from warmspare.control import cuda_abi as abi
from warmspare.control import vmm
from warmspare.control.cuda import Buffer, Driver, Stream
from warmspare.control.kernels import ALL, WORD_BYTES, Kernels, word


def devices() -> list[Any]:
    driver = Driver()
    return [
        [d.ordinal, d.uuid, d.pci, d.attribute("vmm"), driver.device(d.uuid).ordinal, driver.device(d.pci).ordinal]
        for d in driver.devices()
    ]


def refusals() -> dict[str, Any]:
    driver = Driver()
    one = contexts()[0]
    buffer = one.allocate(SIZE)
    shared = buffer.shared()
    return {
        "no such device": refusal(lambda: driver.device("GPU-nowhere")),
        "free of what is not ours": refusal(lambda: Buffer(one, 4096, 1).free()),
        "free of a middle": refusal(lambda: Buffer(one, buffer.pointer + 8, 1).free()),
        "copy past the end": refusal(lambda: one.copy(buffer.pointer + 8, buffer.pointer, SIZE)),
        "no handle at all": refusal(lambda: one.open_shared(bytes(abi.IPC_HANDLE_BYTES), SIZE)),
        "its own handle": refusal(lambda: one.open_shared(shared, SIZE)),
        "no such kernel": refusal(lambda: one.function(one.module(".version 6.0"), "nothing")),
        "no ptx": refusal(lambda: one.module("nothing")),
        "too much": refusal(lambda: one.allocate(1 << 40)),
        "nothing": refusal(lambda: one.allocate(0)),
        "peer of itself": refusal(lambda: one.enable_peer(one)),
        "no event yet": refusal(lambda: one.event().since_s(one.event())),
    }


def init() -> tuple[str, int | None, str] | None:
    return refusal(Driver)


def odd_codes() -> list[Any]:
    """Results that only the driver can name, and one that nobody can."""
    one = contexts()[0]
    return [refusal(lambda: one.allocate(8)), refusal(lambda: one.pin(8))]


def sticky() -> list[Any]:
    """A kernel on memory that its GPU may not use, and what comes after."""
    one, other = contexts()[:2]
    kernels, far = Kernels(one), other.allocate(SIZE)
    launched = refusal(lambda: kernels.fill(far.pointer, SIZE, SEED))
    rest = (one.synchronize, lambda: far.read(8), lambda: other.allocate(8), one.event)
    return [launched, *(refusal(act) for act in rest)]


def missing() -> tuple[str, int | None, str] | None:
    return refusal(lambda: vmm.Reservation(contexts()[0], 2 << 20))


def memory() -> list[int]:
    """Free bytes less those at first: with an allocation, with a chunk too, with both freed."""
    one = contexts()[0]
    first = one.memory().free
    buffer = one.allocate(SIZE)
    with_buffer = one.memory().free
    chunk = vmm.create(one, vmm.granularity(one))
    with_both = one.memory().free
    buffer.free()
    vmm.release(one, chunk)
    return [first - with_buffer, first - with_both, first - one.memory().free]


def pinned() -> list[int]:
    """How many buffers of 1 MiB can be pinned, and how many more once one is freed."""
    one = contexts()[0]
    buffers = []

    def more() -> int:
        count = 0
        while count < 20 and refusal(lambda: buffers.append(one.pin(1 << 20))) is None:
            count += 1
        return count

    first = more()
    buffers.pop().free()
    return [first, more()]


def there_and_back() -> list[Any]:
    """A text through pinned memory and a GPU, the end of it; peer access enabled twice; the context given back."""
    one, other = contexts()[:2]
    first = one.memory().free
    buffer, pins = one.allocate(SIZE), [one.pin(SIZE), one.pin(SIZE)]
    pins[0].bytes()[:8] = b"backward"
    one.copy_in(buffer.pointer + 16, pins[0].pointer, 8)
    one.copy_out(pins[1].pointer, buffer.pointer + 20, 4)
    one.synchronize()
    buffer.write(b"for", 16)
    twice = [refusal(lambda: one.enable_peer(other)) for _ in "12"]
    text = [bytes(pins[1].bytes()[:4]).decode(), buffer.read(8, 16).decode()]
    one.release()
    gone = refusal(one.synchronize)
    again = contexts()[0].memory().free
    return [text, twice, gone, first - again]


def remapped() -> list[Any]:
    """A chunk's content, at another address than it was written at; what is refused on the way."""
    one = contexts()[0]
    kernels, size = Kernels(one), vmm.granularity(one)
    reserved, chunk = vmm.Reservation(one, 32 << 30), vmm.create(one, size)
    first = reserved.map(chunk, size, 0)
    kernels.fill(first.pointer, size, SEED)
    one.synchronize()
    taken = refusal(lambda: reserved.map(chunk, size, 0))
    reserved.unmap(size, 0)
    gone = refusal(lambda: first.read(8))
    again = reserved.map(chunk, size, 16 << 30)
    seen = kernels.check(again.pointer, size, SEED)
    still_mapped = refusal(reserved.free)
    reserved.unmap(size, 16 << 30)
    vmm.release(one, chunk)
    reserved.free()
    return [seen, taken, gone, still_mapped]


def managed() -> list[Any]:
    one, other = contexts()[:2]
    buffer = one.allocate_managed(SIZE)
    Kernels(one).fill(buffer.pointer, SIZE, SEED)
    one.synchronize()
    return list(Kernels(other).check(buffer.pointer, SIZE, SEED))


def owner() -> None:
    """Export an allocation; then, for each line that comes, say how it differs from the pattern with that seed."""
    one = contexts()[0]
    kernels, buffer = Kernels(one), one.allocate(SIZE)
    kernels.fill(buffer.pointer, SIZE, SEED)
    one.synchronize()
    say(buffer.shared().hex())
    for line in sys.stdin:
        say(kernels.check(buffer.pointer, SIZE, int(line)))


def guest(handle: str) -> None:
    """Check another process's memory from another GPU, write to it; check it again at the end of stdin, and close."""
    other = contexts()[1]
    kernels, shared = Kernels(other), other.open_shared(bytes.fromhex(handle), SIZE)
    say(kernels.check(shared.pointer, SIZE, SEED))
    kernels.fill(shared.pointer, SIZE, SEED + 1)
    other.synchronize()
    say("written")
    sys.stdin.read()
    say(kernels.check(shared.pointer, SIZE, SEED + 1))
    shared.close()
    say(refusal(lambda: other.open_shared(bytes.fromhex(handle), SIZE)))


def in_use() -> list[int]:
    """Bytes in use of each GPU, as NVML has them."""
    pynvml.nvmlInit()
    handles = [pynvml.nvmlDeviceGetHandleByIndex(n) for n in range(4)]
    return [pynvml.nvmlDeviceGetMemoryInfo(handle).used for handle in handles]


def held() -> list[Any]:
    """What a held stream lets through, before and after it is let go; and a hold that runs out of patience."""
    one = contexts()[0]
    kernels, buffer, flag, stream = Kernels(one), one.allocate(SIZE), one.pin(WORD_BYTES), one.stream()
    other = one.stream()
    kernels.fill(buffer.pointer, SIZE, SEED)
    one.synchronize()
    kernels.hold(flag.pointer, 1, 60, stream)
    kernels.fill(buffer.pointer, SIZE, SEED + 1, stream)
    over = one.event().record(stream)
    other.wait(over)
    kernels.add(buffer.pointer, SIZE, 1, other)
    after_that = one.event().record(other)
    before = [over.is_over(), after_that.is_over(), words_of(buffer, 1) == [word(SEED, 0)]]
    flag.bytes()[0] = 1
    seen = kernels.held(stream)
    other.synchronize()
    after = [over.is_over(), after_that.is_over(), words_of(buffer, 1) == [word(SEED + 1, 0) + 1 & ALL]]
    kernels.hold(flag.pointer, 2, 0.01, stream)
    return [before, seen, after, kernels.held(stream)]


def speeds() -> dict[str, float]:
    """GB/s of each path, and microseconds of a load by chain."""
    one, other = contexts()[:2]
    size = MUCH
    near, also, far, pin = one.allocate(size), one.allocate(size), other.allocate(size), one.pin(size)
    kernels = Kernels(one)
    put(far, [far.pointer])
    work: dict[str, Callable[[Stream], None]] = {
        "local": lambda s: one.copy(also.pointer, near.pointer, size, s),
        "staged": lambda s: one.copy_to_peer(far, near, size, s),
        "pinned in": lambda s: one.copy_in(near.pointer, pin.pointer, size, s),
        "pinned out": lambda s: one.copy_out(pin.pointer, near.pointer, size, s),
        "fill": lambda s: kernels.fill(near.pointer, size, SEED, s),
    }
    found = {name: size / timed(one, act) / 1e9 for name, act in work.items()}
    one.enable_peer(other)
    found["peer"] = size / timed(one, lambda s: one.copy_to_peer(far, near, size, s)) / 1e9
    found["peer fill"] = size / timed(one, lambda s: kernels.fill(far.pointer, size, SEED, s)) / 1e9
    put(far, [far.pointer])
    found["chase_us"] = timed(one, lambda s: kernels.chase(far.pointer, 10000, s)) / 10000 * 1e6
    return found


if __name__ == "__main__":
    perform(globals())
