"""An engine of the user's that a trial puts to sleep is woken again, whatever happens to the trial.

Before the first sleep its address is written into the trial's folder, and a process of its own waits on a pipe of the
trial's. The trial wakes the engine itself; if it dies, that process does; and whoever clears the trial away, its keeper
or a later run, does so for as long as the address is still written there.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import warmspare
from warmspare.control.vllm import Engine, EngineFailed
from warmspare.trials.api import StepEvent

KEY: Final = "VLLM_API_KEY"
"""Where vLLM itself takes the key from that it asks for."""
FILE: Final = "wake-this-engine"
LIMIT_S: Final = 8.0
"""How long a later run that clears away waits for the engine to say that it is awake; it looks again the next time."""
WAKE_S: Final = 120.0
"""And how long the run does that it was put to sleep in: first for the order to sleep, if that is still on its way."""
WAKING: Final = StepEvent(name=f"wake the engine again: this may take {WAKE_S:g} s", lever=False)
"""Told before that, as it may be long."""
WATCH_S: Final = 150.0
"""And one for whom nobody waits: an order to sleep may be that long on its way."""
WORD_S: Final = 2.0
CALM_S: Final = 0.3
"""An order to sleep that is on its way is obeyed within that time."""
GONE: Final = ("ECONNREFUSED", "ENOENT")
"""Nobody listens there, or its socket is gone."""
STILL: Final = "it was told to wake and says that it is asleep"
BY_HAND: Final = "POST /wake_up wakes it, and so does the next run that can"
WELL: Final = b"."
_START: Final = (
    "import sys; held, url, root = sys.argv[1:]; sys.path.append(root);"
    " from warmspare.trials import awaken; awaken.watch(int(held), url)"
)


def engine_at(url: str) -> Engine:
    """The user's engine, with the key that the environment has for it.

    Raises:
        BadUrl: no engine can be there.
    """
    return Engine.at(url, os.environ.get(KEY))


@contextlib.contextmanager
def kept_awake(folder: Path, url: str) -> Iterator[None]:
    """Whatever is done to the engine at `url`, see to it that it is awake afterwards.

    Raises:
        EngineFailed: it does not wake. Its address stays written.
    """
    record = folder / FILE
    record.write_text(url, encoding="utf-8")
    held, lifeline = os.pipe()
    root = str(Path(warmspare.__file__).parent.parent)
    watcher = subprocess.Popen(
        [sys.executable, "-P", "-c", _START, str(held), url, root],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(held,),
        start_new_session=True,
    )
    os.close(held)
    try:
        yield
    finally:
        try:
            waken(url, WAKE_S)
            record.unlink()
            os.write(lifeline, WELL)
        finally:
            os.close(lifeline)
            watcher.wait()


def watch(held: int, url: str) -> None:
    """Wait for the end of the trial; without a word that all is well, wake the engine."""
    if os.read(held, 1) != WELL:
        waken(url, WATCH_S)


def settle(folders: Iterable[Path], within_s: float = LIMIT_S) -> list[str]:
    """Wake what trials with these folders may have left asleep. Returns those that do not say that they are awake."""
    left = []
    for folder in folders:
        with contextlib.suppress(OSError):
            url = (folder / FILE).read_text(encoding="utf-8")
            try:
                waken(url, within_s)
                (folder / FILE).unlink()
            except EngineFailed as failed:
                left.append(f"the engine at {url}, which may be asleep ({failed}): {BY_HAND}")
    return left


def owed(folder: Path) -> bool:
    """Whether an engine is still written there that may be asleep."""
    return (folder / FILE).exists()


def waken(url: str, within_s: float = LIMIT_S) -> None:
    """Wake an engine, and have it say, twice, that it is awake. One that is gone does not sleep.

    What it says is not enough, as it may be one replica's word: it is told to wake each time, which does nothing to one
    that is awake. Nor is one wake, as an order to sleep may be on its way.

    Raises:
        EngineFailed: it does not, in this time.
    """
    engine, deadline, calm = engine_at(url), time.monotonic() + within_s, False
    while True:
        try:
            engine.wake(within_s=max(WORD_S, deadline - time.monotonic()))
            if engine.is_sleeping(min(WORD_S, within_s)):
                calm = False
                _not_late(deadline)
            elif calm:
                return
            else:
                calm = True
        except EngineFailed as failed:
            if failed.code in GONE:
                return
            if time.monotonic() > deadline:
                raise
        time.sleep(CALM_S)


def _not_late(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise EngineFailed(STILL, "GET /is_sleeping", how="wrong")
