"""A machine for the little of PTX that kernels.ptx is written in: it runs the text itself, one thread after another.

The threads of a warp run from one exchange between them to the next.

Source: NVIDIA "Parallel Thread Execution ISA". What it does not know it refuses.
"""

from __future__ import annotations

import operator
import re
import struct
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Final

BASE: Final = 0x1000
"""The address of the first byte of memory; all below it is nobody's."""
WARP: Final = 32
MOST_STEPS: Final = 100_000
Number = int | float
_BITS: Final = {"u64": 64, "b64": 64, "u32": 32}
_COMPARED: Final[dict[str, Callable[[Number, Number], bool]]] = {
    "eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "ge": operator.ge,
}  # fmt: skip
_WORKED_OUT: Final[dict[str, Callable[..., Number]]] = {
    "mov": lambda a: a,
    "cvt.u64": lambda a: a,
    "cvt.rn.f32": float,
    "add": operator.add,
    "sub": operator.sub,
    "mul.lo": operator.mul,
    "mul.wide": operator.mul,
    "mad.lo": lambda a, b, c: a * b + c,
    "fma.rn": lambda a, b, c: a * b + c,
    "shr": operator.rshift,
    "xor": operator.xor,
    "min": min,
}
_PART: Final = re.compile(r"\s*(?:(\w+):)?\s*(?:@(!?)(%\w+)\s+)?([\w.]*)\s*(.*)", re.DOTALL)
_ADDRESS: Final = re.compile(r"\[(%?\w+)(?: \+ (\d+))?\]")


class Memory:
    """Bytes from BASE on."""

    def __init__(self, words: Sequence[int]) -> None:
        """Begin with these 64-bit words."""
        self.data = bytearray(struct.pack(f"<{len(words)}Q", *words))

    @property
    def words(self) -> list[int]:
        """All of it, as 64-bit words."""
        return list(struct.unpack(f"<{len(self.data) // 8}Q", self.data))

    def load(self, kind: str, address: int) -> Number:
        """What lies at an address, as this type."""
        value: Number = struct.unpack_from(_format(kind), self.data, self._offset(kind, address))[0]
        return value

    def store(self, kind: str, address: int, value: Number) -> None:
        """Put a value of this type at an address."""
        struct.pack_into(_format(kind), self.data, self._offset(kind, address), value)

    def _offset(self, kind: str, address: int) -> int:
        if address < BASE or address % struct.calcsize(_format(kind)):
            raise IndexError(hex(address))
        return address - BASE


def _format(kind: str) -> str:
    return {"f32": "<f", "u32": "<I"}.get(kind, "<Q")


def kept(kind: str, value: Number) -> Number:
    """A value as a register of this type has it."""
    if kind == "f32":
        (rounded,) = struct.unpack("<f", struct.pack("<f", value))
        return float(rounded)
    return int(value) & (1 << _BITS[kind]) - 1


def _parts(statement: str) -> tuple[str, str, str, str, str]:
    """A statement's label, whether its guard is negated, the guard, the operation and the operands."""
    found = _PART.fullmatch(statement)
    if not found:
        raise SyntaxError(statement)
    label, negated, guard, operation, operands = (part or "" for part in found.groups())
    return label, negated, guard, operation, operands


class Kernel:
    """One entry of a PTX text."""

    def __init__(self, text: str, name: str) -> None:
        """Take it apart."""
        code = re.sub(r"//.*", "", text)
        found = re.search(rf"\.entry {name}\((.*?)\)\s*\{{(.*?)\n\}}", code, re.DOTALL)
        if not found:
            raise LookupError(name)
        self.takes = re.findall(r"\.param \.(\w+) (\w+)", found[1])
        self.labels: dict[str, int] = {}
        self.parts: list[tuple[str, str, str, list[str]]] = []
        for one in found[2].split(";"):
            label, negated, guard, operation, operands = _parts(one)
            if label:
                self.labels[label] = len(self.parts)
            if operation and not operation.startswith(".reg"):
                self.parts.append((negated, guard, operation, [o.strip() for o in operands.split(",")]))

    def run(self, memory: Memory, *arguments: Number, blocks: int = 1, threads: int = 1) -> None:
        """Run every thread of the grid; the last first, since no order is promised."""
        given = {name: kept(kind, value) for (kind, name), value in zip(self.takes, arguments, strict=True)}
        for block in reversed(range(blocks)):
            for first in reversed(range(0, threads, WARP)):
                warp = []
                for thread in range(first, min(first + WARP, threads)):
                    here = {"%ctaid.x": block, "%nctaid.x": blocks, "%ntid.x": threads, "%tid.x": thread}
                    warp.append(Thread(self, memory, {**given, **here, "%laneid": thread - first}))
                _run(warp)


def _run(warp: list[Thread]) -> None:
    """Run the threads of a warp, the last first, from one exchange between them to the next; to the end."""
    running = {lane: thread.run() for lane, thread in enumerate(warp)}
    answers: dict[int, int | None] = dict.fromkeys(running)
    while running:
        told: dict[int, tuple[int, int]] = {}
        for lane in reversed(list(running)):
            try:
                told[lane] = running[lane].send(answers[lane])
            except StopIteration:
                del running[lane]
        if told and len(told) != WARP:
            message = "an exchange that not all threads of a warp take part in has no result"
            raise ValueError(message)
        answers = {lane: told[lane + by][0] if lane + by < WARP else value for lane, (value, by) in told.items()}


class Thread:
    """One thread: its registers, and where it is."""

    def __init__(self, kernel: Kernel, memory: Memory, registers: Mapping[str, Number]) -> None:
        """Begin at the kernel's first instruction; the GPU's clock has long been running, in nanoseconds."""
        self.kernel, self.memory, self.at = kernel, memory, 0
        self.registers = {**registers, "%globaltimer": 10**18}

    def run(self) -> Generator[tuple[int, int], int | None, None]:
        """Run to the end; TimeoutError if there is none. Yields what is told to the thread so many lanes before."""
        for _ in range(MOST_STEPS):
            negated, guard, operation, operands = self.kernel.parts[self.at]
            self.at += 1
            self.registers["%globaltimer"] += 10
            if guard and bool(self.registers[guard]) == bool(negated):
                continue
            if operation == "ret":
                return
            if operation == "shfl.sync.down.b32":
                self.registers[operands[0]] = (yield int(self.value(operands[1])), int(operands[2])) or 0
            else:
                self.step(operation, operands)
        raise TimeoutError

    def value(self, operand: str) -> Number:
        """A register, or a number as it stands."""
        return self.registers[operand] if operand.startswith("%") else int(operand, 0)

    def address(self, operand: str) -> int:
        """What `[%base + n]` means."""
        found = _ADDRESS.fullmatch(operand)
        if not found:
            raise ValueError(operand)
        return int(self.registers[found[1]]) + int(found[2] or 0)

    def step(self, operation: str, operands: list[str]) -> None:
        """Carry out one instruction."""
        head, _, kind = operation.rpartition(".")
        first = operands[0]
        match head.removesuffix(".global").replace(".volatile", "").split("."):
            case ["ld", "param"]:
                self.registers[first] = self.registers[operands[1].strip("[]")]
            case ["ld"]:
                self.registers[first] = self.memory.load(kind, self.address(operands[1]))
            case ["st"]:
                self.memory.store(kind, self.address(first), self.value(operands[1]))
            case ["red", "global", ("add" | "min") as how]:
                old = self.memory.load(kind, self.address(first))
                self.memory.store(kind, self.address(first), kept(kind, _WORKED_OUT[how](old, self.value(operands[1]))))
            case ["setp", how]:
                self.registers[first] = _COMPARED[how](self.value(operands[1]), self.value(operands[2]))
            case [""] if kind == "bra":
                self.at = self.kernel.labels[first]
            case ["membar"]:
                pass
            case ["mov"] if first.startswith("{"):
                halves, whole = (first.strip("{"), operands[1].strip("}")), int(self.value(operands[2]))
                self.registers |= {halves[0]: kept("u32", whole), halves[1]: whole >> 32}
            case ["mov"] if operands[1].startswith("{"):
                low, high = self.value(operands[1].strip("{")), self.value(operands[2].strip("}"))
                self.registers[first] = int(low) | int(high) << 32
            case _:
                wide = {"mul.wide": "u64", "cvt.u64": "u64", "cvt.rn.f32": "f32"}.get(head, kind)
                self.registers[first] = kept(wide, _WORKED_OUT[head](*map(self.value, operands[1:])))
