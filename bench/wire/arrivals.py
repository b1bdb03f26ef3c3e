"""Loads that are seldom rather than heavy: what counts is how soon each is answered."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Sequence
from itertools import cycle, islice
from typing import Final

from bench.wire.places import Place
from bench.wire.processes import Unavailable

BURST: Final = 1000
"""Connections that come at once."""
_PAUSE = 0.5
"""Seconds without traffic before each burst."""
_PATIENCE = 15.0
_TALKING = 20
"""Of the idle connections, those that say something now and then."""
_EVERY = 0.002
"""Seconds between two messages of the trickle."""
_REQUEST: Final = b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"
_MESSAGE: Final = b"m" * 64


def latencies_of_bursts(place: Place, seconds: float) -> list[float]:
    """Bursts and pauses for so long, at least one of each. Returns the seconds from each attempt to
    connect to the answer."""
    found: list[float] = []
    end = time.monotonic() + seconds
    while True:
        time.sleep(_PAUSE)
        found += one_burst(place, BURST)
        if time.monotonic() > end:
            return found


def one_burst(place: Place, count: int) -> list[float]:
    """Connect all at once, and ask on each as soon as it is connected. Raises Unavailable."""
    asking: dict[int, tuple[socket.socket, float]] = {}
    found = []
    try:
        with select.epoll() as poll:
            for _ in range(count):
                sock, begin = socket.socket(), time.perf_counter()
                sock.setblocking(False)
                asking[sock.fileno()] = sock, begin
                sock.connect_ex(place)
                poll.register(sock, select.EPOLLOUT)
            while asking:
                for descriptor, events in poll.poll(_PATIENCE) or _silent():
                    sock, begin = asking[descriptor]
                    if events & select.EPOLLIN:
                        _check(sock.recv(4096))
                        found.append(time.perf_counter() - begin)
                        del asking[descriptor]
                        sock.close()
                    else:
                        sock.send(_REQUEST)
                        poll.modify(descriptor, select.EPOLLIN)
    except OSError as error:
        raise Unavailable(f"{len(found)} of {count} connections were answered: {error}") from None
    finally:
        for sock, _ in asking.values():
            sock.close()
    return found


def latencies_of_trickle(held: Sequence[socket.socket], seconds: float) -> list[float]:
    """A message now and then on some of the connections, each of which is echoed before the next.

    Returns the seconds until each echo.
    """
    found = []
    due = time.monotonic()
    messages = max(1, round(seconds / _EVERY))
    for sock in islice(cycle(held[:: max(1, len(held) // _TALKING)]), messages):
        time.sleep(max(0.0, due - time.monotonic()))
        due += _EVERY
        begin = time.perf_counter()
        sock.send(_MESSAGE)
        _check(sock.recv(4096))
        found.append(time.perf_counter() - begin)
    return found


def _check(answer: bytes) -> None:
    if not answer:
        raise Unavailable("a connection was closed without an answer")


def _silent() -> list[tuple[int, int]]:
    raise TimeoutError(f"nothing came for {_PATIENCE:.0f} s")
