"""Connections that do nothing, and the backend that holds their other ends."""

from __future__ import annotations

import select
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from bench.wire.kernel import raise_descriptor_limit
from bench.wire.places import Place

_GREETING = b"!"


def reachable(descriptors: int, each: int = 2) -> int:
    """How many connections a proxy can hold, from the descriptors that it needs for each."""
    return max(1, (descriptors - 200) // each)


@contextmanager
def idle_connections(place: Place, wanted: int) -> Iterator[int]:
    """Open connections; each has certainly reached the backend.

    Yields how many the proxy took: it may run out of descriptors before.
    """
    opened: list[socket.socket] = []
    try:
        while len(opened) < wanted and (sock := _connection(place)):
            opened.append(sock)
        yield len(opened)
    finally:
        for sock in opened:
            sock.close()


def _connection(place: Place) -> socket.socket | None:
    """Open one connection at a time, so that accept queues do not matter."""
    sock = socket.create_connection(place, timeout=10)
    try:
        if sock.recv(1) == _GREETING:
            return sock
    except OSError:
        pass
    sock.close()
    return None


def hold(place: Place) -> None:
    """Greet and keep every connection until the other side closes it, until killed."""
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
                else:
                    held.pop(descriptor).close()


if __name__ == "__main__":
    hold(Place(sys.argv[1], int(sys.argv[2])))
