"""Whether the oracle can see: an answer compared before and after must change when the engine's weights do."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from warmspare.model.facts import Proof


class SleepOracle(Proof, frozen=True, kw_only=True):
    """The controls of the answers that cycles are judged by. `sees` is False for an oracle that is blind.

    `faults`: planted ones, in an engine of ours with a model made on the spot. Level 2 without a reload, and weights
    reloaded with one layer perturbed, must each change the answer; the originals must bring it back. `sensitivity`: in
    the user's own engine nothing is planted; one early token of the prompt is changed, and the log-probability of some
    token must move by `sensitivity`, well beyond the tolerance. `wrong` where the originals do not come back.
    """

    control: Literal["faults", "sensitivity"] | None = None
    sees_level_2_without_reload: bool | None = None
    sees_a_perturbed_layer: bool | None = None
    originals_come_back: bool | None = None
    sensitivity: Annotated[float, msgspec.Meta(ge=0)] | None = None
    sees: bool | None = None
