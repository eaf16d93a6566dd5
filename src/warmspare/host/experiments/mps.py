"""Does a control daemon of CUDA's Multi-Process Service (MPS) answer programs of this environment?

It is looked for where CUDA looks: at the pipe, or the socket, `control` in $CUDA_MPS_PIPE_DIRECTORY, else in
/tmp/nvidia-mps. The daemon is not spoken to. One that was killed leaves its pipe behind, and one in another mount
namespace is not seen. The folder's name is not told: it may be a user's.

Source: NVIDIA "Multi-Process Service", CUDA_MPS_PIPE_DIRECTORY.
"""

import os
import stat
from pathlib import Path
from typing import Final

USUAL: Final = "/tmp/nvidia-mps"  # noqa: S108 # the place is CUDA's choice
GONE: Final = (FileNotFoundError, NotADirectoryError)


def run() -> dict[str, object]:
    """`{"directory": "default" | "set", "control": bool}`.

    Raises:
        OSError: we may not look; without the path.
    """
    own = os.environ.get("CUDA_MPS_PIPE_DIRECTORY")
    return {"directory": "set" if own else "default", "control": _is_pipe(Path(own or USUAL) / "control")}


def _is_pipe(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except GONE:
        return False
    except OSError as error:
        raise OSError(error.errno, error.strerror) from None
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
