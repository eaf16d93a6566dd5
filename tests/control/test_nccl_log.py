"""What NCCL's log says, on lines as NCCL 2.x writes them: see src/transport/*.cc and src/enqueue.cc."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmspare.model import nccl_log
from warmspare.model.nccl_log import Choice

HEAD = "node-1:4242:4311 [0] NCCL INFO"
GIB = 2**30
LOGS = Path(__file__).with_name("logs")
TWO_H200 = f"""\
node-1:4242:4242 [0] NCCL INFO NCCL version 2.28.9+cuda13.0
{HEAD} NCCL_NVLS_ENABLE set by environment to 0.
{HEAD} NET/Plugin: Could not find: libnccl-net.so
{HEAD} NET/Socket : Using [0]eth0:10.0.0.4<0>
{HEAD} P2P Chunksize set to 524288
{HEAD} Channel 00/24 : 0 1
{HEAD} Trees [0] 1/-1/-1->0->-1 [1] -1/-1/-1->0->1
{HEAD} Channel 00/0 : 0[0] -> 1[1] via P2P/CUMEM
{HEAD} Channel 01/0 : 0[0] -> 1[1] via P2P/CUMEM
node-1:4242:4312 [1] NCCL INFO Channel 00/0 : 1[1] -> 0[0] via P2P/CUMEM
{HEAD} AllReduce: 1048576 Bytes -> Algo TREE proto LL128 channel{{Lo..Hi}}={{0..15}}
{HEAD} AllReduce: 1073741824 Bytes -> Algo RING proto SIMPLE channel{{Lo..Hi}}={{0..23}}
"""
SMALL_SHM = """\
h:7:9 [1] misc/shmutils.cc:87 NCCL WARN Error: failed to extend /dev/shm/nccl-Yh2kqZ to 33030532 bytes, error: No space left on device (28)
h:7:9 [1] NCCL INFO transport/shm.cc:114 -> 2
"""  # noqa: E501 # as it is written


def test_two_h200() -> None:
    log = nccl_log.read(TWO_H200)
    assert log.transports == ("P2P/CUMEM",)
    assert log.choices == (Choice(2**20, "TREE", "LL128"), Choice(GIB, "RING", "SIMPLE"))
    assert (log.transport_of(GIB), log.algorithm_of(GIB), log.algorithm_of(2**20)) == ("P2P/CUMEM", "RING", "TREE")
    assert log.warnings == ()


@pytest.mark.parametrize(
    ("name", "transport"), [("p2p_on", "P2P/direct pointer"), ("p2p_off", "SHM/direct")]
)  # fmt: skip
def test_what_a_real_nccl_wrote_on_two_h200(name: str, transport: str) -> None:
    """NCCL 2.28.9, one process, 32 MiB; of lines that differ in numbers only, four are kept."""
    log = nccl_log.read((LOGS / f"nccl_2_28_two_h200_{name}.log").read_text())
    assert log.transports == (transport,)
    assert (log.transport_of(2**25), log.algorithm_of(2**25)) == (transport, "RING")
    assert log.warnings == ()


@pytest.mark.parametrize(
    ("via", "transport"),
    [
        ("P2P/CUMEM/read", "P2P/CUMEM"),
        ("P2P/IPC", "P2P/IPC"),
        ("P2P/IPC/read", "P2P/IPC"),
        ("P2P/direct pointer", "P2P/direct pointer"),
        ("P2P/direct pointer/read", "P2P/direct pointer"),
        ("P2P/indirect/1[1]", "P2P/indirect"),
        ("SHM/direct/direct", "SHM/direct"),
        ("SHM/CE/direct", "SHM/CE"),
        ("NET/Socket/0", "NET/Socket"),
        ("NET/IB/0/GDRDMA", "NET/IB/GDRDMA"),
        ("NET/IB/2(1)/GDRDMA/Shared", "NET/IB/GDRDMA"),
        ("COLLNET/SHARP/0", "COLLNET/SHARP"),
        ("NVLS", "NVLS"),
        ("SHM/direct/direct comm 0x557519a97630 nRanks 02", "SHM/direct"),
    ],
)
def test_transports(via: str, transport: str) -> None:
    lines = f"{HEAD} Channel 00 : 0[b000] -> 1[c000] via {via}\n{HEAD} Channel 03/0 : 1[1] -> 0[0] [send] via {via}\n"
    assert nccl_log.read(lines).transports == (transport,)


def test_the_most_used_transport_comes_first_and_nvls_where_it_was_chosen() -> None:
    lines = [
        f"{HEAD} Channel 0{n}/0 : 0[0] -> 1[1] via {via}"
        for n, via in enumerate(("SHM/direct/direct", "P2P/IPC", "P2P/IPC"))
    ]
    log = nccl_log.read(
        "\n".join([*lines, f"{HEAD} AllReduce: {GIB} Bytes -> Algo NVLS proto SIMPLE channel{{Lo..Hi}}={{0..15}}"])
    )
    assert log.transports == ("P2P/IPC", "SHM/direct")
    assert (log.transport_of(GIB), log.transport_of(1)) == ("NVLS", "P2P/IPC, SHM/direct")


def test_older_words_for_a_choice() -> None:
    log = nccl_log.read(
        f"{HEAD} 1073741824 Bytes -> Algo 1 proto 2 time 6530.4\n"
        f"{HEAD} AllReduce: 4096 Bytes -> Algo 0 proto 0 time 12.9\n"
        f"{HEAD} AllReduce:  8192 Bytes -> Algo Ring proto Simple channel{{Lo..Hi}}={{0..1}}\n"
    )
    assert log.choices == (Choice(GIB, "RING", "SIMPLE"), Choice(4096, "TREE", "LL"), Choice(8192, "RING", "SIMPLE"))


def test_warnings_are_kept_and_nothing_else_is_taken_for_anything() -> None:
    (warning,) = nccl_log.read(SMALL_SHM).warnings
    assert warning.startswith("Error: failed to extend /dev/shm/nccl-Yh2kqZ to 33030532 bytes")
    empty = nccl_log.read(f"{HEAD} Channel 00/24 : 0 1\nvia P2P/IPC\n{HEAD} AllGather: 8 Bytes -> Algo RING proto LL\n")
    assert tuple(empty) == ((), (), ())
    assert (empty.transport_of(8), empty.algorithm_of(8)) == (None, None)


@given(st.text(max_size=300), st.integers(0, len(TWO_H200)))
def test_any_text_is_read(text: str, at: int) -> None:
    for log in (text, TWO_H200[:at] + text + TWO_H200[at:]):
        found = nccl_log.read(log)
        assert all(len(name) <= 60 for name in found.transports)
