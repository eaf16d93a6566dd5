"""What every lever raises when the thing under test says no."""

from __future__ import annotations

from typing import Literal


class LeverRefused(Exception):
    """A call refused. `code` is what it refused with, raw and by name; the message is one line with the call.

    Inside a trial's lever this is an outcome, `refused` with that code; before the first, the instrument's failure.
    `how` is more than that for one which is called aside: it may also hang, die, or only say that it was done.
    """

    how: Literal["refused", "hung", "died", "wrong"] = "refused"

    def __init__(self, code: str, detail: str) -> None:
        """Carry the code, such as `217 CUDA_ERROR_PEER_ACCESS_UNSUPPORTED`, and where it came from."""
        super().__init__(f"{detail}: {code}" if detail else code)
        self.code, self.detail = code, detail
