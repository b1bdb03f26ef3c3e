"""The work that each revision gets: short bursts, each with a known number of operations.

Bursts are short, so that what else happens on the machine affects both revisions of a pair alike.
The generator is one thread of Python: it never asks for more than the worker can do, so its own
speed does not decide what a burst costs the worker.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Final, NamedTuple

from bench.wire.backends import BODY
from bench.wire.places import Place
from bench.wire.processes import Unavailable
from bench.wire.udp_load import OnceLoad, UdpLoad, sources_on_loopback

Burst = Callable[[], float]
"""Does the work, and returns how many operations it was."""

_PATIENCE = 15.0
_WIDTH = 64
"""Connections at a time."""
_CONNECTIONS = 4 * _WIDTH
_REQUESTS = 16
"""Requests on each of the connections that stay open."""
_BULK = 8
_UDP_FLOWS = 50
_UDP_SECONDS = 0.05
_GET = b"GET %s HTTP/1.1\r\nHost: bench\r\n%s\r\n"
_END_OF_HEAD = b"\r\n\r\n"
_CLOSING = _GET % (b"/", b"Connection: close\r\n")
_STAYING = _GET % (b"/", b"")
_BIG = _GET % (b"/big", b"")


@contextmanager
def connections(places: Mapping[str, Place]) -> Iterator[Burst]:
    """A connection for each request, 64 at a time."""
    place = places["http"]

    def burst() -> float:
        for _ in range(_CONNECTIONS // _WIDTH):
            _ask_once(place)
        return _CONNECTIONS

    yield burst


@contextmanager
def keep_alive(places: Mapping[str, Place]) -> Iterator[Burst]:
    """Requests over 64 connections that stay open."""
    with _opened(places["http"], _WIDTH) as held:

        def burst() -> float:
            for _ in range(_REQUESTS):
                for sock in held:
                    sock.send(_STAYING)
                for sock in held:
                    if not sock.recv(4096):
                        raise Unavailable("a connection was closed")
            return _REQUESTS * _WIDTH

        yield burst


@contextmanager
def bulk(places: Mapping[str, Place]) -> Iterator[Burst]:
    """Bodies of 10 MB over 8 connections; an operation is a megabyte."""
    buffer = bytearray(1 << 20)
    with _opened(places["http"], _BULK) as held:

        def burst() -> float:
            return sum(_receive_bodies(held, buffer)) / 1e6

        yield burst


@contextmanager
def datagrams(places: Mapping[str, Place]) -> Iterator[Burst]:
    """Datagrams of 64 bytes and their echoes in 50 flows, 128 in flight."""
    load = UdpLoad(places["udp"], sources_on_loopback(_UDP_FLOWS), 0)
    try:
        load.begin_flows()
        yield lambda: load.run(_UDP_SECONDS).received
    finally:
        load.close()


@contextmanager
def flows(places: Mapping[str, Place]) -> Iterator[Burst]:
    """The same with a flow for each datagram, as DNS clients have. After some bursts, each new flow
    displaces another one, as there are more of them in 30 seconds than a worker may have."""
    load = OnceLoad(places["udp"], 0)
    try:
        yield lambda: load.run(_UDP_SECONDS).received
    finally:
        load.close()


class Load(NamedTuple):
    """One kind of work."""

    begin: Callable[[Mapping[str, Place]], AbstractContextManager[Burst]]
    unit: str
    """The unit of its cost."""


LOADS: Final[Mapping[str, Load]] = {
    "connections": Load(connections, "us/conn"),
    "keep-alive-64": Load(keep_alive, "us/req"),
    "bulk-8": Load(bulk, "us/MB"),
    "udp-50": Load(datagrams, "us/echo"),
    "udp-once": Load(flows, "us/flow"),
}


@contextmanager
def _opened(place: Place, count: int) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        yield [
            stack.enter_context(socket.create_connection(place, _PATIENCE)) for _ in range(count)
        ]


def _ask_once(place: Place) -> None:
    """A request on each of 64 new connections, and all that comes until they are closed."""
    with _opened(place, _WIDTH) as asking:
        for sock in asking:
            sock.send(_CLOSING)
        for sock in asking:
            if not sock.recv(4096):
                raise Unavailable("a connection was closed without an answer")
            while sock.recv(4096):
                pass


def _receive_bodies(held: list[socket.socket], buffer: bytearray) -> Iterator[int]:
    """Ask for one on each connection, and read them as they come. Yields their sizes."""
    by_number = {sock.fileno(): sock for sock in held}
    missing = {}
    with select.epoll() as poll:
        for sock in held:
            sock.send(_BIG)
        for number, sock in by_number.items():
            _skip_head(sock)
            missing[number] = BODY
            poll.register(number, select.EPOLLIN)
        while missing:
            for number, _ in poll.poll(_PATIENCE) or _silent():
                size = by_number[number].recv_into(buffer) or len(_closed())
                missing[number] -= size
                if not missing[number]:
                    del missing[number]
                    poll.unregister(number)
                yield size


def _skip_head(sock: socket.socket) -> None:
    """It may not have come in full yet, and what follows it is not to be taken."""
    while (end := sock.recv(4096, socket.MSG_PEEK).find(_END_OF_HEAD)) < 0:
        pass
    sock.recv(end + len(_END_OF_HEAD))


def _closed() -> bytes:
    raise Unavailable("a connection was closed within an answer")


def _silent() -> list[tuple[int, int]]:
    raise Unavailable(f"nothing came for {_PATIENCE:.0f} s")
