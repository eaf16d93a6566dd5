"""Versions of a GPU's state kept whole on another GPU, and taken over when their writer dies.

The reader's process owns the replica: slots of one allocation on its GPU, each a seal and a state. It shares the
allocation with the writer's process (CUDA IPC), which copies each version into a slot that the reader has released,
in stream order: the seal off, the bytes, and the seal on, with a checksum that the writer's GPU worked out over what
it sent. The reader works it out again over what arrived, accepts the version, and only then releases the slot of the
one before.

Why nothing torn can be accepted. A seal is written after the bytes that it is of, and names its version, its session
and their checksum. Why nothing accepted can be torn later, though queued GPU work may outlive its process: that work
goes to slots that were released, one version each, and an accepted version's is not among them.
"""

from warmspare.control.replica.errors import ProtocolError, ReaderGone, Refused, ReplicaError, WriterGone
from warmspare.control.replica.reader import Reader
from warmspare.control.replica.slots import Ended, Version
from warmspare.control.replica.writer import Writer

__all__ = [
    "Ended",
    "ProtocolError",
    "Reader",
    "ReaderGone",
    "Refused",
    "ReplicaError",
    "Version",
    "Writer",
    "WriterGone",
]
