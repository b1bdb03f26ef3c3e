"""Listeners on real sockets: which frontends may share a port, and what workers are told."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.ports import free_port
from uproxy.channel import ToWorker
from uproxy.core.route import Backend, Frontend, FrontendKind, Route, ServicePortName
from uproxy.listeners import Listeners
from uproxy.sockets import ListenError

OWNER = ServicePortName("default", "web", "", "TCP")


class Told:
    """Workers that remember what they were told."""

    count = 2

    def __init__(self) -> None:
        self.messages: list[ToWorker] = []

    def send(self, worker: int, message: ToWorker, sock: socket.socket | None = None) -> None:
        self.messages.append(message)


def route(address: str, port: int) -> Route:
    return Route(
        frontend=Frontend("TCP", address, port),
        owner=OWNER,
        kind=FrontendKind.CLUSTER_IP,
        backends=(Backend("127.0.0.1", 1),),
    )


@contextmanager
def listeners() -> Iterator[Listeners]:
    running = Listeners(Told(), grace=0.0)
    try:
        yield running
    finally:
        running.close_all(0.0)


@pytest.mark.parametrize(
    "addresses",
    [
        pytest.param(("0.0.0.0", "127.0.0.1"), id="wildcard first"),
        pytest.param(("127.0.0.1", "0.0.0.0"), id="wildcard last"),
        pytest.param(("127.0.0.1", "127.0.0.2"), id="two addresses"),
        pytest.param(("127.0.0.1", "127.0.0.2", "0.0.0.0"), id="wildcard over two addresses"),
        pytest.param(("0.0.0.0", "::1"), id="two families"),
        pytest.param(("::", "127.0.0.1"), id="wildcard of another family"),
    ],
)
def test_frontends_of_ours_share_a_port(addresses: tuple[str, ...]) -> None:
    port = free_port()
    with listeners() as running:
        for address in addresses:
            running.open(route(address, port))
            assert running.is_open(Frontend("TCP", address, port))
        running.close(Frontend("TCP", addresses[0], port))
        assert not running.is_open(Frontend("TCP", addresses[0], port))
        running.open(route(addresses[0], port))


@pytest.mark.parametrize(
    ("ours", "theirs", "wanted"),
    [
        pytest.param("127.0.0.1", "127.0.0.2", "127.0.0.2", id="beside an address of ours"),
        pytest.param("::1", "127.0.0.2", "127.0.0.2", id="beside another family of ours"),
        pytest.param("::1", "127.0.0.2", "0.0.0.0", id="wildcard"),
    ],
)
def test_a_port_of_somebody_else_is_noticed(ours: str, theirs: str, wanted: str) -> None:
    with socket.create_server((theirs, 0)) as other, listeners() as running:
        port = other.getsockname()[1]
        running.open(route(ours, port))
        with pytest.raises(ListenError, match="already in use"):
            running.open(route(wanted, port))
        assert not running.is_open(Frontend("TCP", wanted, port))
