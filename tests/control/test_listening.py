"""Who listens on an address, found among real processes with real sockets."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from warmspare.control.listening import NotFound, on_port, on_socket
from worlds import NOBODY

SERVER = """
import os, socket, sys
family, place, children, keeps, again = sys.argv[1:]
made = socket.socket(getattr(socket, family), socket.SOCK_STREAM)
if again == "again":
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
made.bind(place if family == "AF_UNIX" else (place.rpartition(" ")[0], int(place.rpartition(" ")[2])))
made.listen()
pids = [os.getpid()]
hears, says = os.pipe()
for _ in range(int(children)):
    pid = os.fork()
    if pid == 0:
        os.close(says)
        os.read(hears, 1)
        os._exit(0)
    pids.append(pid)
port = made.getsockname() if family == "AF_UNIX" else made.getsockname()[1]
if keeps == "closes":
    made.close()
print(port, *pids, flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def server(
    place: str, *, children: int = 0, closes: bool = False, family: str = "AF_INET", again: bool = False
) -> Iterator[tuple[str, list[int]]]:
    """A process that listens, and passes its socket on to its children; the port and all pids, its own first."""
    words = (family, place, str(children), "closes" if closes else "keeps", "again" if again else "alone")
    command = [sys.executable, "-I", "-S", "-c", SERVER, *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            port, *pids = process.stdout.readline().split()
            yield port, [int(pid) for pid in pids]
        finally:
            process.communicate()


@pytest.mark.parametrize("place", ["127.0.0.1 0", "0.0.0.0 0"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_one_that_listens_is_found_by_its_port(place: str, host: str) -> None:
    with server(place) as (port, pids):
        assert on_port(host, int(port)) == pids[0]


@pytest.mark.parametrize("place", ["::1 0", ":: 0"])
def test_one_that_listens_on_ipv6_is_found(place: str) -> None:
    if not Path("/proc/self/net/tcp6").exists():
        pytest.skip("needs IPv6")
    with server(place, family="AF_INET6") as (port, pids):
        assert on_port("::1", int(port)) == pids[0]
        if place == ":: 0":
            assert on_port("127.0.0.1", int(port)) == pids[0]
        else:
            with pytest.raises(NotFound, match="no process listens"):
                on_port("127.0.0.1", int(port))


def test_of_several_that_share_a_socket_the_one_that_started_them_is_named() -> None:
    with server("127.0.0.1 0", children=2) as (port, pids):
        assert on_port("127.0.0.1", int(port)) == pids[0]


def test_children_that_share_it_are_their_parents_though_that_one_closed_it() -> None:
    with server("127.0.0.1 0", children=2, closes=True) as (port, pids):
        assert on_port("127.0.0.1", int(port)) == pids[0]


def test_a_socket_bound_to_the_address_comes_before_one_bound_to_all() -> None:
    with server("0.0.0.0 0", again=True) as (port, _), server(f"127.0.0.1 {port}", again=True) as (_, pids):
        assert on_port("127.0.0.1", int(port)) == pids[0]


def test_two_servers_on_one_address_are_not_taken_for_one() -> None:
    with server("127.0.0.1 0", again=True) as (port, first), server(f"127.0.0.1 {port}", again=True) as (_, second):
        with pytest.raises(NotFound, match="are not one server's") as told:
            on_port("127.0.0.1", int(port))
        assert all(str(pid) in str(told.value) for pid in (*first, *second))


def test_a_unix_socket_is_found_by_its_path_and_by_a_link_to_it(tmp_path: Path) -> None:
    place, link = tmp_path / "s", tmp_path / "link"
    link.symlink_to(place)
    with server(str(place), family="AF_UNIX", children=1) as (_, pids):
        assert on_socket(str(place)) == pids[0]
        assert on_socket(str(link)) == pids[0]
    with pytest.raises(NotFound, match="no process listens"):
        on_socket(str(place))


def test_one_that_is_only_bound_does_not_listen() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(NotFound, match=r"no process listens on 127\.0\.0\.1:.*container"):
            on_port("127.0.0.1", bound.getsockname()[1])


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
def test_another_machines_address_is_refused(host: str) -> None:
    with pytest.raises(NotFound, match="is not this machine"):
        on_port(host, 8000)


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(NotFound, match="is no address"):
        on_port("a name with spaces", 8000)


@pytest.mark.root
def test_another_users_is_said_to_be_that(tmp_path: Path) -> None:
    del tmp_path
    with server("127.0.0.1 0") as (port, _):
        child = os.fork()
        if child == 0:
            code = 1
            with contextlib.suppress(BaseException):
                os.setuid(NOBODY)
                try:
                    on_port("127.0.0.1", int(port))
                except NotFound as none:
                    code = 0 if "user 0's" in str(none) else 2
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
