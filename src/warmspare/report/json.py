"""The JSON report: the view and the judgement behind it, for programs."""

from __future__ import annotations

import json
import re
from typing import Final

import msgspec

from warmspare.model.verdicts import Judgement
from warmspare.report.view import View

FORMAT: Final = "warmspare-report"
VERSION: Final = 1
_DOUBTFUL: Final = re.compile(r"[^\n\x20-\x7e]")


def render(view: View, judgement: Judgement) -> str:
    """The report as JSON: the same judgement gives the same bytes."""
    report = {"format": FORMAT, "version": VERSION, "report": view, "judgement": judgement}
    return plain(msgspec.json.format(msgspec.json.encode(report), indent=1).decode() + "\n")


def plain(text: str) -> str:
    """The same JSON with every character that could steer a terminal or hide text written as an escape."""
    return _DOUBTFUL.sub(lambda c: c[0] if c[0].isprintable() else json.dumps(c[0])[1:-1], text)
