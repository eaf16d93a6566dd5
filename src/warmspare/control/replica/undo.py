"""What was taken, given back in the opposite order."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from types import TracebackType

from warmspare.control.cuda_driver import CudaError


class Undo(contextlib.ExitStack):
    """An exit stack in which what is freed on the way out of an error does not hide that error."""

    def freeing(self, free: Callable[[], None]) -> None:
        """Call `free` at the end. A CudaError of it is raised only where nothing else went wrong before.

        After one call has failed a driver may refuse all that follow, and the first says why.
        """

        def leave(_: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> bool:
            try:
                free()
            except CudaError:
                if error is None:
                    raise
            return False

        self.push(leave)
