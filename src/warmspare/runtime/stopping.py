"""Being asked to stop in the middle of an act: noted, and heeded before the next call to the driver.

A call that is under way is let end: breaking off the caller would leave the process in the middle of a copy.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Final

from warmspare.control.process import STOPPING
from warmspare.runtime.outcomes import NotActed

SAID: Final = "stopping once the driver has answered"


class AskedToStop(Exception):
    """A signal asked us to stop; nothing further is begun."""


class Stop:
    """Whether we were asked to stop, and by which signal."""

    def __init__(self) -> None:
        """Nobody has asked yet."""
        self.number: int | None = None

    def check(self) -> None:
        """Go no further if we were asked to stop.

        Raises:
            AskedToStop: we were.
        """
        if self.number is not None:
            raise AskedToStop(signal.Signals(self.number).name)


@contextlib.contextmanager
def stoppable(say: Callable[[str], None]) -> Iterator[Stop]:
    """Note the signals that ask us to stop, and pass the first of them on when everything is in order again.

    Only the main thread may; signals that are ignored stay so. Where a process came to harm, that is told instead.
    """
    stop = Stop()

    def note(number: int, _frame: object) -> None:
        if stop.number is None:
            stop.number = number
            say(SAID)

    before = {one: signal.getsignal(one) for one in STOPPING}
    heeded = [one for one, handler in before.items() if handler is not signal.SIG_IGN]
    for one in heeded:
        signal.signal(one, note)
    try:
        yield stop
    except NotActed as failure:
        if failure.is_harm:  # that is what must be heard
            stop.number = None
        raise
    finally:
        for one in heeded:
            signal.signal(one, before[one])
        if stop.number is not None:
            signal.raise_signal(stop.number)
