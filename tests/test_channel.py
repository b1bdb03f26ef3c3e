"""Messages and descriptors between the control process and a worker."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from uproxy.channel import (
    Channel,
    ChannelClosed,
    Close,
    Drained,
    FromWorker,
    Open,
    Ready,
    Report,
    ToWorker,
    Update,
)
from uproxy.core.counters import Counters
from uproxy.core.route import Backend, Frontend, FrontendKind, Route, ServicePortName

NAME = ServicePortName("default", "web", "http", "TCP")


def route(port: int, backends: int = 1) -> Route:
    return Route(
        frontend=Frontend("TCP", "127.0.0.1", port),
        owner=NAME,
        kind=FrontendKind.NODE_PORT,
        backends=tuple(Backend("127.0.0.1", 10000 + each) for each in range(backends)),
    )


Ends = tuple[Channel[FromWorker], Channel[ToWorker]]


@pytest.fixture
def ends() -> Iterator[Ends]:
    control, worker = socket.socketpair()
    one: Channel[FromWorker] = Channel(control, FromWorker)  # type: ignore[arg-type]
    other: Channel[ToWorker] = Channel(worker, ToWorker)  # type: ignore[arg-type]
    yield one, other
    one.close()
    other.close()


def receive_all(worker: Channel[ToWorker], control: Channel[FromWorker]) -> list[ToWorker]:
    """Alternate until everything that was sent has arrived; closes descriptors."""
    received = []
    while True:
        control.flush()
        messages = worker.receive()
        for message, descriptor in messages:
            received.append(message)
            if descriptor is not None:
                os.close(descriptor)
        if not messages and not control.wants_write:
            return received


def test_each_open_comes_with_its_own_descriptor(ends: Ends) -> None:
    control, worker = ends
    pairs = [socket.socketpair() for _ in range(3)]
    messages = [Open(route(1)), Update(route(9)), Open(route(2)), Open(route(3))]
    control.send(messages, [theirs for _, theirs in pairs])
    received = worker.receive()
    assert [message for message, _ in received] == messages
    assert received[1][1] is None
    descriptors = [number for message, number in received if isinstance(message, Open)]
    for index, (ours, _) in enumerate(pairs):
        number = descriptors[index]
        assert number is not None
        with ours, socket.socket(fileno=number) as theirs:
            theirs.send(b"%d" % index)
            assert ours.recv(8) == b"%d" % index


def test_more_descriptors_than_one_message_takes(ends: Ends) -> None:
    control, worker = ends
    with socket.socket() as sock:
        control.send(
            [Open(route(port)) for port in range(1, 500)], [sock.dup() for _ in range(499)]
        )
        received = receive_all(worker, control)
    assert [each.route.frontend.port for each in received if isinstance(each, Open)] == list(
        range(1, 500)
    )


def test_what_does_not_fit_waits_in_order(ends: Ends) -> None:
    control, worker = ends
    many = [Update(route(port, backends=2000)) for port in range(1, 60)]
    control.send(many[:30])
    control.send(many[30:])
    assert control.wants_write
    assert receive_all(worker, control) == many


def test_messages_to_the_control_process(ends: Ends) -> None:
    control, worker = ends
    report = Report([(NAME, Counters(flows=3, dropped={"dial_failed": 1}))], 3)
    worker.send([Ready(), report, Drained()])
    assert [message for message, _ in control.receive()] == [Ready(), report, Drained()]
    assert control.receive() == []


def test_the_end_comes_after_the_last_message(ends: Ends) -> None:
    control, worker = ends
    control.send([Close(route(1).frontend, 30.0)])
    control.close()
    assert [message for message, _ in worker.receive()] == [Close(route(1).frontend, 30.0)]
    with pytest.raises(ChannelClosed):
        worker.receive()
    with pytest.raises(ChannelClosed):
        worker.send([Ready()])


def test_nothing_leaks_when_it_closes_with_descriptors_on_the_way(ends: Ends) -> None:
    control, worker = ends
    before = len(os.listdir("/proc/self/fd"))
    control.send([Open(route(port, backends=2000)) for port in range(1, 50)], sockets(49))
    assert control.wants_write
    control.close()
    worker.close()
    assert len(os.listdir("/proc/self/fd")) == before - 2


def sockets(count: int) -> list[socket.socket]:
    return [socket.socket() for _ in range(count)]
