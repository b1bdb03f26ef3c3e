"""Sockets that go on from one flow to the next: no client gets what was meant for another one."""

from __future__ import annotations

import errno
import socket
from _socket import socket as Socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.ports import free_port
from uproxy.dataplane.kernel import LINUX
from uproxy.dataplane.udp.idle_sockets import AGE, IdleSockets

LOOPBACKS = [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)]


class Idle:
    """Stands for the receive of a flow's socket."""

    def __init__(self, sock: Socket) -> None:
        self.sock = sock
        self.quiet = True
        self.over = False
        self.left = self.stopped = 0

    def leave(self) -> None:
        self.left += 1

    def is_quiet(self) -> bool:
        return self.quiet

    def stop(self) -> None:
        self.stopped += 1
        self.sock.close()


class Pair:
    """A backend, and a socket that is connected to it as that of a flow is."""

    def __init__(self, address: str, family: int) -> None:
        self.backend = socket.socket(family, socket.SOCK_DGRAM)
        self.backend.bind((address, 0))
        self.sock = Socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.sock.connect(self.backend.getsockname())
        self.idle = Idle(self.sock)

    def reply(self, data: bytes) -> None:
        self.backend.sendto(data, self.sock.getsockname())

    def close(self) -> None:
        self.backend.close()
        self.sock.close()


@pytest.fixture(params=LOOPBACKS, ids=["IPv4", "IPv6"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    made = Pair(*request.param)
    yield made
    made.close()


@pytest.fixture
def sockets() -> IdleSockets:
    return IdleSockets(2, LINUX.disconnect)


def another(pair: Pair) -> Idle:
    """Of the same family, and connected to the same backend."""
    sock = Socket(pair.sock.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    sock.connect(pair.backend.getsockname())
    return Idle(sock)


def test_a_socket_has_no_peer_and_no_port_until_it_is_connected_again(
    pair: Pair, sockets: IdleSockets
) -> None:
    port = pair.sock.getsockname()[1]
    assert sockets.keep(pair.idle, 0.0)
    assert pair.idle.left == 1
    assert pair.sock.getsockname()[1] == 0
    with pytest.raises(OSError, match=r"not connected|Destination address") as error:
        pair.sock.getpeername()
    assert error.value.errno == errno.ENOTCONN
    # Another socket of this machine may have the port now.
    with socket.socket(pair.sock.family, socket.SOCK_DGRAM) as other:
        other.bind((pair.backend.getsockname()[0], port))
    assert sockets.take(pair.sock.family, AGE) is pair.idle
    pair.sock.connect(pair.backend.getsockname())
    pair.sock.send(b"question")
    data, source = pair.backend.recvfrom(100)
    pair.backend.sendto(b"answer", source)
    assert (data, pair.sock.recv(100)) == (b"question", b"answer")


def test_what_has_come_for_the_flow_before_is_dropped(pair: Pair, sockets: IdleSockets) -> None:
    for number in range(50):
        pair.reply(b"%d" % number)
    before = pair.sock.getsockname()
    assert sockets.keep(pair.idle, 0.0)
    # Later than that, it comes to a port that no socket has.
    with suppress(ConnectionRefusedError):
        pair.backend.sendto(b"late", before)
    pair.sock.connect(pair.backend.getsockname())
    with pytest.raises(BlockingIOError):
        pair.sock.recv(100)
    pair.reply(b"answer")
    assert pair.sock.recv(100) == b"answer"


def test_what_was_refused_to_the_flow_before_is_not_told_to_the_next(
    pair: Pair, sockets: IdleSockets
) -> None:
    address = pair.backend.getsockname()[0]
    idle = Idle(Socket(pair.sock.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK))
    idle.sock.connect((address, free_port()))
    idle.sock.send(b"refused")  # Loopback: the ICMP message has come when this returns.
    assert sockets.keep(idle, 0.0)
    idle.sock.connect(pair.backend.getsockname())
    assert idle.sock.send(b"question") == 8
    idle.stop()


def test_none_is_used_before_its_time(pair: Pair, sockets: IdleSockets) -> None:
    family = pair.sock.family
    sockets.keep(pair.idle, 1.0)
    assert sockets.take(family, 1.0 + AGE / 2) is None
    pair.idle.quiet = False
    assert sockets.take(family, 1.0 + AGE) is None
    pair.idle.quiet = True
    assert sockets.take(family, 1.0 + AGE) is pair.idle
    assert sockets.take(family, 1.0 + AGE) is None
    assert pair.idle.stopped == 0


def test_one_that_receives_no_more_is_closed(pair: Pair, sockets: IdleSockets) -> None:
    second = another(pair)
    sockets.keep(pair.idle, 0.0)
    sockets.keep(second, 0.0)
    pair.idle.over = True
    assert sockets.take(pair.sock.family, 1.0) is second
    assert pair.idle.stopped == 1
    second.stop()


def test_those_of_the_other_family_are_not_taken(pair: Pair, sockets: IdleSockets) -> None:
    families = {socket.AF_INET, socket.AF_INET6} - {pair.sock.family}
    sockets.keep(pair.idle, 0.0)
    assert sockets.take(families.pop(), 1.0) is None


def test_no_more_than_so_many(pair: Pair, sockets: IdleSockets) -> None:
    more = [another(pair) for _ in range(2)]
    assert [sockets.keep(each, 0.0) for each in (*more, pair.idle)] == [True, True, False]
    # It is left as it was, and its owner closes it.
    assert pair.sock.getpeername() == pair.backend.getsockname()
    assert pair.idle.left == 0
    assert len(sockets) == 2
    assert sockets.clear()
    assert [each.stopped for each in more] == [1, 1]
    assert (len(sockets), sockets.clear()) == (0, False)


def test_one_that_cannot_be_disconnected_is_not_kept(pair: Pair) -> None:
    sockets = IdleSockets(2, lambda fd: False)
    assert not sockets.keep(pair.idle, 0.0)
    assert len(sockets) == pair.idle.left == 0


def test_disconnecting_what_is_no_socket() -> None:
    with open("/dev/null", "rb") as file:
        assert not LINUX.disconnect(file.fileno())
