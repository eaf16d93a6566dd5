"""What the trial of Sleep Mode shows beside its verdict: level 2, requests in flight, odd orders, states, room."""

from __future__ import annotations

from typing import Final

from warmspare.model.findings import Finding, met, unmet
from warmspare.tracks.shared import broken
from warmspare.trials.sleeping.cycles import SleepCycles
from warmspare.trials.sleeping.honesty import SleepHonesty
from warmspare.trials.sleeping.in_flight import RequestInFlight, Way
from warmspare.trials.sleeping.no_room import WakeWithoutRoom
from warmspare.trials.sleeping.repeated import SleepRepeated
from warmspare.trials.sleeping.room import SleepRoom
from warmspare.trials.sleeping.start import EngineStart
from warmspare.trials.sleeping.stopped import EngineStop
from warmspare.trials.sleeping.turns import EnginesTakeTurns

OK: Final = 200
LOOK: Final = "see-known-issues"
STARTED = "vLLM {vllm} with {model}: first token {cold} after its start, {awake} MiB of VRAM awake"
FOUND = "vLLM {vllm} with {model} was there already, {awake} MiB of VRAM awake"


def engine_starts(start: EngineStart) -> Finding:
    """A cold start is what sleeping saves: weights are read, kernels compiled and graphs captured all over again.

    Source: measured through the first token of the answer to a first request.
    """
    if failed := broken(start):
        return failed
    values = {"vllm": start.vllm, "model": start.model, "awake": start.mib_awake}
    if start.found:
        return met(FOUND, **values)
    return met(STARTED, cold=_s(start.cold_start_s), **values)


GIVEN_BACK = "after its end all its VRAM is free again{when}"


def engine_gives_its_memory_back(stop: EngineStop) -> Finding:
    """What an engine held of the GPU must be free when it has ended, or the next one does not start.

    Source: NVML, before the start and after the end.
    """
    when = "" if stop.back_s is None else f", {_s(stop.back_s)} from the order to stop"
    return broken(stop) or met(GIVEN_BACK, when=when)


WARM = "first token after waking in {woken}, of a warm engine in {warm}, of a cold start in {cold}"


def graphs_survive_sleep(cycles: SleepCycles, start: EngineStart) -> Finding:
    """Compiled kernels and captured graphs stay while an engine sleeps, so that the first token after it comes fast.

    Source: measured: time to the first token after a wake, of a warm engine, and of a cold start.
    """
    if failed := broken(start) or broken(cycles):
        return failed
    woken, warm = cycles.first_token_after_wake_s, cycles.first_token_warm_s
    return met(WARM, woken=_s(woken), warm=_s(warm), cold=_s(start.cold_start_s))


FLAT = "asleep it keeps {residue_mib} MiB, and {growth_mib} MiB more after {cycles} cycles"
GROWS = "asleep it keeps {growth_mib} MiB more after {cycles} cycles: it grows with each"
GROWTH_MIB: Final = 64
"""Beyond this it is no rounding of allocators, over a quick form's four cycles or a full one's twenty."""


def sleep_leaves_no_growth(cycles: SleepCycles) -> Finding:
    """What a sleeping engine keeps of the GPU must not grow from cycle to cycle, or one day the other has no room.

    Source: vllm-project/vllm#21336 (pinned memory grew in rotation); NVML.
    """
    if failed := broken(cycles):
        return failed
    growth_mib = max(cycles.residue_growth_mib or 0, 0)
    if growth_mib > GROWTH_MIB:
        return unmet(GROWS, growth_mib=growth_mib, cycles=cycles.cycles)
    return met(FLAT, residue_mib=cycles.residue_mib, growth_mib=growth_mib, cycles=cycles.cycles)


HAD = "{needed_mib} MiB of host memory, 1.5 times the weights, are there"
NOT_HAD = "{needed_mib} MiB of host memory, 1.5 times the weights, are not to be had ({how})"
HOW: Final = {
    "limit": "the cgroup's limit",
    "available": "so much is not available",
    "touched": "a process that took them was ended",
}


def host_memory_for_sleep_is_had(room: SleepRoom) -> Finding:
    """At level 1 the weights lie in host memory while the engine sleeps, and PyTorch keeps what it took.

    Remedy: raise-memory-limit
    Source: vllm-project/vllm#16663, #48337; the cgroup's limit, MemAvailable, and touching as much.
    """
    if room.had is False:
        return unmet(NOT_HAD, needed_mib=room.needed_mib, how=HOW[room.how or "available"], remedy="raise-memory-limit")
    if failed := broken(room):
        return failed
    return met(HAD, needed_mib=room.needed_mib)


TOLD = "requests in flight: {ways}"
NOT_TOLD = "a request in flight when it is put to sleep: {ways}"
WRONG: Final = "with other tokens"
ENDED_ENGINE: Final = "and the engine did not live on"
BAD_ENDS: Final = frozenset({"cut", "broken", "lost"})


def requests_in_flight_are_told(proof: RequestInFlight) -> Finding:
    """Whoever waits for an answer while the engine is put to sleep must be told: cut short, waited for, or resumed.

    Remedy: see-known-issues
    Source: vLLM documentation, /sleep?mode=abort|wait|keep (from 0.17); vllm-project/vllm#28714, #45520.
    """
    ways = {name: way for name in ("abort", "wait", "keep") if (way := getattr(proof, name)) is not None}
    told = tuple(f"{name} {_way(way)}" for name, way in ways.items())
    if any(_is_bad(way) for way in ways.values()):
        return unmet(NOT_TOLD, ways=told, remedy=LOOK)
    if failed := broken(proof):
        return failed
    return met(TOLD, ways=told)


def _is_bad(way: Way) -> bool:
    return not way.alive or way.tokens_right is False or way.ended in BAD_ENDS


def _way(way: Way) -> str:
    """Such as `aborted after 12 tokens`."""
    ended = way.ended or f"refused ({way.status})"
    words = [ended if way.tokens_got is None else f"{ended} after {way.tokens_got} tokens"]
    words += [WRONG] if way.tokens_right is False else []
    words += [] if way.alive else [ENDED_ENGINE]
    return ", ".join(words)


HARMLESS = "sleeping asleep, waking awake, bad tags and a bad level did no harm ({answers})"
HARMFUL = "an order that makes no sense did harm: {harm}"


def repeated_sleep_is_harmless(proof: SleepRepeated) -> Finding:
    """Controllers repeat themselves: a second sleep, a second wake, or a wrong tag must leave the engine as it was.

    Remedy: see-known-issues
    Source: vllm-project/vllm#36651, #31618; vLLM validates the level from 0.32.
    """
    orders = ("sleep_while_asleep", "wake_while_awake", "bad_tags", "bad_level")
    answers = tuple(
        f"{name.replace('_', ' ')}: {said}" for name in orders if (said := getattr(proof, name)) is not None
    )
    harm = tuple(answer for answer in answers if answer.endswith(("fatal", "hung")))
    harm += ("the weights were lost at a level that there is not",) if proof.bad_level_lost_weights else ()
    harm += ("afterwards it did not answer rightly",) if proof.serves_after is False else ()
    if harm:
        return unmet(HARMFUL, harm=harm, remedy=LOOK)
    if failed := broken(proof):
        return failed
    return met(HARMLESS, answers=answers)


HONEST = "/is_sleeping told the truth in every state{health}{metric}"
LIES = "it did not tell the truth of itself: {lies}"
HEALTH_ASLEEP: Final = "; /health is 200 asleep too, and says nothing of it"
METRIC_PARTLY: Final = "; its metric says awake when only a part is back"
SAID: Final = {
    "is_sleeping_awake": (False, "awake it said that it slept"),
    "is_sleeping_asleep": (True, "asleep it said that it did not sleep"),
    "is_sleeping_partly": (True, "partly awake it said that it did not sleep"),
    "is_sleeping_level_2": (True, "asleep at level 2 it said that it did not sleep"),
}
METRICS: Final = {
    "metric_awake": ("awake", "awake, the metric is"),
    "metric_asleep": ("weights_offloaded", "asleep, the metric is"),
    "metric_level_2": ("discard_all", "asleep at level 2, the metric is"),
}


def state_is_told_honestly(proof: SleepHonesty) -> Finding:
    """Whoever routes requests goes by what the engine says of itself: /is_sleeping and its metric must be true.

    Remedy: see-known-issues
    Source: GET /is_sleeping, /health, /metrics (vllm:engine_sleep_state); vLLM 0.32 asks all ranks.
    """
    lies = [words for name, (right, words) in SAID.items() if getattr(proof, name) is (not right)]
    lies += [
        f"{words} {said}"
        for name, (right, words) in METRICS.items()
        if (said := getattr(proof, name)) is not None and said != right
    ]
    if lies:
        return unmet(LIES, lies=tuple(lies), remedy=LOOK)
    if failed := broken(proof):
        return failed
    return met(
        HONEST,
        health=HEALTH_ASLEEP if proof.health_asleep == OK else "",
        metric=METRIC_PARTLY if proof.metric_partly == "awake" else "",
    )


TURNS = "two engines took turns on one GPU {swaps} times, {swap} a swap, with the same tokens"
TURNED_WRONG = "two engines took turns on one GPU, and one gave other tokens"


def engines_take_turns(proof: EnginesTakeTurns) -> Finding:
    """Two engines that each want most of a GPU can share it, if one sleeps while the other is awake.

    Remedy: see-known-issues
    Source: vllm-project/vllm#36753, #21336.
    """
    if proof.tokens_equal is False:
        return unmet(TURNED_WRONG, remedy=LOOK)
    if failed := broken(proof):
        return failed
    return met(TURNS, swaps=proof.swaps, swap=_s(proof.swap_s))


RECOVERS = "a wake without room was refused ({status}), and with room again it woke and answered rightly"
WEDGED = "after a wake without room: {then}, though there was room again"
THEN: Final = {
    "wedged": "it wakes no more",
    "garbage": "it answers with other tokens",
    "dead": "the engine has ended",
    "recovers": "it recovered",
}


def wake_without_room_recovers(proof: WakeWithoutRoom) -> Finding:
    """Whoever took the VRAM meanwhile makes a wake fail; that must be told, and cured by giving it back.

    Remedy: see-known-issues
    Source: vllm-project/vllm#34600, #34602 (a second wake works from 0.28, by its code).
    """
    if proof.then is not None and proof.then != "recovers":
        return unmet(WEDGED, then=THEN[proof.then], remedy=LOOK)
    if failed := broken(proof):
        return failed
    return met(RECOVERS, status=proof.status)


def _s(seconds: float | None) -> str:
    return "an unknown time" if seconds is None else f"{seconds:.2f} s"
