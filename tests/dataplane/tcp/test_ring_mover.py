"""A flow that is moved by a real ring, which the test turns by hand."""

from __future__ import annotations

import os
import socket
from _socket import socket as Socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from time import monotonic
from typing import cast

import pytest

from tests.dataplane.peers import PATIENCE, pattern
from tests.io_uring import needs_io_uring
from tests.uring.kernels import WithoutRecvLimit
from uproxy.dataplane.tcp.half_closed import HalfClosedDirection, HalfCloseTimer
from uproxy.dataplane.tcp.mover import Detached
from uproxy.dataplane.tcp.ring_direction import BULK
from uproxy.dataplane.tcp.ring_mover import RingMover
from uproxy.uring.queues import Queues
from uproxy.uring.ring import BUFFER_SIZE, RECV_LIMIT, Ring

pytestmark = needs_io_uring

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
    """A flow that notes what its mover asks for."""

    def __init__(self, ring: Ring, client: socket.socket, backend: socket.socket) -> None:
        self.ring = ring
        self.ended = False
        self.asked: list[str] = []
        self.held: list[bytes] = []
        """What was not delivered when the flow left: the client's bytes, and the backend's."""
        self.bulk: list[bool] = []
        """Whether it left because much was moved: by the client, and by the backend."""
        self.half_closed: list[HalfClosedDirection] = []
        self.mover = RingMover(ring, cast("HalfCloseTimer", self), self)
        self.mover.start(client, backend)
        self.client, self.backend = self.mover.from_client, self.mover.from_backend

    def add(self, direction: HalfClosedDirection) -> None:
        self.half_closed.append(direction)

    def replied(self, client_spoke: bool) -> None:
        pass

    def detached(self, rest: Detached) -> None:
        self.asked.append("leave")
        self.held = [rest.from_client.undelivered, rest.from_backend.undelivered]
        self.bulk = [rest.from_client.bulk, rest.from_backend.bulk]

    def finish(self) -> None:
        self.asked.append("finish")

    def abort(self, broken: Socket | None = None, code: int | None = 0) -> None:
        self.asked.append("abort")

    def turn_until(self, condition: Callable[[], bool]) -> None:
        limit = monotonic() + PATIENCE
        while not condition():
            assert monotonic() < limit
            self.ring.submit_and_wait(0)

    def turn_until_read(self, size: int) -> None:
        """Until so many more bytes have come from the client, and were passed on."""
        total = self.client.total + size
        self.turn_until(lambda: self.client.total == total)
        self.settle()

    def settle(self) -> None:
        """Turn until nothing more can come by itself."""
        for _ in range(TURNS):
            self.ring.submit_and_wait(0)


class Ends:
    """Both connections of a flow, and the flow."""

    def __init__(
        self,
        *,
        limited: bool,
        queues: type[Queues] = Queues,
        send_buffer: int = 0,
        receive_buffer: int = 0,
    ) -> None:
        """`limited`: the kernel is asked to heed a limit for what is received."""
        self.ring = Ring(queues)
        self.ring.recv_limit_supported = limited
        buffers = {"send_buffer": send_buffer, "receive_buffer": receive_buffer}
        self.near_client, self.client = connected(**buffers)
        self.near_backend, self.backend = connected(**buffers)
        self.flow = Relaying(self.ring, self.near_client, self.near_backend)

    def close(self) -> None:
        self.ring.close()
        for each in (self.near_client, self.client, self.near_backend, self.backend):
            each.close()


@pytest.fixture(params=[True, False], ids=["limited", "one at a time"])
def limited(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def ends(*, limited: bool) -> Iterator[Ends]:
    made = Ends(limited=limited)
    yield made
    made.close()


def received(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (part := sock.recv(size - len(data))):
        data += part
    return data


@pytest.fixture
def narrow(*, limited: bool) -> Iterator[Ends]:
    """Sockets that take a part of a message only."""
    made = Ends(limited=limited, send_buffer=4608, receive_buffer=2304)
    yield made
    made.close()


class TestLeaving:
    """The ring is left with all that it was entrusted with."""

    SIZE = BUFFER_SIZE - 1

    def both_send(self, ends: Ends, *, end: bool) -> None:
        """Both peers send a message, and the answer to both is decided in one turn."""
        for peer, seed in ((ends.client, b"c"), (ends.backend, b"b")):
            peer.sendall(pattern(self.SIZE, seed))
            if end:
                peer.shutdown(socket.SHUT_WR)
        ends.ring.submit_and_wait(1)
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


class TestBounds:
    def test_a_burst_for_a_receiver_that_does_not_read(self, narrow: Ends) -> None:
        """However much has arrived, little of it is ours until it is delivered."""
        block, sent, most = pattern(1 << 20), 0, 0
        narrow.backend.setblocking(False)
        for _ in range(TURNS):
            with suppress(BlockingIOError):
                sent += narrow.backend.send(block[sent:])
            if not narrow.flow.asked:
                narrow.ring.submit_and_wait(0)
                most = max(most, narrow.flow.backend.pending)
        assert narrow.flow.asked == ["leave"]
        held, total = narrow.flow.held[1], narrow.flow.backend.total
        assert sent > 2 * RECV_LIMIT
        assert max(most, len(held)) <= RECV_LIMIT
        assert received(narrow.client, total - len(held)) + held == block[:total]

    def test_more_than_the_limit_for_a_receiver_that_reads(self, ends: Ends) -> None:
        """With messages that are short of a buffer, and so are no bulk."""
        for number in range(3 * RECV_LIMIT // 10_000):
            message = pattern(10_000, bytes([number]))
            ends.client.sendall(message)
            ends.flow.turn_until_read(len(message))
            assert received(ends.backend, len(message)) == message
        assert not ends.flow.asked

    def test_a_kernel_that_knows_no_limit(self) -> None:
        """It refuses the first receive of each socket, without having taken a byte."""
        ends = Ends(limited=True, queues=WithoutRecvLimit)
        try:
            for message in (b"first", b"second"):
                ends.client.sendall(message)
                ends.flow.turn_until_read(len(message))
                assert received(ends.backend, len(message)) == message
            assert not ends.ring.recv_limit_supported
            assert not ends.flow.asked
        finally:
            ends.close()


class TestCounting:
    def test_what_is_not_decided_is_not_delivered(self, ends: Ends) -> None:
        direction = ends.flow.client
        ends.client.sendall(b"hello")
        ends.flow.turn_until(lambda: direction.total == 5)
        assert direction.unreported() == 0
        ends.flow.settle()
        assert (direction.unreported(), direction.unreported()) == (5, 0)

    def test_what_will_never_be_known_is(self, ends: Ends) -> None:
        direction = ends.flow.client
        ends.client.sendall(b"hello")
        ends.flow.turn_until(lambda: direction.total == 5)
        ends.flow.ended = True
        assert direction.unreported() == 5

    def test_what_was_delivered_before_receiving_anew_is(self, ends: Ends) -> None:
        direction = ends.flow.client
        ends.client.sendall(bytes(BUFFER_SIZE))
        ends.flow.turn_until_read(BUFFER_SIZE)
        direction.armed = False
        direction._rearm()
        assert direction.unreported() == BUFFER_SIZE

    def test_counts_never_go_back(self, narrow: Ends) -> None:
        """A counter that does is taken for one that has begun anew."""
        direction, delivered = narrow.flow.client, 0
        narrow.client.sendall(bytes(1 << 16))
        for _ in range(TURNS):
            if not narrow.flow.asked:
                narrow.ring.submit_and_wait(0)
                count = direction.unreported()
                assert count >= 0
                delivered += count
        assert narrow.flow.asked == ["leave"]
        assert delivered == direction.total - len(narrow.flow.held[0])


class TestBulk:
    def test_full_buffers_now_and_then_are_none(self, ends: Ends) -> None:
        for _ in range(2 * BULK):
            for size in (BUFFER_SIZE, 100):
                ends.client.sendall(pattern(size))
                ends.flow.turn_until_read(size)
                assert received(ends.backend, size) == pattern(size)
        assert not ends.flow.asked

    def test_full_buffers_in_a_row_are(self, ends: Ends) -> None:
        ends.client.sendall(bytes(BULK * BUFFER_SIZE))
        ends.flow.turn_until(lambda: bool(ends.flow.asked))
        assert ends.flow.asked == ["leave"]
        assert ends.flow.bulk == [True, False]


class TestClosing:
    def test_a_queued_receive_takes_no_bytes_of_another_flow(self, ends: Ends) -> None:
        """The kernel looks a descriptor up when it takes an operation, and then the number may be
        that of another socket already."""
        numbers = ends.near_client.fileno(), ends.near_backend.fileno()
        near, far = socket.socketpair()
        with near, far:
            near.setblocking(False)
            ends.flow.mover.close()
            ends.near_client.close()
            ends.near_backend.close()
            for number in numbers:
                os.dup2(near.fileno(), number)
            far.send(b"for another flow")
            try:
                ends.flow.settle()
                assert near.recv(100) == b"for another flow"
            finally:
                for number in numbers:
                    os.close(number)
