"""What UCX's protocol tables are said to mean.

`HOST` and `SELF` are what UCX 1.22 of NIXL 1.5.1's wheel printed here between two processes without a GPU. The lines of
`OLD` have the form that UCX 1.17 to 1.20 print; the rows between GPUs are what owners of such machines were shown.
"""

from __future__ import annotations

import pytest

from warmspare.model.ucx_log import Lane, Operation, lane

AT = "[1795361778.652870] [vm:8451 :0]   "
HOST = f"""\
{AT}+--------+-------------+-------------------------------------------+
{AT}| a intra-node cfg#1                                               |
{AT}| remote memory read by ucp_get*(multi) into host memory from host |
{AT}+--------+-------------+-------------------------------------------+
{AT}| Range  | Description |                  Config                   |
{AT}+--------+-------------+-------------------------------------------+
{AT}| 0..inf | zero-copy   | cma/memory                                |
{AT}+--------+-------------+-------------------------------------------+
"""
GPUS = f"""\
{AT}+--------+-------------+------------------------------------------------------+
{AT}| a intra-node cfg#1                                                          |
{AT}| remote memory read by ucp_get*(multi) into cuda/GPU0 from cuda/dev[0]       |
{AT}+--------+-------------+------------------------------------------------------+
{AT}| Range  | Description |                  Config                              |
{AT}+--------+-------------+------------------------------------------------------+
{AT}| 0      | copy-out    | tcp/lo                                               |
{AT}| 1..inf | zero-copy   | cuda_ipc/cuda                                        |
{AT}+--------+-------------+------------------------------------------------------+
"""
SELF = GPUS.replace("intra-node", "self")
OTHER = f"""\
{AT}| a intra-node cfg#1                                               |
{AT}| active message by ucp_am_send*(multi) from cuda/GPU0             |
{AT}| 0..inf | zero-copy   | tcp/lo                                    |
"""
OLD = """\
[1767930429.284905] [node:13245:0]   +--------------------------------+-------------------------------------------+
[1767930429.284906] [node:13245:0]   | ucp_context_0 intra-node cfg#1 | \
remote memory write by ucp_put*(fast-completion) from cuda/GPU1 to cuda/dev[0]    |
[1767930429.284906] [node:13245:0]   +--------------------------------+------------------+------------------------+
[1767930429.284906] [node:13245:0]   |                          0..2K | short            | rc_mlx5/mlx5_0:1/path0 |
[1767930429.284907] [node:13245:0]   |                     2049..9383 | copy-in          | rc_mlx5/mlx5_0:1/path0 |
[1767930429.284907] [node:13245:0]   |                      9384..inf | zero-copy        | \
rc_mlx5/mlx5_0:1 50% on path0 and 50% on path1 |
[1767930429.284908] [node:13245:0]   +--------------------------------+------------------+------------------------+
"""
EMULATED = GPUS.replace("zero-copy   | cuda_ipc/cuda", "software emulation | sysv/memory")
MIB = 2**20


@pytest.mark.parametrize(
    ("log", "operation", "size", "expected"),
    [
        (GPUS, "read", 256 * MIB, Lane("zero-copy", ("cuda_ipc",))),
        (GPUS, "read", 0, Lane("copy-out", ("tcp",))),
        (GPUS, "write", 256 * MIB, None),
        (EMULATED, "read", MIB, Lane("software emulation", ("sysv",))),
        (OLD, "write", 2048, Lane("short", ("rc_mlx5",))),
        (OLD, "write", 2049, Lane("copy-in", ("rc_mlx5",))),
        (OLD, "write", 9384, Lane("zero-copy", ("rc_mlx5",))),
        (OLD, "read", 9384, None),
        (HOST, "read", MIB, None),
        (SELF, "read", MIB, None),
        (OTHER, "write", MIB, None),
        (GPUS + OTHER, "read", MIB, Lane("zero-copy", ("cuda_ipc",))),
        (EMULATED + GPUS + SELF + HOST, "read", MIB, Lane("zero-copy", ("cuda_ipc",))),
        (GPUS + EMULATED, "read", MIB, Lane("software emulation", ("sysv",))),
        ("", "read", MIB, None),
    ],
)
def test_what_was_chosen(log: str, operation: Operation, size: int, expected: Lane | None) -> None:
    assert lane(log, operation, size) == expected


def test_several_lanes_are_all_named() -> None:
    log = GPUS.replace("cuda_ipc/cuda  ", "33% on cuda_ipc/cuda and 67% on rc_mlx5/mlx5_0:1/path0")
    assert str(lane(log, "read", MIB)) == "zero-copy over cuda_ipc and rc_mlx5"


def test_a_row_that_names_no_transport_says_so() -> None:
    assert str(lane(GPUS.replace("cuda_ipc/cuda", "no lanes     "), "read", MIB)) == "zero-copy over no named transport"
