"""What an engine's log tells: how far its start has come, and the line that says why it ended.

Source: vllm 0.26.0, v1/worker/gpu_model_runner.py, v1/worker/gpu_worker.py, compilation/backends.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

NEAR: Final = 256 * 1024
"""How much of the end of a log is looked at."""
SHOWN: Final = 300
WORDS: Final = (
    (b"Starting to load model", "loading weights"),
    (b"Dynamo bytecode transform", "compiling"),
    (b"Compiling a graph", "compiling"),
    (b"Available KV cache memory", "taking memory"),
    (b"Capturing CUDA graph", "capturing graphs"),
    (b"Graph capturing finished", "warming up"),
)
_RAISED: Final = re.compile(r"((?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*(?:Error|Exception)\b: ?.+|\berror: .+)")
_FOLLOWS: Final = re.compile(
    r"See root cause above|initialization failed|Engine core proc|EngineDeadError|BrokenPipe|CancelledError"
)
"""What a process raises because another one failed."""
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class Log:
    """A file that a server writes its log to."""

    def __init__(self, path: Path) -> None:
        """Take its path; it need not be there yet."""
        self.path = path
        self._seen, self._rest = 0, b""
        self._word = ""

    def news(self) -> Iterator[str]:
        """A short word for each step of the start that came since this was last asked."""
        data = self._rest + self._read(self._seen)
        self._seen += len(data) - len(self._rest)
        *lines, self._rest = re.split(rb"[\r\n]", data)
        self._rest = self._rest[-NEAR:]
        for line in lines:
            word = next((word for text, word in WORDS if text in line), self._word)
            if word != self._word:
                self._word = word
                yield word

    def tail(self, lines: int) -> str:
        """Its last lines."""
        return "\n".join(self._end()[-lines:]) if lines > 0 else ""

    def last(self) -> str:
        """Its last line that says something."""
        return next((line.strip()[:SHOWN] for line in reversed(self._end()) if line.strip()), "its log says nothing")

    def telling(self) -> str | None:
        """The last error that is not the consequence of another; else the last; None: no line looks like one."""
        found = [raised[1].strip()[:SHOWN] for line in self._end() if (raised := _RAISED.search(line))]
        causes = [line for line in found if not _FOLLOWS.search(line)]
        return (causes or found or [None])[-1]

    def _end(self) -> list[str]:
        text = self._read(-NEAR).decode("utf-8", "replace")
        return _COLOUR.sub("", text).replace("\r", "\n").splitlines()

    def _read(self, start: int) -> bytes:
        """From an offset on; a negative one counts from the end."""
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, 2)
                file.seek(max(0, size + start) if start < 0 else start)
                return file.read(NEAR)
        except FileNotFoundError:
            return b""
