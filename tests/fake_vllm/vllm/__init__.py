"""A package that goes by vLLM's name: an engine over real HTTP that computes nothing. ../README.md says how."""

from vllm.fake.plan import Plan

__version__ = Plan.of_environment().version

if Plan.of_environment().has("cannot-import"):
    message = "libcudart.so.13: cannot open shared object file: No such file or directory"
    raise ImportError(message)
