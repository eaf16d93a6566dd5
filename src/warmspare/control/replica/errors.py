"""What can go wrong between a writer and a reader."""

from __future__ import annotations


class ReplicaError(Exception):
    """A replica cannot be kept."""


class ReaderGone(ReplicaError):
    """The reader is gone: nothing is kept any more; the writer's own state is untouched."""


class WriterGone(ReplicaError):
    """The writer is gone before it could be heard of."""


class Refused(ReplicaError):
    """The other side is not who it should be, or the folder of the socket is not private."""


class ProtocolError(ReplicaError):
    """The other side said what it must not say."""


class CallbackError(ReplicaError):
    """What the reader was to call raised something."""
