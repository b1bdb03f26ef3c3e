"""What every mover promises, whatever it moves bytes by: the rows of one suite, for each of them.

A mover begins with the real sockets of a flow whose owner is the test. Where the kernel has no
io_uring, the rows of the ring are skipped, and the summary of the run says so (tests/io_uring.py).

By io_uring a flow cannot go on from a detached one (`RingMover` has no `take_over`): a flow that
leaves the ring does not return, so each mover is continued by epoll, with splice and without.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable
from typing import get_args

import pytest

from tests.dataplane.peers import eventually, pattern
from tests.dataplane.tcp.moved import ENDS, End, Kind, Moved, Successor, moved
from tests.io_uring import on_loops_without_a_ring, on_ring_loops
from uproxy.dataplane.reactor import RingReactor
from uproxy.dataplane.tcp.epoll_direction import ROUNDS, EpollDirection
from uproxy.dataplane.tcp.mover import Detached, DetachedDirection
from uproxy.dataplane.tcp.ring_mover import RingMover
from uproxy.dataplane.tcp.shared_buffers import BUFFER, SPLICE_AFTER

RESET = (0, errno.ECONNRESET, errno.EPIPE)
"""What a socket says that was reset; 0: the owner of the flow has to ask it."""


async def settled(flow: Moved) -> None:
    """Until all that was sent is read."""
    await eventually(
        lambda: (
            flow.mover.from_client.total >= len(flow.sent["client"])
            and flow.mover.from_backend.total >= len(flow.sent["backend"])
        )
    )


async def idle(flow: Moved) -> None:
    await flow.send("client", b"a request")
    await flow.send("backend", b"its answer")
    await settled(flow)


async def untouched(flow: Moved) -> None:
    assert not flow.mover.from_client.total


async def just_arrived(flow: Moved) -> None:
    await flow.send("client", pattern(3000))


async def client_ended(flow: Moved) -> None:
    await idle(flow)
    flow.finish_stream("client")
    await eventually(lambda: flow.mover.from_client.eof)


async def backend_ended(flow: Moved) -> None:
    await idle(flow)
    flow.finish_stream("backend")
    await eventually(lambda: flow.mover.from_backend.eof)


async def client_slow(flow: Moved) -> None:
    await flow.fill("backend")


async def backend_slow(flow: Moved) -> None:
    await flow.fill("client")


async def both_slow(flow: Moved) -> None:
    await flow.fill("client")
    await flow.fill("backend")


async def ended_and_slow(flow: Moved) -> None:
    await client_ended(flow)
    await flow.fill("backend")


async def urgent(flow: Moved) -> None:
    await flow.send("client", b"before")
    flow.sent["client"] += b"!"
    assert flow.client.sock.send(b"!", socket.MSG_OOB) == 1


STATES: dict[str, Callable[[Moved], Awaitable[None]]] = {
    "untouched": untouched,
    "idle": idle,
    "bytes just arrived": just_arrived,
    "half-closed by the client": client_ended,
    "half-closed by the backend": backend_ended,
    "slow client": client_slow,
    "slow backend": backend_slow,
    "both slow": both_slow,
    "half-closed, and slow": ended_and_slow,
    "urgent byte": urgent,
}


class Rows:
    """For each mover."""

    KINDS: tuple[Kind, ...] = ()

    async def test_bytes_both_ways(self, kind: Kind) -> None:
        async with moved(kind) as flow:
            for size in (1, 100, 20_000):
                await flow.send("client", pattern(size))
                await flow.send("backend", pattern(size, b"b"))
                await settled(flow)
            await flow.check_all_arrives()

    @pytest.mark.parametrize("end", ENDS)
    async def test_half_close(self, kind: Kind, end: End) -> None:
        async with moved(kind) as flow:
            other = "backend" if end == "client" else "client"
            await flow.send(end, b"all I have")
            flow.finish_stream(end)
            assert await flow.peer(other).rest() == b"all I have"
            await flow.send(other, b"is enough")
            assert await flow.peer(end).receive(9) == b"is enough"
            flow.finish_stream(other)
            assert await flow.peer(end).rest() == b""
            await eventually(lambda: flow.asked == ["finish"])
            assert flow.counted == {end: 10, other: 9}

    @pytest.mark.parametrize("end", ENDS)
    async def test_reset(self, kind: Kind, end: End) -> None:
        async with moved(kind) as flow:
            await idle(flow)
            flow.peer(end).reset()
            assert await flow.peer("backend" if end == "client" else "client").was_reset()
            assert flow.asked == ["abort"]
            assert flow.blamed == end
            assert flow.code in RESET

    @pytest.mark.parametrize("end", ENDS)
    async def test_slow_receiver(self, kind: Kind, end: End) -> None:
        async with moved(kind) as flow:
            await flow.fill("backend" if end == "client" else "client")
            await eventually(lambda: len(flow.rests) == ("ring" in kind))
            await flow.check_all_arrives()

    @pytest.mark.parametrize("end", ENDS)
    async def test_receiver_that_refuses(self, kind: Kind, end: End) -> None:
        """It closes with bytes unread, which resets; the sender is to learn of it."""
        async with moved(kind) as flow:
            other = "backend" if end == "client" else "client"
            await flow.fill(other)
            flow.peer(end).close()
            assert await flow.peer(other).was_reset()
            assert flow.asked == ["abort"]
            assert flow.blamed == end
            assert flow.code in RESET

    @pytest.mark.parametrize("successor", get_args(Successor))
    @pytest.mark.parametrize("state", STATES)
    async def test_detached(self, kind: Kind, state: str, successor: Successor) -> None:
        """Nothing is lost or doubled, and counters are exact."""
        async with moved(kind, successor, keep=True) as flow:
            await STATES[state](flow)
            if not flow.rests:
                flow.count()
            rest = await flow.detach()
            assert rest.from_client.ended == ("client" in flow.finished)
            assert rest.from_backend.ended == ("backend" in flow.finished)
            assert "slow" not in state or undelivered(rest)
            self.nothing_is_under_way(flow)
            flow.go_on()
            await flow.check_all_arrives()

    @pytest.mark.parametrize("state", STATES)
    async def test_detached_twice(self, kind: Kind, state: str) -> None:
        async with moved(kind, "splice", keep=True) as flow:
            await STATES[state](flow)
            await flow.detach()
            flow.go_on()
            flow.mover.detach()
            assert len(flow.rests) == 2
            flow.go_on()
            await flow.check_all_arrives()

    async def test_closed_while_it_detaches(self, kind: Kind) -> None:
        async with moved(kind, keep=True) as flow:
            await idle(flow)
            flow.mover.detach()
            count = len(flow.rests)
            flow.mover.close()
            flow.mover.detach()
            for _ in range(5):
                await asyncio.sleep(0)
            assert len(flow.rests) == count == ("ring" not in kind)

    def nothing_is_under_way(self, flow: Moved) -> None:
        reactor = flow.successors.shared.reactor
        for sock in (flow.near_client, flow.near_backend):
            assert not reactor.is_registered(sock.fileno())
        if isinstance(reactor, RingReactor):
            owners = [getattr(each, "__self__", None) for each in reactor.ring._callbacks.values()]
            assert flow.mover.from_client not in owners
            assert flow.mover.from_backend not in owners


def undelivered(rest: Detached) -> int:
    return len(rest.from_client.undelivered) + len(rest.from_backend.undelivered)


@on_loops_without_a_ring
class TestByEpoll(Rows):
    KINDS = ("epoll", "splice")

    async def test_detached_in_the_middle_of_a_long_read(self, kind: Kind) -> None:
        """The edge was reported, and the rest of what it was about is still in the socket."""
        async with moved(kind, keep=True) as flow:
            direction = flow.mover.from_client
            assert isinstance(direction, EpollDirection)
            flow.near_backend.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
            flow.near_client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
            data = pattern(2 * ROUNDS * BUFFER)
            flow.sent["client"] += data
            sending = asyncio.get_running_loop().create_task(flow.client.send(data))
            reading = asyncio.get_running_loop().create_task(flow.backend.receive(len(data)))
            while not flow.rests:
                if direction.deferred or direction.total == len(data):
                    flow.mover.detach()
                else:
                    await asyncio.sleep(0)
            flow.go_on()
            await sending
            assert await reading == data


@on_ring_loops
class TestByRing(Rows):
    KINDS = ("ring", "ring with busy polling")

    async def test_bulk_leaves_the_ring(self, kind: Kind) -> None:
        async with moved(kind, "splice") as flow:
            async with asyncio.TaskGroup() as group:
                group.create_task(flow.send("backend", pattern(1 << 20)))
                arrived = group.create_task(flow.client.receive(1 << 20))
            assert arrived.result() == pattern(1 << 20)
            await eventually(lambda: len(flow.rests) == 1)

    async def test_a_flow_that_cannot_go_on_is_aborted(
        self, kind: Kind, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Otherwise it would have no mover, and both peers would wait for ever."""

        def fail(owner: object) -> None:
            raise MemoryError

        async with moved(kind) as flow:
            await idle(flow)
            monkeypatch.setattr(flow.successors, "successor", fail)
            flow.mover.detach()
            reactor = flow.successors.shared.reactor
            await eventually(lambda: reactor.failures == 1)
            reactor.failures = 0
            assert flow.asked == ["abort"]
            assert (flow.blamed, flow.code) == ("", 0)
            assert await flow.client.was_reset()
            assert await flow.backend.was_reset()

    async def test_a_callback_that_fails_aborts_its_flow(
        self, kind: Kind, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(mover: RingMover) -> None:
            raise MemoryError

        monkeypatch.setattr(RingMover, "finish_detaching", fail)
        async with moved(kind) as flow:
            assert isinstance(flow.mover, RingMover)
            flow.mover._ring.call_after_turn(flow.mover.finish_detaching)
            reactor = flow.successors.shared.reactor
            await eventually(lambda: reactor.failures == 1)
            reactor.failures = 0
            assert flow.asked == ["abort"]


BYTES = pattern(50_000, b"undelivered")


@on_loops_without_a_ring
class TestGoingOn:
    """From a value, as another process may send it."""

    @pytest.mark.parametrize("from_client", [b"", BYTES], ids=["", "bytes of the client"])
    @pytest.mark.parametrize("from_backend", [b"", BYTES], ids=["", "bytes of the backend"])
    @pytest.mark.parametrize("ended", [None, *ENDS])
    @pytest.mark.parametrize("successor", get_args(Successor))
    async def test_every_combination(
        self, from_client: bytes, from_backend: bytes, ended: End | None, successor: Successor
    ) -> None:
        """Also of a stream whose end was read behind bytes that are not delivered."""
        async with moved("epoll", successor, keep=True) as flow:
            await flow.detach()
            given = {"client": from_client, "backend": from_backend}
            states = {
                end: DetachedDirection(
                    total=len(given[end]), undelivered=given[end], ended=ended == end
                )
                for end in ENDS
            }
            if ended is not None:
                other = flow.near_backend if ended == "client" else flow.near_client
                if not given[ended]:
                    other.shutdown(socket.SHUT_WR)
                flow.finish_stream(ended)
            for end in ENDS:
                flow.sent[end] += given[end]
            rest = Detached(from_client=states["client"], from_backend=states["backend"])
            flow.rests.append(rest)
            flow.go_on()
            await flow.check_all_arrives()

    async def test_a_direction_that_moves_much_is_spliced_at_once(self) -> None:
        async with moved("epoll", keep=True) as flow:
            await flow.detach()
            flow.successors.shared.splice_after = SPLICE_AFTER
            bulk = DetachedDirection(bulk=True)
            flow.rests.append(Detached(from_client=bulk, from_backend=DetachedDirection()))
            flow.go_on()
            client, backend = flow.mover.from_client, flow.mover.from_backend
            assert isinstance(client, EpollDirection)
            assert isinstance(backend, EpollDirection)
            assert client._change_to_splice() is not None
            assert backend._change_to_splice() is None
            client._stop_splicing()
            await flow.check_all_arrives()

    @pytest.mark.parametrize(("fault", "end"), [("broken", "client"), ("rejected", "backend")])
    async def test_a_flow_that_has_failed_is_aborted(self, fault: str, end: End) -> None:
        async with moved("epoll", keep=True) as flow:
            await flow.detach()
            failed = DetachedDirection(**{fault: errno.ECONNRESET})  # type: ignore[arg-type]
            flow.rests.append(Detached(from_client=failed, from_backend=DetachedDirection()))
            flow.go_on()
            assert flow.asked == ["abort"]
            assert (flow.blamed, flow.code) == (end, errno.ECONNRESET)
            assert await flow.client.was_reset()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Hook of pytest: the movers of each class."""
    if "kind" in metafunc.fixturenames:
        assert metafunc.cls is not None
        metafunc.parametrize("kind", metafunc.cls.KINDS)
