"""What is to go wrong: `FAKE_VLLM`, words that may have a value (`token-ms=20`) and a count (`crash-on-sleep@2`)."""

from __future__ import annotations

import os
import sys
import threading
from typing import Final, NoReturn

VERSION: Final = "0.26.0"
KNOWN: Final = frozenset(
    """
    cannot-import die-at-start hang-at-start slow-start no-sleep-flag no-uds orphan-core ignores-sigterm
    no-dev-endpoints api-key slow-http hang-http not-vllm redirects huge-body garbage-http no-metrics no-tokenize
    no-version bad-json
    token-ms copy-ms
    blind garbage-after-level-1 garbage-after-level-2 drift-after-wake level-2-keeps-weights garbage-after-keep
    dead-after-sleep-200 dead-after-wake-200 wedge-after-failed-wake dead-after-failed-wake
    wakes-all-after-a-part
    serve-asleep refuse-asleep lose-parked drop-parked fail-parked lose-kept unaborted cut-aborted never-drains
    memory-not-freed memory-half-freed leak-each-cycle leak-host-each-cycle one-rank-asleep
    is-sleeping-lies health-503-asleep metrics-lie slow-first-token-after-wake
    """.split()  # noqa: SIM905 # words
)
OCCASIONS: Final = frozenset(
    """
    start sleep wake request-asleep sleep-in-flight sleep-again wake-awake bad-tag bad-level level-2 reload
    request-partly-awake
    """.split()  # noqa: SIM905 # words
)
WAYS: Final = ("crash-on-", "hang-on-", "fail-on-")


class Fail(Exception):  # it says what to do
    """The call is to be refused with this text, as an exception in the engine would be."""


class Plan:
    """The words, and how often each occasion has come in this process."""

    def __init__(self, words: str, version: str) -> None:
        """Read the words.

        Raises:
            ValueError: one is unknown: a test that plans nothing would pass for nothing.
        """
        self.version = version
        self._words: dict[str, str] = {}
        self._came: dict[str, int] = {}
        for word in words.split():
            name, _, value = word.partition("=")
            bare, _, count = name.partition("@")
            way = next((way for way in WAYS if bare.startswith(way)), None)
            if bare not in KNOWN and (way is None or bare.removeprefix(way) not in OCCASIONS):
                message = f"FAKE_VLLM: no such word: {word}"
                raise ValueError(message)
            self._words[bare] = count if way else value

    @classmethod
    def of_environment(cls) -> Plan:
        """What this process was started with."""
        return cls(os.environ.get("FAKE_VLLM", ""), os.environ.get("FAKE_VLLM_VERSION", VERSION))

    def has(self, word: str) -> bool:
        """Whether a word was said."""
        assert word in KNOWN, word
        return word in self._words

    def value(self, word: str, usual: float, *, unsaid: float | None = None) -> float:
        """The number behind a word: `usual` if it has none, `unsaid` (or `usual`) if it was not said."""
        if not self.has(word):
            return usual if unsaid is None else unsaid
        return float(self._words[word] or usual)

    def text(self, word: str) -> str | None:
        """The text behind a word, if it was said."""
        return self._words[word] if self.has(word) else None

    def comes(self, occasion: str) -> None:
        """Meet an occasion: perhaps die, hang for good or fail; `@N` means only the Nth time.

        Raises:
            Fail: the plan says so.
        """
        assert occasion in OCCASIONS, occasion
        self._came[occasion] = nth = self._came.get(occasion, 0) + 1
        for way in WAYS:
            count = self._words.get(way + occasion)
            if count is None or (count and int(count) != nth):
                continue
            say(f"ERROR {way}{occasion}: planned")
            if way == "crash-on-":
                crash()
            if way == "hang-on-":
                threading.Event().wait()
            message = "CUDA Error: invalid argument at /workspace/csrc/cumem_allocator.cpp:119"
            raise Fail(message)


def crash() -> NoReturn:
    """End as a process does that met an illegal access."""
    say("ERROR [core.py:1175] EngineCore encountered a fatal error.")
    say("ERROR torch.AcceleratorError: CUDA error: an illegal memory access was encountered")
    os._exit(1)


def say(line: str) -> None:
    """A line of the log."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
