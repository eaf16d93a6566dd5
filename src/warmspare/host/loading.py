"""What the loader says of a shared library that it could not load."""

from __future__ import annotations


def is_not_there(library: str, said: str) -> bool:
    """Whether that very library is not there; one that lacks another, or is refused, is there.

    Source: dlopen(3) of glibc and of musl, which have no error numbers.
    """
    sayings = (
        f"{library}: cannot open shared object file: No such file",
        f"Error loading shared library {library}: No such file",
    )
    return said.startswith(sayings)
