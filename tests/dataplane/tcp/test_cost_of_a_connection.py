"""What a short connection costs the worker: a request, a reply, and both ends close.

Counted, not timed: calls of Python functions, system calls, and operations of the ring. What a
worker does once for a batch of events is left out, as many connections share it. If a change makes
a number smaller, write the smaller one here (docs/decisions/0027-short-connections.md).
"""

from __future__ import annotations

import select
import socket
from contextlib import suppress
from functools import partial
from typing import Final, NamedTuple

from tests.dataplane.counted_calls import counted
from tests.dataplane.peers import PATIENCE, Server, World, eventually, world
from uproxy.dataplane.reactor import RingReactor
from uproxy.dataplane.tcp.listener import TcpListener


class Cost(NamedTuple):
    """Of one connection."""

    calls: float
    """Of functions of uproxy."""
    system_calls: float
    """By methods of sockets and of the epoll."""
    operations: float
    """That were queued for the ring."""


COSTS: Final = {"epoll": Cost(38, 16, 0), "ring": Cost(46.4, 9, 5.2)}
TOLERANCE: Final = 2
CONNECTIONS: Final = 60


async def exchange(w: World, listener: TcpListener, server: Server) -> None:
    """Short connections, step by step at the same time. Each reply comes together with its end."""
    clients = [w.connect(listener) for _ in range(CONNECTIONS)]
    for client in clients:
        client.sock.send(b"request")
    backends: list[socket.socket] = []

    def accepted() -> bool:
        with suppress(BlockingIOError):
            while True:
                backends.append(server.sock.accept()[0])
        return len(backends) == CONNECTIONS

    await eventually(accepted)
    for backend in backends:
        backend.settimeout(PATIENCE)
        await eventually(partial(_is_readable, backend))
        assert backend.recv(8) == b"request"
    for backend in backends:
        backend.send(b"reply")
        backend.close()
    for client in clients:
        assert await client.rest() == b"reply"
    for client in clients:
        client.close()
    await w.idle()


def _is_readable(sock: socket.socket) -> bool:
    return bool(select.select([sock], [], [], 0)[0])


async def test_a_short_connection_takes_no_more_steps_than_before() -> None:
    async with world() as w:
        server = w.server()
        listener = w.listen(server.backend)
        # What is made for the first ones, and how many to accept at a time.
        await exchange(w, listener, server)
        # As for most backends: their ports are lower than those that the kernel chooses.
        w.context.locality.lowest_local_port = 65536
        reactor = w.reactor
        ring = reactor.ring if isinstance(reactor, RingReactor) else None
        queued = ring._sq_tail if ring is not None else 0
        with counted() as counts:
            await exchange(w, listener, server)
        queued = ring._sq_tail - queued if ring is not None else 0
        cost = Cost(
            counts.calls.total() / CONNECTIONS,
            counts.system_calls.total() / CONNECTIONS,
            queued / CONNECTIONS,
        )
        expected = COSTS["ring" if ring is not None else "epoll"]
        assert cost.calls < expected.calls + TOLERANCE, (cost, counts.calls)
        assert cost.system_calls < expected.system_calls + 1, (cost, counts.system_calls)
        assert cost.operations < expected.operations + 1, cost
