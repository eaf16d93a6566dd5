"""A program that also asks NVML, and keeps it open, as vLLM's workers do."""

from __future__ import annotations

from typing import Final

import pynvml

from warmspare.model.facts import Cause
from warmspare.trials.api import NotTried
from warmspare.trials.workloads.api import Place, Workload
from warmspare.trials.workloads.plain import Plain

OTHERWISE: Final = "NVML counts {now} GPUs, and {before} before"


class WithNvml(Plain):
    """Memory of a GPU, and NVML initialised."""

    def __init__(self, place: Place) -> None:
        """Take both.

        Raises:
            NotTried: NVML does not start.
        """
        super().__init__(place)
        try:
            pynvml.nvmlInit()
            self._count = pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError as error:
            raise NotTried(Cause.SKIPPED, f"NVML does not start: {error}") from None

    def problem(self) -> str | None:
        """In memory, and in what NVML says."""
        try:
            now = pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError as error:
            return f"NVML no longer answers: {error}"
        return OTHERWISE.format(now=now, before=self._count) if now != self._count else super().problem()


WORKLOADS: Final = (Workload("nvml", WithNvml),)
