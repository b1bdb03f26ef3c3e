"""Several datagrams of one flow at a time: they arrive as they were sent, whatever the kernel, the
clients and the backends make of them on the way."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from contextlib import suppress

import pytest

from tests.dataplane.udp.world import Client, Server, World, eventually, world
from tests.io_uring import on_ring_loops
from uproxy.dataplane.udp.listener import UdpListener
from uproxy.net.segments import merge_received, segments_of

_SO_NO_CHECK = 11

ADDRESSES = pytest.mark.parametrize(
    ("address", "backend"),
    [
        pytest.param("127.0.0.1", "127.0.0.1", id="one address"),
        pytest.param("0.0.0.0", "127.0.0.1", id="wildcard"),
        pytest.param("::", "::1", id="IPv6 wildcard"),
        pytest.param("::1", "::1", id="IPv6"),
    ],
)
BURSTS = pytest.mark.parametrize(
    "sizes",
    [
        pytest.param([1200] * 40, id="of one size"),
        pytest.param([1200] * 15 + [7], id="the last is shorter"),
        pytest.param([1200, 1200, 7, 1200, 1200, 0, 1200, 1300, 1300], id="of several sizes"),
        pytest.param([1] * 150, id="more than fit into a call"),
        pytest.param([9000] * 6, id="long"),
        pytest.param([40_000] * 3, id="two do not fit into a call"),
    ],
)


def burst(sizes: Sequence[int]) -> list[bytes]:
    """Datagrams of which no two are the same, if they have room for that."""
    return [(b"%05d" % number).ljust(size, b".")[:size] for number, size in enumerate(sizes)]


async def received(client: Client, count: int) -> list[bytes]:
    return [(await client.receive())[0] for _ in range(count)]


def served(w: World, address: str, backend: str) -> tuple[Server, UdpListener, Client]:
    """A backend that answers, a listener, and a client of it."""
    server = w.server(address=backend)
    listener = w.listen(server.backend, address=address)
    return server, listener, w.client(listener, "::1" if ":" in address else "127.0.0.1")


@ADDRESSES
@BURSTS
async def test_a_burst_arrives_as_it_was_sent(
    address: str, backend: str, sizes: Sequence[int]
) -> None:
    async with world() as w:
        server, _, client = served(w, address, backend)
        sent = burst(sizes)
        for _ in range(3):  # The second has segments that the first has shown to be possible.
            for data in sent:
                client.send(data)
            assert await received(client, len(sent)) == sent
        assert [data for data, _ in server.received] == sent * 3
        total = 3 * sum(map(len, sent))
        assert (w.counters.client_bytes, w.counters.backend_bytes) == (total, total)
        assert w.counters.client_datagrams == w.counters.backend_datagrams == 3 * len(sent)


@ADDRESSES
@pytest.mark.parametrize("last", [1200, 3])
async def test_what_was_sent_as_segments_arrives_as_datagrams(
    address: str, backend: str, last: int
) -> None:
    async with world() as w:
        server, listener, client = served(w, address, backend)
        sent = burst([1200] * 15 + [last])
        for _ in range(4):
            client.sock.sendmsg([b"".join(sent)], [segments_of(1200)], 0, client.to)
            assert await received(client, len(sent)) == sent
        assert [data for data, _ in server.received] == sent * 4
        server.silent = True
        for _ in range(4):
            to = server.received[0][1]
            server.sock.sendmsg([b"".join(sent)], [segments_of(1200)], 0, to)
            assert await received(client, len(sent)) == sent
        assert w.counters.client_datagrams == 4 * len(sent)
        assert w.counters.backend_datagrams == 8 * len(sent)
        assert len(listener.flows) == 1


@on_ring_loops
async def test_several_datagrams_leave_by_one_send() -> None:
    async with world() as w:
        server, _, client = served(w, "127.0.0.1", "127.0.0.1")
        assert await client.ask(b"is it alive?") == b"is it alive?"
        asyncio.get_running_loop().remove_reader(server.sock.fileno())
        merge_received(server.sock)
        messages: list[int] = []

        def have_come() -> bool:
            with suppress(BlockingIOError):
                while True:
                    messages.append(len(server.sock.recv(65536)))
            return sum(messages) == 24_000

        for _ in range(2):
            for data in burst([1200] * 10):
                client.send(data)
        await eventually(have_come)
        assert max(messages) > 1200


async def test_a_path_that_refuses_segments_gets_datagrams_one_at_a_time() -> None:
    async with world() as w:
        server, listener, client = served(w, "127.0.0.1", "127.0.0.1")
        # The kernel takes no segments on a socket that leaves out checksums (EINVAL).
        listener.sock.setsockopt(socket.SOL_SOCKET, _SO_NO_CHECK, 1)
        sent = burst([1200] * 20)
        for _ in range(3):
            for data in sent:
                client.send(data)
            assert await received(client, len(sent)) == sent
        assert [data for data, _ in server.received] == sent * 3
        assert w.counters.backend_datagrams == 60
        assert w.counters.dropped == {}


async def test_a_path_that_takes_no_segments_any_more() -> None:
    async with world() as w:
        _, listener, client = served(w, "127.0.0.1", "127.0.0.1")
        sent = burst([1200] * 20)
        for refuses in (0, 1):
            listener.sock.setsockopt(socket.SOL_SOCKET, _SO_NO_CHECK, refuses)
            for _ in range(2):
                for data in sent:
                    client.send(data)
                assert sorted(await received(client, len(sent))) == sent
        assert w.counters.backend_datagrams == 80
        assert w.counters.dropped == {}


async def test_a_burst_to_a_backend_that_refuses_goes_to_another() -> None:
    async with world() as w:
        gone, server = w.server(), w.server()
        gone.close()
        listener = w.listen(gone.backend, server.backend)
        client = w.client(listener)
        client.send(b"first")
        assert (await client.receive())[0] == b"first"
        sent = burst([1200] * 20)
        for data in sent:
            client.send(data)
        assert await received(client, len(sent)) == sent
        assert w.counters.client_datagrams == 21
