"""What a short connection costs the worker: a request, a reply, and both ends close.

Counted, not timed: calls of Python functions, system calls, and operations of the ring. What a
worker does once for a batch of events is left out, as many connections share it. If a change makes
a number smaller, write the smaller one here (docs/decisions/0027-short-connections.md).
"""

from __future__ import annotations

import select
import socket
import sys
from _socket import socket as Socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Final, NamedTuple

import uproxy
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


COSTS: Final = {"epoll": Cost(37, 15, 0), "ring": Cost(45.4, 8, 5.2)}
TOLERANCE: Final = 2
CONNECTIONS: Final = 60
_SOURCES: Final = str(Path(uproxy.__file__).parent)
_PER_BATCH: Final = frozenset(
    {
        "_dispatch", "_ready", "active", "submit_and_wait", "_reap", "enter", "enter_and_wait",
        "mark_submitted", "give_back_sent", "give_back", "_offer", "_epoll_ready", "_poll_epoll",
        "select", "call_soon", "call_at", "_set_alarm", "timeout_at", "due", "_wake", "_expire",
        "_timed", "guard", "call_later", "submit", "_enter", "_took", "address_of", "_run_deferred",
    }
)  # fmt: skip


class Counted:
    """What uproxy has called since it was installed."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.system_calls: Counter[str] = Counter()

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if not code.co_filename.startswith(_SOURCES):
            return
        if event == "call" and code.co_name not in _PER_BATCH:
            self.calls[code.co_qualname] += 1
        elif event == "c_call" and isinstance(
            getattr(argument, "__self__", None), Socket | select.epoll
        ):
            name = argument.__name__
            if name not in ("fileno", "poll"):
                self.system_calls[name] += 1


@contextmanager
def counted() -> Iterator[Counted]:
    counts = Counted()
    sys.setprofile(counts)
    try:
        yield counts
    finally:
        sys.setprofile(None)


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
