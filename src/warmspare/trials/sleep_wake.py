"""Sleep Mode tried on a real vLLM: one that is started for it, or the user's own that serves already.

Its parts are in sleeping/, a module each; here they are run in their order on one engine.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from warmspare.control.vllm import BadUrl, EngineFailed, NotVllm
from warmspare.control.vllm_command import UNTAGGED
from warmspare.model import engine_flags
from warmspare.model.facts import Cause, Proof, fact_name
from warmspare.trials import awaken
from warmspare.trials.api import NotTried, Steps, trial
from warmspare.trials.engine_given import MADE_S, EngineHost
from warmspare.trials.sleeping import launch, parts, whose
from warmspare.trials.sleeping.bench import Bench
from warmspare.trials.sleeping.parts import CYCLES, END, ORACLE, ROOM, START, Part
from warmspare.trials.sleeping.room import SleepRoom

OLDEST: Final = (0, 8)
NOT_SERVED: Final = "no /is_sleeping: to be tried it needs --enable-sleep-mode and VLLM_SERVER_DEV_MODE=1"
DUMMY: Final = "dummy"
BLIND: Final = (
    "--load-format dummy: whole layers of weights that vLLM makes up may be lost without changing an answer;"
    " leave the flag out"
)
LEAST_S: Final = 60.0
"""No part of an engine that runs is begun with less time left than that."""


def proofs() -> tuple[type[Proof], ...]:
    """What its parts yield."""
    return tuple(part.proof for part in parts.found())


@trial(
    deadline=MADE_S,
    touches="a vLLM engine of its own on free GPUs, a third of their free memory unless it is your model and flags;"
    " with --full two that take turns, and one whose memory is taken while it sleeps;"
    " with --engine only level-1 sleeps of that engine",
    parts=proofs,
)
def sleep_wake(steps: Steps, host: EngineHost) -> None:
    """One engine for all parts; one that a part has broken is started anew for the next with `--full`."""
    try_parts(steps, host, parts.found())


def try_parts(steps: Steps, host: EngineHost, chosen: tuple[Part, ...]) -> None:
    """These, which are in their order, on one engine."""
    bench = _found(steps, host) if host.ask.url else _own(steps, host)
    tried = _Tried(bench)
    try:
        for part in _ordered(host, chosen):
            tried.part(part)
    finally:
        bench.stop()


def _ordered(host: EngineHost, found: tuple[Part, ...]) -> tuple[Part, ...]:
    """Before the user's own model is started, the oracle's controls are done with a made one, which then is gone."""
    if host.ask.model is None or host.ask.url is not None:
        return found
    early = [part for part in found if part.stage in (ROOM, ORACLE)]
    return (*early, *(part for part in found if part not in early))


def _own(steps: Steps, host: EngineHost) -> Bench:
    """A bench with nothing running yet.

    Raises:
        NotTried: this vLLM is too old, or no weights are to be read.
    """
    _old_enough(host.vllm)
    if engine_flags.parse(host.ask.flags or ()).load_format == DUMMY:
        raise NotTried(Cause.INVALID, BLIND)
    bench = Bench(steps, host, launch.users_gpus(host))
    own = host.ask.model
    bench.use(steps.prepare("make a model", bench.made_model) if own is None else own)
    return bench


def _found(steps: Steps, host: EngineHost) -> Bench:
    """A bench with the user's engine, awake.

    Raises:
        NotTried: it is not here, no vLLM, wants a key, cannot sleep, or sleeps already.
    """
    url = str(host.ask.url)
    try:
        engine = awaken.engine_at(url)
        if not engine.is_local:
            raise NotTried(Cause.SKIPPED, f"{url} is not on this machine: its GPUs cannot be looked at from here")
        _old_enough(steps.prepare("ask for its version", engine.version))
        model = steps.prepare("ask for its model", engine.models)[0]
        if steps.prepare("ask whether it sleeps", engine.is_sleeping):
            raise NotTried(Cause.SKIPPED, f"the engine at {url} is asleep, and is left so")
    except BadUrl as error:
        raise NotTried(Cause.INVALID, str(error)) from None
    except EngineFailed as failed:
        raise NotTried(_cause(failed), f"{url}: {_why(failed)}") from None
    bench = Bench(steps, host, whose.gpus(engine, host.gpus))
    bench.serve(engine, model)
    return bench


def _cause(failed: EngineFailed) -> Cause:
    if failed.how == "hung":
        return Cause.TIMEOUT
    return Cause.DENIED if failed.status in (401, 403) else Cause.INVALID


def _why(failed: EngineFailed) -> str:
    if isinstance(failed, NotVllm):
        return f"no vLLM answers there ({failed})"
    if failed.status in (401, 403):
        return f"it asks for an API key: set {awaken.KEY} ({failed})"
    if failed.status == 404:  # noqa: PLR2004 # not found
        return NOT_SERVED
    return str(failed)


def _old_enough(version: str) -> None:
    numbers = tuple(int(word) for word in version.split(".")[:2] if word.isdigit())
    if len(numbers) == len(OLDEST) and (0, 0) < numbers < OLDEST and not version.startswith(UNTAGGED):
        oldest = ".".join(map(str, OLDEST))
        raise NotTried(Cause.SKIPPED, f"vLLM {version} is too old: Sleep Mode is tried from {oldest} on")


class _Tried:
    """What became of the parts so far, as far as it bears on the next."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._steps, self._host = bench.steps, bench.host
        self._flags = engine_flags.parse(self._host.ask.flags or ())
        self._started = False
        self._over: str | None = None

    def part(self, part: Part) -> None:
        """Try a part, or say why not."""
        if why := self._against(part) or self._unready(part):
            self._steps.skip(part.proof, Cause.SKIPPED, why)
            return
        proof = self._steps.part(part.proof, partial(part.run, self._bench))
        if part.stage == ROOM and isinstance(proof, SleepRoom) and proof.had is False:
            self._over = f"the host has no {proof.needed_mib} MiB for a sleeping engine's weights"
        elif part.stage == START:
            self._started = proof is not None
            self._over = self._bench.unsteady if self._started else "the engine did not come to answer"
        elif part.fatal_ok:
            self._bench.lost = f"it was not asked whether it survived {part.function.__name__}"
        elif not part.own_engine and self._started and part.stage < END:
            self._steps.prepare("see that it serves", self._bench.awake)

    def _against(self, part: Part) -> str | None:
        """Why it is not to be tried here, whatever the engine does."""
        if self._over:
            return f"not reached: {self._over}"
        if self._host.ask.url and not part.found_too:
            return "it is only done to an engine that the trial has started itself"
        if self._host.only and fact_name(part.proof) not in self._host.only:
            return "not asked for"
        if part.needs_full and not (self._host.full or self._host.only or part.meant(self._flags)):
            return "only with --full"
        if START < part.stage < END and self._steps.left_s < LEAST_S:
            return f"not reached: {max(0.0, self._steps.left_s):.0f} s were left"
        return None

    def _unready(self, part: Part) -> str | None:
        """Get the engine ready for it; why it is not."""
        if part.own_engine:
            self._bench.stop()
            self._bench.lost = "it was stopped for another"
            return None
        if not CYCLES <= part.stage < END or (part.stage == ORACLE and not self._started) or self._bench.lost is None:
            return None
        if not self._host.full or self._host.ask.url:
            return f"not reached: {self._bench.lost}"
        return self._anew()

    def _anew(self) -> str | None:
        """Start the engine once more, as it was started at first."""
        lost = self._bench.lost
        try:
            self._steps.prepare("stop the engine that is lost", self._bench.stop)
            self._bench.start(self._bench.flags, self._bench.share)
        except (EngineFailed, NotTried) as failed:
            self._over = f"{lost}; it could not be started anew: {failed}"
            return f"not reached: {self._over}"
        self._over = self._bench.unsteady
        return self._over and f"not reached: {self._over}"
