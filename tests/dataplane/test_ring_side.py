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
        self.half_closed: list[Tiring] = []
        self.client, self.backend = ring_sides(
            ring, cast("HalfClosed", self), self, client, backend
        )

    def add(self, side: Tiring) -> None:
        self.half_closed.append(side)

    def leave_ring(self) -> None:
        self.asked.append("leave")
        for side in (self.client, self.backend):
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
