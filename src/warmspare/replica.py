"""Keep a GPU's state on a second GPU, and take over when its owner dies.

Two processes. The one that is to take over owns the memory:

    from warmspare.replica import Reader

    with Reader("GPU-e9c863cf-…", size=2**30, link="/run/user/1000/spare/socket", on_death=take_over) as reader:
        reader.wait()

`take_over(version)` is called on the reader's thread when the writer has died; a version has a `number`, a `pointer`
and a `size`. The one that may die publishes:

    from warmspare.replica import Writer

    with Writer("GPU-731c59fc-…", "/run/user/1000/spare/socket") as writer:
        writer.publish(state.data_ptr(), stream=torch.cuda.current_stream().cuda_stream)

`publish` returns at once: the copy is queued on the stream. GPUs are named by UUID or PCI address. Nothing is loaded
before the first of the two is made, and no torch is needed.
"""

from warmspare.control.cuda_driver import CudaError
from warmspare.control.replica import (
    Ended,
    ProtocolError,
    Reader,
    ReaderGone,
    Refused,
    ReplicaError,
    Version,
    Writer,
    WriterGone,
)

__all__ = [
    "CudaError",
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
