"""Connections that do nothing, and the backend that holds their other ends."""

from __future__ import annotations

import itertools
import select
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from bench.wire.kernel import raise_descriptor_limit
from bench.wire.places import Place

_GREETING = b"!"
_HOW_MANY = b"?"
_BATCH = 32
_PATIENCE = 10.0


def reachable(descriptors: int, each: int = 2) -> int:
    """How many connections a proxy can hold, from the descriptors that it needs for each."""
    return max(1, (descriptors - 200) // each)


def reachable_by_all(descriptors: int) -> int:
    """How many connections each of the peers can hold. uproxy keeps up to 768 descriptors for
    pipes, messages and listeners."""
    return reachable(descriptors - 600)


@contextmanager
def idle_connections(place: Place, wanted: int) -> Iterator[Sequence[socket.socket]]:
    """Open connections; each has certainly reached the backend.

    Yields those that the proxy took: it may run out of descriptors before. Afterwards it waits
    until they have ended at the backend. Otherwise the next peer would be measured while they are
    closed, and the backend, which has those of all peers, could run out of descriptors.
    """
    opened: list[socket.socket] = []
    try:
        while len(opened) < wanted:
            new = _connections(place, min(_BATCH, wanted - len(opened)))
            opened += new
            if not new:
                break
        yield opened
    finally:
        for sock in opened:
            sock.close()
        deadline = time.monotonic() + _PATIENCE
        while opened and _held_by_backend(place) > 1 and time.monotonic() < deadline:
            time.sleep(0.02)


def _connections(place: Place, count: int) -> list[socket.socket]:
    """Open a few at a time, so that accept queues do not matter; returns those that the backend
    greets."""
    opened = [socket.create_connection(place, timeout=_PATIENCE) for _ in range(count)]
    greeted = list(itertools.takewhile(_is_greeted, opened))
    for sock in opened[len(greeted) :]:
        sock.close()
    return greeted


def _held_by_backend(place: Place) -> int:
    """With the connection on which this is asked."""
    with socket.create_connection(place, timeout=_PATIENCE) as sock:
        sock.recv(1)
        sock.send(_HOW_MANY)
        return int(sock.recv(16) or 1)


def _is_greeted(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == _GREETING
    except OSError:
        return False


def hold(place: Place) -> None:
    """Greet and keep every connection until the other side closes it, and echo what comes, until
    killed. The question how many there are is answered instead."""
    raise_descriptor_limit()
    held: dict[int, socket.socket] = {}
    with socket.create_server(place, backlog=4096) as listener, select.epoll() as poll:
        poll.register(listener, select.EPOLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == listener.fileno():
                    sock, _ = listener.accept()
                    held[sock.fileno()] = sock
                    poll.register(sock, select.EPOLLIN)
                    sock.send(_GREETING)
                elif not _answered(held[descriptor], len(held)):
                    held.pop(descriptor).close()


def _answered(sock: socket.socket, held: int) -> bool:
    """Whether something came, which has then been answered; False at the end."""
    try:
        came = sock.recv(4096)
        sock.send(str(held).encode() if came == _HOW_MANY else came)
    except ConnectionError:
        return False
    return bool(came)


if __name__ == "__main__":
    hold(Place(sys.argv[1], int(sys.argv[2])))
