"""Tokens compared where they may differ without a fault: when the engine has reckoned a part of them anew."""

from __future__ import annotations

from typing import Final

from warmspare.trials.sleeping.bench import ANSWER_S, Bench

SPOTS: Final = 16
AGREED: Final = 12
"""Of so many tokens, so many must be what the engine says awake. Where two are nearly as likely, rounding decides, and
it differs between an answer reckoned token by token and one whose beginning was reckoned at once."""


def is_right_as_far(bench: Bench, got: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    """Whether these are the first tokens of the whole answer, or what the engine awake would say at each spot.

    From the first that differs on, the engine is asked what follows what came before it, one token at a time: after a
    fault in what it keeps of the request, hardly any of them agrees.
    """
    differs = next((place for place, pair in enumerate(zip(got, whole, strict=False)) if pair[0] != pair[1]), None)
    if differs is None:
        return len(got) <= len(whole)
    first = max(0, min(differs, len(got) - SPOTS))
    spots = range(first, min(first + SPOTS, len(got)))
    agreed = sum(bench.fresh(bench.prompt + got[:spot], 1, ANSWER_S).tokens == got[spot : spot + 1] for spot in spots)
    return agreed * SPOTS >= AGREED * len(spots)
