"""What every part of the trial of Sleep Mode works with: the engine, what it answered at first, and its GPUs."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Iterator
from typing import Final

from warmspare.control.made_model import MadeModel
from warmspare.control.vllm import Completion, Engine, EngineFailed
from warmspare.control.vllm_server import BadFlags, Server
from warmspare.model.facts import Cause
from warmspare.trials.api import NotTried, Steps
from warmspare.trials.engine_given import EngineHost
from warmspare.trials.given import Gpu
from warmspare.trials.sleeping import launch
from warmspare.trials.sleeping.answers import apart, prompt_of
from warmspare.trials.sleeping.parts import Part
from warmspare.trials.sleeping.serving import ends_told
from warmspare.trials.sleeping.vram import memory_of

__all__ = ["Bench", "Part"]

TOKENS: Final = 24
"""How many tokens an answer has."""
TOLERANCE: Final = 1e-3
"""By how much a log-probability may differ in an answer that is the same."""
ANSWER_S: Final = 60.0
"""How long an engine that is awake may take to answer: some compile again after a wake."""
ORDER_S: Final = 120.0
"""How long it may take to sleep, to wake, or to load its weights again."""
START_S: Final = 600.0
"""And how long it may take to start with a model made on the spot; 40 to 120 s were seen."""
STARTING: Final = "start the engine"
WARM: Final = 5
"""How often a warm engine is asked."""
RESERVE_S: Final = 30.0
"""What is kept of the time for stopping an engine."""


class Bench:
    """One engine on its GPUs, and the answer that all others are held against.

    `gpus` are those that it uses. `made` is the model made on the spot that it runs, None for the user's own. `lost` is
    why the engine can no longer be used; whoever finds that out sets it. `unsteady` is why its answers mean nothing.
    """

    def __init__(self, steps: Steps, host: EngineHost, gpus: tuple[Gpu, ...]) -> None:
        """Nothing runs yet."""
        self.steps, self.host, self.gpus = steps, host, gpus
        self.made: MadeModel | None = None
        self.model: str | None = None
        self.flags: tuple[str, ...] = ()
        self.share = launch.SHARE
        self.server: Server | None = None
        self.prompt: tuple[int, ...] = ()
        self.tokens: int = TOKENS
        self.lost: str | None = None
        self.unsteady: str | None = None
        self.mib_before: tuple[int, ...] | None = None
        self.cold_start_s: float | None = None
        self.ready_s: float | None = None
        self.first_token_warm_s: float | None = None
        self._made: MadeModel | None = None
        self._engine: Engine | None = None
        self._reference: Completion | None = None

    # What parts ask of it

    @property
    def engine(self) -> Engine:
        """The engine's endpoints.

        Raises:
            NotTried: none runs.
        """
        if self._engine is None:
            raise NotTried(Cause.SKIPPED, "no engine runs")
        return self._engine

    @property
    def runs(self) -> bool:
        """Whether there is one, as far as is known."""
        return self._engine is not None

    @property
    def reference(self) -> Completion:
        """What it answered at first, warm.

        Raises:
            NotTried: it was not asked yet.
        """
        if self._reference is None:
            raise NotTried(Cause.SKIPPED, "the engine has answered nothing yet")
        return self._reference

    def answer(self, within_s: float = ANSWER_S) -> Completion:
        """What it answers to the prompt now, alone and with nothing kept of the prompt."""
        return self.fresh(self.prompt, self.tokens, within_s)

    def fresh(self, prompt: tuple[int, ...], tokens: int, within_s: float = ANSWER_S) -> Completion:
        """The same for another prompt, or another number of tokens."""
        self.engine.reset_prefix_cache()
        return self.engine.complete(prompt, tokens, within_s)

    def is_right(self, answer: Completion) -> bool:
        """Whether that is what it answered at first: the same tokens, and their log-probabilities."""
        return answer.tokens == self.reference.tokens and self.apart(answer) <= TOLERANCE

    def apart(self, answer: Completion, other: Completion | None = None) -> float:
        """The largest difference of a log-probability, place by place, from the answer at first or another one."""
        return apart(answer, other or self.reference)

    def used_mib(self) -> tuple[int, ...]:
        """What is in use of each of its GPUs, in MiB, by NVML.

        Raises:
            NotTried: NVML does not tell.
        """
        return tuple(memory_of(gpu).used_mib for gpu in self.gpus)

    def weights_mib(self) -> int | None:
        """How large its model's weights are, in MiB; None where they are not on this disk."""
        if self.made is not None:
            return self.made.weights_mib
        return launch.weights_mib(self.model, served=self.host.ask.url is not None) if self.model else None

    def has_ended(self) -> bool:
        """Whether an engine of ours has ended; of the user's own only its answers are known."""
        return self.server is not None and self.server.has_ended()

    def awake(self) -> str | None:
        """Make sure that it is awake and serves: why it does not, or None. What was found is kept as `lost`."""
        if self.lost is None:
            self.lost = self._problem()
        return self.lost

    def _problem(self) -> str | None:
        if self._engine is None:
            return "no engine runs"
        if self.has_ended():
            return "the engine has ended"
        try:
            if self.engine.is_sleeping():
                self.engine.wake(within_s=ORDER_S)
            right = self.is_right(self.answer())
        except EngineFailed as failed:
            return f"the engine does not serve: {failed}"
        return None if right else "the engine answers otherwise than before"

    # How an engine comes to be there

    @contextlib.contextmanager
    def another(
        self, flags: tuple[str, ...] = (), gpus: tuple[Gpu, ...] | None = None, share: float = launch.SHARE
    ) -> Iterator[Bench]:
        """A further engine with the model made on the spot, started and asked for its reference; stopped in the end.

        It takes `share` of what is free of each of `gpus` (the first of the bench's, if none are named).

        Raises:
            NotTried: there is no room for it, or its answers mean nothing.
            EngineFailed: it did not come to answer.
        """
        other = Bench(self.steps, self.host, gpus or self.gpus[:1])
        other.use(self.made_model())
        try:
            other.start(flags, share)
            if other.unsteady:
                raise NotTried(Cause.INVALID, other.unsteady)
            with ends_told(other):
                yield other
        finally:
            other.stop()

    def made_model(self) -> MadeModel:
        """The model that is made on the spot: made once."""
        if self._made is None:
            self._made = launch.made_model(self.steps, self.host.shape)
        return self._made

    def use(self, model: MadeModel | str) -> None:
        """Run this model from now on."""
        self.made = model if isinstance(model, MadeModel) else None
        self._made = self.made or self._made
        self.model = str(model.folder) if isinstance(model, MadeModel) else model

    def start(self, flags: tuple[str, ...] = (), share: float = launch.SHARE) -> None:
        """Start an engine with the model in use, and ask it for its first answers. These are steps of their own.

        Raises:
            NotTried: its GPUs have no room for it, it cannot be started with these flags, or the trial's time was over
                before the time that a start may take.
            EngineFailed: it did not come to answer.
        """
        self.flags, self.share, self.lost = flags, share, None
        self.mib_before = self.used_mib()
        asked = launch.asked(self, flags, share)
        begun = time.monotonic()
        try:
            self.server = self.steps.prepare("spawn an engine", Server, asked)
        except BadFlags as error:
            raise NotTried(Cause.INVALID, str(error)) from None
        self._engine = self.server.engine
        ready_s = self.steps(STARTING, self._ready, self.server)
        if ready_s is None:
            raise NotTried(Cause.TIMEOUT, "it was still starting when the time of the trial was over")
        self.ready_s = round(ready_s, 3)
        cold_s, cold = self.refer()
        self.cold_start_s = round(cold_s - begun + cold.first_token_s, 3)

    def _ready(self, server: Server) -> float | None:
        """Wait for it; None if the trial has less time left than a start may take, and that was over.

        A step for each thing that it says it does: a user sees it go on.
        """
        left_s = self.steps.left_s - RESERVE_S
        within_s = min(left_s, START_S) if self.made else left_s
        try:
            return server.ready(within_s, lambda word: self.steps(f"{STARTING}: {word}", lambda: None))
        except EngineFailed as failed:
            if failed.how == "hung" and within_s < START_S:
                return None
            raise

    def serve(self, engine: Engine, model: str) -> None:
        """Use an engine that is there already, and serves this model."""
        self._engine, self.model = engine, model

    def refer(self) -> tuple[float, Completion]:
        """Ask for what all answers are held against: once cold, then warm, when they must agree or it is `unsteady`.

        When the first was asked for, and that answer.
        """
        engine, steps = self.engine, self.steps
        self.prompt = self.made.prompt if self.made else steps("have a prompt tokenized", prompt_of, engine)
        asked = time.monotonic()
        cold = steps("ask it for its first token", engine.complete, self.prompt, self.tokens, steps.left_s - RESERVE_S)
        answers = steps("ask it warm", lambda: [self.answer() for _ in range(WARM)])
        self.first_token_warm_s = round(statistics.median(one.first_token_s for one in answers), 4)
        self._reference = answers[0]
        self.unsteady = None
        if not all(self.is_right(one) for one in answers):
            worst = max(self.apart(one) for one in answers)
            self.unsteady = (
                "awake all the time, the engine answers the same prompt differently"
                f" (log-probabilities up to {worst:.2g} apart): nothing can be compared"
            )
        return asked, cold

    def stop(self) -> None:
        """Stop an engine of ours, and wait until all its processes are gone."""
        if self.server is not None:
            self.server.stop()
        self.server, self._engine, self._reference = None, None, None
