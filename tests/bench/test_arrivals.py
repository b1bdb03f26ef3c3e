"""Loads that are seldom: bursts, and a trickle over connections that are idle otherwise."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bench.wire import backends
from bench.wire.arrivals import latencies_of_trickle, one_burst
from bench.wire.idle import _connections, _held_by_backend, idle_connections
from bench.wire.measurements import latency_figures
from bench.wire.places import Place, free_place
from bench.wire.processes import Unavailable

COUNT = 50


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=COUNT) as listener:
        listener.settimeout(15)
        yield listener


def answer_all(listener: socket.socket, answer: bytes) -> None:
    """Take all connections before the first is answered: they come at once, or never will."""
    with ExitStack() as stack:
        taken = [stack.enter_context(listener.accept()[0]) for _ in range(COUNT)]
        for sock in taken:
            sock.recv(4096)
            if answer:
                sock.send(answer)


@pytest.mark.parametrize("answer", [b"ok", b""], ids=["answered", "closed"])
def test_burst(listener: socket.socket, answer: bytes) -> None:
    server = threading.Thread(target=answer_all, args=(listener, answer))
    server.start()
    try:
        if answer:
            found = one_burst(Place(*listener.getsockname()), COUNT)
            assert len(found) == COUNT
            assert min(found) > 0
        else:
            with pytest.raises(Unavailable, match="without an answer"):
                one_burst(Place(*listener.getsockname()), COUNT)
    finally:
        server.join()


def test_burst_that_is_refused() -> None:
    with pytest.raises(Unavailable, match="0 of 3 connections were answered"):
        one_burst(free_place(), 3)


def test_trickle_is_echoed(tmp_path: Path) -> None:
    with (
        backends.backends(["idle"], tmp_path) as (service,),
        idle_connections(service.backend, COUNT) as held,
    ):
        assert len(held) == COUNT
        assert len(latencies_of_trickle(held, 0.1)) == 50
        # The connections are held as before.
        assert len(latencies_of_trickle(held[:1], 0.01)) == 5


def test_figures() -> None:
    found = latency_figures([n / 1e6 for n in range(200, 0, -1)])
    assert found == pytest.approx({"p50": 101, "p99": 199})


def test_idle_connections_have_ended_at_the_backend_afterwards(tmp_path: Path) -> None:
    with backends.backends(["idle"], tmp_path) as (service,):
        for _ in range(2):
            with idle_connections(service.backend, COUNT):
                assert _held_by_backend(service.backend) >= COUNT
            assert _held_by_backend(service.backend) < COUNT


def test_connections_that_are_not_greeted_are_given_up(listener: socket.socket) -> None:
    def greet_some() -> None:
        with ExitStack() as stack:
            for number in range(40):
                sock = stack.enter_context(listener.accept()[0])
                if number < 35:
                    sock.send(b"!")

    server = threading.Thread(target=greet_some)
    server.start()
    with ExitStack() as stack:
        for greeted in (20, 15):
            held = _connections(Place(*listener.getsockname()), 20)
            for sock in held:
                stack.enter_context(sock)
            assert len(held) == greeted
    server.join()
