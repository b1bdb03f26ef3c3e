"""When the last ACK of the handshake with a backend is sent."""

from __future__ import annotations

from _socket import IPPROTO_TCP, TCP_QUICKACK
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from uproxy.core.flows.balancer import Balancer
from uproxy.core.route import ServicePortName
from uproxy.dataplane.ports import Port
from uproxy.dataplane.tcp.handshakes import PAUSE, Handshakes


class Clock:
    """The reactor's timers."""

    def __init__(self) -> None:
        self.due: list[Callable[[], None]] = []

    def call_later(self, delay: float, callback: Callable[[], None]) -> Any:
        self.due.append(callback)
        return SimpleNamespace(cancel=self.due.clear)

    def run(self) -> None:
        due, self.due = self.due, []
        for callback in due:
            callback()


class Flow:
    """A flow with its socket towards the backend."""

    def __init__(self, port: Port) -> None:
        self.port = port
        self.sock = self
        self.mover: Any = None
        self.options: list[int] = []

    def setsockopt(self, level: int, option: int, value: int) -> None:
        assert (level, option) == (IPPROTO_TCP, TCP_QUICKACK)
        self.options.append(value)

    def answered(self, *, said: int) -> None:
        self.mover = SimpleNamespace(from_client=SimpleNamespace(total=said))


class World:
    """Handshakes with backends of one Service port."""

    def __init__(self) -> None:
        name = ServicePortName("default", "web", "", "TCP")
        self.clock = Clock()
        self.port = Port(name, Balancer(random=lambda: 0.5))
        self.handshakes = Handshakes(cast("Any", self.clock))

    def dial(self) -> Flow:
        flow = Flow(self.port)
        self.handshakes.delay(cast("Any", flow), cast("Any", flow))
        return flow


@pytest.fixture
def world() -> World:
    return World()


def test_the_ack_goes_with_the_first_bytes_of_a_client(world: World) -> None:
    flow = world.dial()
    flow.answered(said=7)
    world.clock.run()
    assert flow.options == [0]
    assert not world.clock.due


def test_it_is_sent_without_them_when_the_timer_has_run_twice(world: World) -> None:
    flow = world.dial()
    flow.answered(said=0)
    world.clock.run()
    assert flow.options == [0]
    world.clock.run()
    assert flow.options == [0, 1]
    assert not world.clock.due


def test_a_backend_that_has_not_answered_yet_gets_it_at_once_later(world: World) -> None:
    flow = world.dial()
    world.clock.run()
    world.clock.run()
    assert flow.options == [0, 1]
    assert world.port.undelayed == 0, "that says nothing about its clients"


def test_a_port_whose_clients_wait_is_delayed_ever_more_rarely(world: World) -> None:
    delayed = []
    for number in range(5000):
        flow = world.dial()
        flow.answered(said=0)
        if flow.options:
            delayed.append(number)
        world.clock.run()
        world.clock.run()
    assert delayed[:6] == [0, 2, 5, 10, 19, 36]
    assert len(delayed) == 10 + 1 + (5000 - delayed[10]) // (PAUSE + 1)


def test_once_a_client_speaks_in_time_all_are_delayed_again(world: World) -> None:
    for said in (0, 0, 0, 7):
        while not (flow := world.dial()).options:
            pass
        flow.answered(said=said)
        world.clock.run()
        world.clock.run()
    assert (world.port.pause, world.port.undelayed) == (0, 0)


def test_a_flow_that_is_over_is_forgotten(world: World) -> None:
    flow = world.dial()
    world.handshakes.forget(cast("Any", flow), None)
    world.clock.run()
    world.clock.run()
    assert flow.options == [0]
    assert not world.clock.due


def test_nothing_is_sent_once_they_are_closed(world: World) -> None:
    flow = world.dial()
    world.handshakes.close()
    world.clock.run()
    assert flow.options == [0]
