"""What was restored from an image and could not be resumed: ended where that is safe, else left and named."""

from __future__ import annotations

from warmspare.control.target import Target, is_same
from warmspare.runtime import cards as gpus
from warmspare.runtime import frozen
from warmspare.runtime.aftermath import judged
from warmspare.runtime.cards import Card
from warmspare.runtime.outcomes import NotActed, called
from warmspare.runtime.unit import Tools, Unit


def given_up(unit: Unit, targets: tuple[Target, ...], why: str, tools: Tools) -> NotActed:
    """End what was restored and could not be resumed, if it holds no GPU memory; the image is as good as before.

    A process that holds some is left alive and named: ending one has hung a host (NVIDIA/cuda-checkpoint#53).
    """
    unit.turn_back()
    holding = _holding(unit, tools.cards())
    if not holding:
        left = frozen.end(targets)
        if not left:
            return NotActed(f"not restored: {why}; what was restored has been ended, and the image is whole", "failed")
        return NotActed(f"not restored: {why}; {called(left[0])} does not end: kill -9 it", "stranded")
    _, sentence = judged(unit, dict.fromkeys(unit.pids, "running"))
    running = f"{called(holding[0])} holds GPU memory and was left alone"
    return NotActed(f"not restored: {why}; {sentence or running}; the image is whole", "stranded")


def _holding(unit: Unit, shown: tuple[Card, ...]) -> list[Target]:
    """Those that NVML lists with GPU memory; where it does not tell, those that are not checkpointed."""
    held = gpus.vram(shown, unit.pids)
    levers = unit.tools.levers
    there = [one for one in unit.members if is_same(one)]
    if held is not None:
        return [one for one in there if held.get(one.pid)]
    return [one for one in there if levers.state_or_none(one.pid) != "checkpointed"]
