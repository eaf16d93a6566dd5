"""What is tried of the kernels, and a copy from one GPU to another as a trial makes it."""

from __future__ import annotations

from typing import Any

import pynvml

from scenes import MUCH, SEED, SIZE, WORDS, contexts, perform, put, refusal, timed, words_of
from warmspare.control.cuda import Context, Event
from warmspare.control.kernels import ALL, POISON, WORD_BYTES, Expected, Kernels, Mismatch, Seal, checksum_of, word


def kernels_agree() -> dict[str, bool]:
    """Each kernel, against what it should do by kernels.py."""
    one = contexts()[0]
    kernels, buffer, spare = Kernels(one), one.allocate(SIZE), one.allocate(SIZE)
    pattern = [word(SEED, i) for i in range(WORDS)]
    kernels.fill(buffer.pointer, SIZE, SEED)
    found = {
        "fill": words_of(buffer, WORDS) == pattern,
        "check right": kernels.check(buffer.pointer, SIZE, SEED) == Mismatch(0, None),
        "check other": kernels.check(buffer.pointer, SIZE, SEED + 1) == Mismatch(WORDS, 0),
        "checksum": kernels.checksum(buffer.pointer, SIZE) == checksum_of(pattern),
    }
    put(buffer, [0])
    kernels.add(buffer.pointer, SIZE, ALL)
    found["add"] = words_of(buffer, WORDS) == [ALL, *(one - 1 & ALL for one in pattern[1:])]
    put(buffer, [*pattern[:5], 1, 2, *pattern[7:]])
    found["check two"] = kernels.check(buffer.pointer, SIZE, SEED) == Mismatch(2, 5)
    kernels.fill_floats(buffer.pointer, WORDS, SEED, 3)
    found["floats"] = kernels.check_floats(buffer.pointer, WORDS, SEED, Expected(1, 3)) == Mismatch(0, None)
    found["floats other"] = kernels.check_floats(buffer.pointer, WORDS, SEED, Expected(2, 3)).wrong > WORDS * 0.99
    put(buffer, [buffer.pointer + 64])
    buffer.write((buffer.pointer + 128).to_bytes(WORD_BYTES, "little"), 64)
    kernels.chase(buffer.pointer, 2)
    found["chase"] = words_of(kernels._result, 1) == [buffer.pointer + 128]  # noqa: SLF001 # the chain's end
    put(spare, [77])
    kernels.seal(buffer.pointer, Seal(version=5, size=6, checksum_at=spare.pointer, tag=7))
    one.synchronize()
    found["seal"] = words_of(buffer, 4) == [5, 6, 77, 7]
    found["sees faults"] = kernels.sees_faults(buffer, SEED)
    return found


def peer_copy() -> dict[str, Any]:
    """From GPU 0 to GPU 1: what the driver says, what arrived, how fast, and what NVLink counted (KiB)."""
    found: dict[str, Any] = {}
    found["refused"] = refusal(lambda: copied(found))
    return found


def copied(found: dict[str, Any]) -> None:
    one, other = contexts()[:2]
    near, far = Kernels(one), Kernels(other)
    source, target, spare = one.allocate(SIZE), other.allocate(SIZE), other.allocate(SIZE)
    found["oracle"] = far.sees_faults(spare, SEED)
    found["can"] = one.device.can_access(other.device)
    found["enabled"] = refusal(lambda: one.enable_peer(other))
    near.fill(source.pointer, SIZE, SEED)
    other.set_words(target.pointer, POISON, SIZE // 4)
    one.synchronize()
    other.synchronize()
    before = counters()
    one.copy_to_peer(target, source, SIZE)
    one.synchronize()
    found["counted"] = (
        None if before is None else [now - then for now, then in zip(counters() or (), before, strict=True)]
    )
    found["gb_per_s"] = round(one_way(one, other), 1)
    found["arrived"] = far.check(target.pointer, SIZE, SEED)
    found["sum"] = far.checksum(target.pointer, SIZE) == checksum_of([word(SEED, i) for i in range(WORDS)])
    if found["enabled"] is None:
        found["through the window"] = near.check(target.pointer, SIZE, SEED)
        near.fill(target.pointer, SIZE, SEED + 1)
        one.synchronize()
        found["stored"] = far.check(target.pointer, SIZE, SEED + 1)


def one_way(one: Context, other: Context) -> float:
    source, target = one.allocate(MUCH), other.allocate(MUCH)
    return MUCH / timed(one, lambda stream: one.copy_to_peer(target, source, MUCH, stream)) / 1e9


def not_stuck() -> list[bool]:
    """Whether a copy to a peer, and then one beside it to the host, is over: looked at once both are."""
    events = _side_by_side()
    for event in events:
        event.synchronize()
    return [event.is_over() for event in events]


def stuck() -> list[bool]:
    """Whether a copy to a peer, and then one beside it to the host, is over: looked at once the second is."""
    events = _side_by_side()
    events[1].synchronize()
    return [event.is_over() for event in events]


def _side_by_side() -> list[Event]:
    one, other = contexts()[:2]
    near, far, pin = one.allocate(SIZE), other.allocate(SIZE), one.pin(SIZE)
    streams = one.stream(), one.stream()
    one.copy_to_peer(far, near, SIZE, streams[0])
    one.copy_out(pin.pointer, near.pointer, SIZE, streams[1])
    return [one.event().record(stream) for stream in streams]


def counters() -> list[int] | None:
    """KiB that NVLink has sent and received: GPU 0's two, then GPU 1's; None if NVML does not tell."""
    pynvml.nvmlInit()
    asked = [(field, 2**32 - 1) for field in (138, 139)]
    handles = [pynvml.nvmlDeviceGetHandleByIndex(n) for n in range(2)]
    values = [value for handle in handles for value in pynvml.nvmlDeviceGetFieldValues(handle, asked)]
    return None if any(value.nvmlReturn for value in values) else [value.value.ullVal for value in values]


if __name__ == "__main__":
    perform(globals())
