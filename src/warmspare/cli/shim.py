"""`warmspare shim`: a cuda-checkpoint for CRIU's own CUDA plugin."""

from __future__ import annotations

import click


@click.command()
@click.argument("folder", metavar="DIR")
@click.option("--remove", is_flag=True, help="Remove it from DIR again.")
def shim(folder: str, *, remove: bool) -> int:
    """Write a program `cuda-checkpoint` into DIR, for CRIU's CUDA plugin.

    For who runs CRIU, or a container engine that does, with its own CUDA plugin; `warmspare checkpoint` needs neither.
    """
    import shlex  # noqa: PLC0415 # --help must not pay for it
    from pathlib import Path  # noqa: PLC0415

    from warmspare.cli.errors import Failed  # noqa: PLC0415
    from warmspare.cli.output import say  # noqa: PLC0415
    from warmspare.runtime import shim as shims  # noqa: PLC0415

    where = shims.program(Path(folder))
    try:
        if remove:
            say(f"{where} {'is removed' if shims.remove(Path(folder)) else 'was not there'}\n")
            return 0
        done = shims.install(Path(folder))
        start_ms = shims.start_s(Path(folder)) * 1000
    except shims.ShimRefused as error:
        raise Failed(str(error)) from None
    say(
        f"{where}: {done}; it starts in {start_ms:.0f} ms.\n\n"
        f"CRIU's CUDA plugin finds it by the PATH of criu itself. LIBDIR is the folder with cuda_plugin.so:\n"
        f"  PATH={shlex.quote(str(where.parent))}:$PATH criu dump -L LIBDIR --tree PID --images-dir IMAGES …\n"
        f"  PATH={shlex.quote(str(where.parent))}:$PATH criu restore -L LIBDIR --images-dir IMAGES …\n"
    )
    return 0
