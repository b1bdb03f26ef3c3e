"""What is still worth telling to a worker that did not listen."""

from __future__ import annotations

import socket

import pytest

from uproxy.control.workers.outbox import Outbox
from uproxy.core.route import Backend, Frontend, FrontendKind, Route, ServicePortName
from uproxy.net.messages import Close, Drain, LocalClients, Open, ToWorker, Update


def route(port: int = 80, backend: int = 1) -> Route:
    return Route(
        frontend=Frontend("TCP", "127.0.0.1", port),
        owner=ServicePortName("default", "web", "http", "TCP"),
        kind=FrontendKind.NODE_PORT,
        backends=(Backend("10.0.0.1", backend),),
    )


def close(port: int = 80, grace: float = 30) -> Close:
    return Close(route(port).frontend, grace)


@pytest.mark.parametrize(
    ("said", "left"),
    [
        pytest.param([Open(route())], [Open(route())], id="open"),
        pytest.param(
            [Open(route()), Update(route(backend=2))],
            [Open(route(backend=2))],
            id="opened by its latest route",
        ),
        pytest.param(
            [Open(route(), steered=True), Update(route(backend=2), steered=False)],
            [Open(route(backend=2), steered=False)],
            id="opened with what is known of its clients by now",
        ),
        pytest.param(
            [Update(route(backend=2)), Update(route(backend=3))],
            [Update(route(backend=3))],
            id="the last of many updates",
        ),
        pytest.param(
            [Update(route(1)), Update(route(2)), Update(route(1, backend=2))],
            [Update(route(1, backend=2)), Update(route(2))],
            id="others are not concerned",
        ),
        pytest.param([Update(route()), close()], [close()], id="closed"),
        pytest.param(
            [close(grace=1), Open(route()), Update(route(backend=2))],
            [close(grace=1), Open(route(backend=2))],
            id="closed, and opened again",
        ),
        pytest.param(
            [close(grace=1), Open(route()), close(grace=2)],
            [close(grace=1)],
            id="what it never heard of need not be closed",
        ),
        pytest.param(
            [close(grace=1), Open(route()), close(grace=2), Open(route(backend=2))],
            [close(grace=1), Open(route(backend=2))],
            id="closed and opened, twice",
        ),
        pytest.param(
            [LocalClients(("1",), ()), Update(route()), LocalClients(("2",), ()), Drain()],
            [LocalClients(("2",), ()), Update(route()), Drain()],
            id="of the rest the latest",
        ),
    ],
)
def test_what_is_left(said: list[ToWorker], left: list[ToWorker]) -> None:
    outbox = Outbox()
    with socket.socket() as sock:
        for message in said:
            outbox.put(message, sock if isinstance(message, Open) else None)
        assert [message for message, _ in outbox.messages] == left
        opening = {bool(each) for message, each in outbox.messages if isinstance(message, Open)}
        assert opening <= {True}


def test_no_more_than_two_messages_for_a_frontend_however_often_it_changes() -> None:
    outbox = Outbox()
    with socket.socket() as sock:
        for number in range(1000):
            outbox.put(close(grace=number))
            outbox.put(Open(route(backend=number % 1000)), sock)
            outbox.put(Update(route(backend=number % 1000)))
            outbox.put(LocalClients((str(number),), ()))
    assert len(outbox) == 3


def test_what_was_taken_is_told_again_when_it_changes_again() -> None:
    outbox = Outbox()
    for message in (Update(route(1)), Update(route(2)), Update(route(3))):
        outbox.put(message)
    outbox.taken(2)
    outbox.put(Update(route(1, backend=2)))
    assert [message for message, _ in outbox.messages] == [
        Update(route(3)),
        Update(route(1, backend=2)),
    ]
