"""The kernels of kernels.ptx on one GPU: patterns and their checks, sums, waits, and what they should give."""

from __future__ import annotations

import ctypes
import re
from importlib import resources
from typing import Final, NamedTuple

from warmspare.control.cuda import Buffer, Context, Shape, Stream

GOLDEN: Final = 0x9E3779B97F4A7C15
WORD_BYTES: Final = 8
MANY: Final = Shape(blocks=2048, threads=256)
ONE: Final = Shape(blocks=1, threads=1)
ALL: Final = 2**64 - 1
POISON: Final = 0xDEADBEEF
"""What is in the memory before a copy; no pattern of ours is made of it."""

_MIX: Final = """shr.u64 %mixed, {x}, 30; xor.b64 {x}, {x}, %mixed; mul.lo.u64 {x}, {x}, 0xbf58476d1ce4e5b9;
    shr.u64 %mixed, {x}, 27; xor.b64 {x}, {x}, %mixed; mul.lo.u64 {x}, {x}, 0x94d049bb133111eb;
    shr.u64 %mixed, {x}, 31; xor.b64 {x}, {x}, %mixed;"""
_WORD: Final = "add.u64 {w}, {i}, 1; mad.lo.u64 {w}, {w}, 0x9e3779b97f4a7c15, {seed};\n    "
_HALVE: Final = """mov.b64 {{%low, %high}}, {s};
    shfl.sync.down.b32 %low, %low, {by}, 31, 0xffffffff; shfl.sync.down.b32 %high, %high, {by}, 31, 0xffffffff;
    mov.b64 %part, {{%low, %high}};
    add.u64 {s}, {s}, %part;"""
_EACH: Final = """.reg .u64 %i, %count, %stride, %byte, %mixed;
    .reg .u32 %block, %threads, %thread;
    .reg .pred %over;
    ld.param.u64 %count, [count_];
    mov.u32 %block, %ctaid.x; mov.u32 %threads, %ntid.x; mov.u32 %thread, %tid.x;
    mul.wide.u32 %i, %block, %threads;
    cvt.u64.u32 %byte, %thread;
    add.u64 %i, %i, %byte;
    mov.u32 %block, %nctaid.x;
    mul.wide.u32 %stride, %block, %threads;
EACH:
    setp.ge.u64 %over, %i, %count;
    @%over bra OVER;"""
_NEXT: Final = "add.u64 %i, %i, %stride;\n    bra EACH;\nOVER:"
_AT: Final = re.compile(r"^( *)(.*)\[(%\w+) \+ (at|half)!\](.*)$", re.MULTILINE)


class Mismatch(NamedTuple):
    """How many words differ from the pattern, and the index of the first; (0, None) where all are right."""

    wrong: int
    first: int | None


def ptx() -> str:
    """The text of kernels.ptx with its lines that end in `!` filled in."""
    text = resources.files("warmspare.control").joinpath("kernels.ptx").read_text(encoding="ascii")
    head, mark, body = text.partition(".version")
    body = _AT.sub(_addressed, body)
    body = re.sub(r"word (%\w+) (%\w+) (%\w+)!", lambda m: (_WORD + _MIX.replace("{x}", "{w}")).format(
        w=m[1], seed=m[2], i=m[3]), body)  # fmt: skip
    body = re.sub(r"warpsum (%\w+)!", lambda m: _warpsum(m[1]), body)
    return f"{head}{mark}{body.replace('each!', _EACH).replace('next!', _NEXT)}"


def _warpsum(name: str) -> str:
    halves = "\n    ".join(_HALVE.format(s=name, by=by) for by in (16, 8, 4, 2, 1))
    return f".reg .u32 %low, %high;\n    .reg .u64 %part;\n    {halves}"


def _addressed(found: re.Match[str]) -> str:
    """An access to element i: PTX has no scaled index, so its address is worked out on the line before."""
    indent, before, base, size, after = found.groups()
    width = {"at": WORD_BYTES, "half": WORD_BYTES // 2}[size]
    return f"{indent}mad.lo.u64 %byte, %i, {width}, {base};\n{indent}{before}[%byte]{after}"


def mix(x: int) -> int:
    """The bijection of 64 bits that patterns are made with."""
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & ALL
    x = (x ^ x >> 27) * 0x94D049BB133111EB & ALL
    return x ^ x >> 31


def word(seed: int, index: int) -> int:
    """The word of a pattern at an index, as `fill` writes it: no two are the same."""
    return mix(seed + (index + 1) * GOLDEN & ALL)


def checksum_of(words: list[int]) -> int:
    """What `checksum` gives for these words."""
    return sum(word(found, index) for index, found in enumerate(words)) & ALL


class Expected(NamedTuple):
    """What a float should be: `times` the pattern's number, plus `plus`."""

    times: int
    plus: int


class Seal(NamedTuple):
    """The words of a seal; the checksum is read on the GPU, at the pointer `checksum_at`."""

    version: int
    size: int
    checksum_at: int
    tag: int


class Kernels:
    """The kernels, compiled by the driver for one GPU. What they write is there once their stream is done."""

    def __init__(self, context: Context) -> None:
        """Compile them and take 16 bytes for results.

        Raises:
            CudaError: the driver refuses.
        """
        self.context = context
        self._module = context.module(ptx())
        self._functions: dict[str, ctypes.c_void_p] = {}
        self._result = context.allocate(2 * WORD_BYTES)

    def fill(self, pointer: int, size: int, seed: int, stream: Stream | None = None) -> None:
        """Write a pattern over `size` bytes: into our own memory, or by our stores into a peer's."""
        self._launch("fill", stream, _word(pointer), _word(size // WORD_BYTES), _word(seed))

    def check(self, pointer: int, size: int, seed: int, stream: Stream | None = None) -> Mismatch:
        """Compare `size` bytes with a pattern, on this GPU; waits for the result."""
        self._clear(stream)
        self._launch("check", stream, _word(pointer), _word(size // WORD_BYTES), _word(seed), self._where())
        return self._mismatch(stream)

    def checksum(self, pointer: int, size: int, stream: Stream | None = None) -> int:
        """The sum of `size` bytes, worked out on this GPU; waits for the result."""
        self.start_checksum(pointer, size, self._result.pointer, stream)
        return self._results(stream)[0]

    def start_checksum(self, pointer: int, size: int, result: int, stream: Stream | None = None) -> None:
        """Have the sum written to the word at `result`, in stream order; returns at once."""
        self.context.set_words(result, 0, 2, stream)
        self._launch("checksum", stream, _word(pointer), _word(size // WORD_BYTES), _word(result))

    def add(self, pointer: int, size: int, by: int, stream: Stream | None = None) -> None:
        """Add `by` to every word of `size` bytes."""
        self._launch("add", stream, _word(pointer), _word(size // WORD_BYTES), _word(by))

    def fill_floats(self, pointer: int, count: int, seed: int, plus: int, stream: Stream | None = None) -> None:
        """Write `count` 32-bit floats: whole numbers below 65536 by the pattern, plus `plus`."""
        self._launch("fill_floats", stream, _word(pointer), _word(count), _word(seed), ctypes.c_float(plus))

    def check_floats(
        self, pointer: int, count: int, seed: int, expected: Expected, stream: Stream | None = None
    ) -> Mismatch:
        """Compare `count` floats with what is expected of each, exactly; waits for the result."""
        self._clear(stream)
        numbers = (ctypes.c_float(expected.times), ctypes.c_float(expected.plus))
        self._launch("check_floats", stream, _word(pointer), _word(count), _word(seed), *numbers, self._where())
        return self._mismatch(stream)

    def chase(self, pointer: int, steps: int, stream: Stream | None = None) -> None:
        """Follow `steps` pointers, one load after the other."""
        self._launch("chase", stream, _word(pointer), _word(steps), self._where(), shape=ONE)

    def hold(self, flag: int, wanted: int, patience_s: float, stream: Stream | None = None) -> None:
        """Hold the stream until the word at `flag` is `wanted`, never longer than `patience_s`."""
        patience = _word(int(patience_s * 1e9))
        self._launch("hold", stream, _word(flag), _word(wanted), patience, self._where(), shape=ONE)

    def held(self, stream: Stream | None = None) -> bool:
        """Whether the last `hold` saw what it waited for; waits for it."""
        return self._results(stream)[0] == 1

    def seal(self, pointer: int, seal: Seal, stream: Stream | None = None) -> None:
        """Write a seal of four words (version, size, checksum, tag) in stream order, the version last."""
        words = (_word(seal.size), _word(seal.checksum_at), _word(seal.tag), _word(seal.version))
        self._launch("seal", stream, _word(pointer), *words, shape=ONE)

    def sees_faults(self, buffer: Buffer, seed: int) -> bool:
        """Whether `check` finds a whole pattern right and one wrong bit in it: an oracle that cannot fail is none.

        Leaves the pattern with that wrong bit in the buffer.
        """
        self.fill(buffer.pointer, buffer.size, seed)
        whole = self.check(buffer.pointer, buffer.size, seed)
        index = seed % (buffer.size // WORD_BYTES)
        wrong = word(seed, index) ^ 1 << mix(seed) % 64
        buffer.write(wrong.to_bytes(WORD_BYTES, "little"), index * WORD_BYTES)
        return (whole, self.check(buffer.pointer, buffer.size, seed)) == (Mismatch(0, None), Mismatch(1, index))

    def close(self) -> None:
        """Give them and their result up; nothing of theirs may still be at work."""
        self._result.free()
        self.context.unload(self._module)

    def _where(self) -> ctypes.c_uint64:
        return _word(self._result.pointer)

    def _clear(self, stream: Stream | None) -> None:
        self.context.set_words(self._result.pointer, 0, 2, stream)
        self.context.set_words(self._result.pointer + WORD_BYTES, 0xFFFFFFFF, 2, stream)

    def _results(self, stream: Stream | None) -> tuple[int, int]:
        (stream or self.context).synchronize()
        data = self._result.read(2 * WORD_BYTES)
        return int.from_bytes(data[:WORD_BYTES], "little"), int.from_bytes(data[WORD_BYTES:], "little")

    def _mismatch(self, stream: Stream | None) -> Mismatch:
        count, first = self._results(stream)
        return Mismatch(count, first if count else None)

    def _launch(
        self, name: str, stream: Stream | None, *arguments: ctypes.c_uint64 | ctypes.c_float, shape: Shape = MANY
    ) -> None:
        if name not in self._functions:
            self._functions[name] = self.context.function(self._module, name)
        self.context.launch(self._functions[name], shape, arguments, stream)


def _word(value: int) -> ctypes.c_uint64:
    return ctypes.c_uint64(value)
