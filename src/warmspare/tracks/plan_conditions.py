"""What of the user's plan makes a question arise: an engine to start, data or tensor parallelism, level 2."""

from __future__ import annotations

from warmspare.model.findings import Finding, met, not_applicable
from warmspare.trials.engine_plan import EnginePlan

USED = "{what} is to be run"
NOT_USED = "{what} is not what is to be run"
STARTED = "an engine of this machine's vLLM is to be run"
SERVES = "the server that is there is meant, whatever vLLM is installed here"


def plan_is_of_a_server(plan: EnginePlan) -> Finding:
    """Whether a server that is there is meant: what Python and vLLM it runs on, this machine does not tell."""
    return met(SERVES) if plan.serves else not_applicable(STARTED)


def plan_has_data_parallelism(plan: EnginePlan) -> Finding:
    """Whether the engine is to have several replicas."""
    return _used("data parallelism", used=plan.flags.data_parallel > 1)


def plan_has_tensor_parallelism(plan: EnginePlan) -> Finding:
    """Whether the engine is to be spread over GPUs."""
    return _used("tensor parallelism", used=plan.flags.tensor_parallel > 1)


def plan_has_level_2(plan: EnginePlan) -> Finding:
    """Whether it is to be put to sleep without its weights."""
    return _used("level 2", used=plan.level > 1)


def _used(what: str, *, used: bool) -> Finding:
    return met(USED, what=what) if used else not_applicable(NOT_USED, what=what)
