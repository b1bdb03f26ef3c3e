"""One socket of a flow, relayed by a real ring that the test turns by hand."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from time import monotonic
from typing import cast

import pytest

from tests.dataplane.conftest import HAS_RING
from tests.dataplane.peers import PATIENCE, pattern
from uproxy.dataplane.relay import HalfClosed, Tiring
from uproxy.dataplane.ring import SIZE, Ring
from uproxy.dataplane.ring_side import BULK, ring_sides

pytestmark = pytest.mark.skipif(not HAS_RING, reason="the kernel grants no io_uring")

TURNS = 50
"""More than anything here takes."""


def connected(*, send_buffer: int = 0, receive_buffer: int = 0) -> tuple[socket.socket, ...]:
    """A TCP connection: the proxy's end, which sends from such a buffer, and the peer's."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        peer = socket.socket()
        if receive_buffer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        peer.connect(server.getsockname())
        ours, _ = server.accept()
    if send_buffer:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    peer.settimeout(PATIENCE)
    return ours, peer


class Relaying:
    """A flow that notes what its sides ask for."""

    def __init__(self, ring: Ring, client: socket.socket, backend: socket.socket) -> None:
        self.ring = ring
        self.asked: list[str] = []
        self.held: list[bytes] = []
        """What was not delivered when the flow left: the client's bytes, and the backend's."""
        self.half_closed: list[Tiring] = []
        self.client, self.backend = ring_sides(
            ring, cast("HalfClosed", self), self, client, backend
        )

    def add(self, side: Tiring) -> None:
        self.half_closed.append(side)

    def leave_ring(self) -> None:
        self.asked.append("leave")
        for side in (self.client, self.backend):
            self.held.append(bytes(side.held))
            side.close()

    def finish(self) -> None:
        self.asked.append("finish")

    def abort(self) -> None:
        self.asked.append("abort")

    def turn_until(self, condition: Callable[[], bool]) -> None:
        limit = monotonic() + PATIENCE
        while not condition():
            assert monotonic() < limit
            self.ring.turn(wait=False)

    def turn_until_read(self, size: int) -> None:
        """Until so many more bytes have come from the client, and were passed on."""
        total = self.client.total + size
        self.turn_until(lambda: self.client.total == total)
        self.settle()

    def settle(self) -> None:
        """Turn until nothing more can come by itself."""
        for _ in range(TURNS):
            self.ring.turn(wait=False)


class Ends:
    """Both connections of a flow, and the flow."""

    def __init__(self, *, send_buffer: int = 0, receive_buffer: int = 0) -> None:
        self.ring = Ring()
        buffers = {"send_buffer": send_buffer, "receive_buffer": receive_buffer}
        self.near_client, self.client = connected(**buffers)
        self.near_backend, self.backend = connected(**buffers)
        self.flow = Relaying(self.ring, self.near_client, self.near_backend)

    def close(self) -> None:
        self.ring.close()
        for each in (self.near_client, self.client, self.near_backend, self.backend):
            each.close()


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = Ends()
    yield made
    made.close()


def received(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (part := sock.recv(size - len(data))):
        data += part
    return data


@pytest.fixture
def narrow() -> Iterator[Ends]:
    """Sockets that take a part of a message only."""
    made = Ends(send_buffer=4608, receive_buffer=2304)
    yield made
    made.close()


class TestLeaving:
    """The ring is left with all that it was entrusted with."""

    SIZE = SIZE - 1

    def both_send(self, ends: Ends, *, end: bool) -> None:
        """Both peers send a message, and the answer to both is decided in one turn."""
        for peer, seed in ((ends.client, b"c"), (ends.backend, b"b")):
            peer.sendall(pattern(self.SIZE, seed))
            if end:
                peer.shutdown(socket.SHUT_WR)
        ends.ring.turn(wait=True)
        assert ends.flow.client.total == ends.flow.backend.total == self.SIZE
        ends.flow.settle()

    @pytest.mark.parametrize("end", [True, False], ids=["ended", "open"])
    def test_when_both_directions_are_refused_in_one_turn(self, narrow: Ends, *, end: bool) -> None:
        self.both_send(narrow, end=end)
        assert narrow.flow.asked == ["leave"]
        for peer, held, seed in zip(
            (narrow.backend, narrow.client), narrow.flow.held, (b"c", b"b"), strict=True
        ):
            assert 0 < len(held) < self.SIZE
            assert received(peer, self.SIZE - len(held)) + held == pattern(self.SIZE, seed)


class TestBulk:
    def test_full_buffers_now_and_then_are_none(self, ends: Ends) -> None:
        for _ in range(2 * BULK):
            for size in (SIZE, 100):
                ends.client.sendall(pattern(size))
                ends.flow.turn_until_read(size)
                assert received(ends.backend, size) == pattern(size)
        assert not ends.flow.asked

    def test_full_buffers_in_a_row_are(self, ends: Ends) -> None:
        ends.client.sendall(bytes(BULK * SIZE))
        ends.flow.turn_until(lambda: bool(ends.flow.asked))
        assert ends.flow.asked == ["leave"]
