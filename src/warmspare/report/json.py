"""The JSON report: the view and the judgement behind it, for programs."""

from __future__ import annotations

from typing import Final

import msgspec

from warmspare.model.verdicts import Judgement
from warmspare.report.view import View

FORMAT: Final = "warmspare-report"
VERSION: Final = 1


def render(view: View, judgement: Judgement) -> str:
    """The report as JSON: the same judgement gives the same bytes."""
    report = {"format": FORMAT, "version": VERSION, "report": view, "judgement": judgement}
    return msgspec.json.format(msgspec.json.encode(report), indent=1).decode() + "\n"
