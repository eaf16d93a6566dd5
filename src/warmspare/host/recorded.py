"""A host replayed from a transcript: every host ever seen is a test fixture."""

from __future__ import annotations

from collections.abc import Sequence

from warmspare.host.port import Host
from warmspare.model.facts import Cause
from warmspare.model.transcript import Answer, Call, Failed, Verb


class RecordedHost(Host):
    """Answers from a transcript; what was never asked there is unasked."""

    def __init__(self, transcript: Sequence[Call]) -> None:
        """Replay `transcript`; of two equal questions the first counts."""
        super().__init__()
        self._places = {(c.verb, c.args): place for place, c in reversed(list(enumerate(transcript)))}
        self._transcript = transcript

    def ask(self, verb: Verb, args: tuple[str, ...]) -> tuple[int, Answer]:
        """The recorded answer."""
        place = self._places.get((verb, args), -1)
        if place < 0:
            what = " ".join((verb, *args))
            return -1, Failed(cause=Cause.UNASKED, detail=f"not in this recording: {what}")
        return place, self._transcript[place].answer
