"""CUDA's Multi-Process Service: its programs share one context a GPU, so none can be taken away by itself."""

from __future__ import annotations

from warmspare.host.port import Host, Unreadable
from warmspare.model.facts import Cause, Fact
from warmspare.probes.api import probe


class Mps(Fact, frozen=True, kw_only=True):
    """Whether a control daemon's pipe is where a CUDA program of this environment looks, so that it becomes a client.

    A daemon that was killed leaves its pipe behind. `own_directory`: the environment names the pipe's folder.
    """

    daemon: bool
    own_directory: bool


@probe
def mps(host: Host) -> Mps:
    """Source: NVIDIA "Multi-Process Service", CUDA_MPS_PIPE_DIRECTORY."""
    seen = host.experiment("mps")
    if seen["directory"] not in ("default", "set"):
        raise Unreadable(Cause.INVALID, "the experiment names no directory that we know")
    return Mps(daemon=seen["control"], own_directory=seen["directory"] == "set")
