"""Listeners on real sockets: which frontends may share a port, and what workers are told."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from tests.ports import free_port
from uproxy.control.listeners import Listeners
from uproxy.core.route import Announced, Backend, Frontend, FrontendKind, Route, ServicePortName
from uproxy.net.listening import ListenError
from uproxy.net.messages import Open, ToWorker, Update
from uproxy.net.sockets import SocketCalls

SO_ATTACH_FILTER = 26
SO_ATTACH_REUSEPORT_CBPF = 51
OWNER = ServicePortName("default", "web", "", "TCP")


class RecordingWorkers:
    """A double of Workers, which records the messages."""

    def __init__(self, count: int = 2) -> None:
        self.count = count
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
    running = Listeners(RecordingWorkers(), grace=0.0)
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
    ("announced", "usable", "opens"),
    [
        pytest.param(Announced.L2, True, True, id="announced on a link"),
        pytest.param(Announced.L2, False, True, id="announced on a link, without backends"),
        pytest.param(Announced.ROUTES, False, True, id="by routes, which are not there now"),
        pytest.param(Announced.ROUTES, True, False, id="by routes, without the claim"),
        pytest.param(Announced.NEVER, True, False, id="not announced"),
    ],
)
def test_an_address_that_this_node_does_not_have(
    announced: Announced, usable: bool, opens: bool
) -> None:
    wanted = msgspec.structs.replace(route("192.0.2.77", free_port()), announced=announced)
    if not usable:
        wanted = msgspec.structs.replace(wanted, backends=())
    with listeners() as running:
        if opens:
            running.open(wanted)
            assert running.is_open(wanted.frontend)
        else:
            with pytest.raises(ListenError, match="is not on this node"):
                running.open(wanted)


def test_an_address_that_could_not_be_claimed_is_not_served_when_a_backend_comes() -> None:
    wanted = msgspec.structs.replace(route("192.0.2.77", free_port()), announced=Announced.ROUTES)
    with listeners() as running:
        running.open(msgspec.structs.replace(wanted, backends=()))
        with pytest.raises(ListenError) as refused:
            running.update(wanted)
        assert refused.value.absent
        assert running.actual([wanted.frontend])[wanted.frontend].paused


def test_an_address_that_was_claimed_is_served_when_a_backend_comes() -> None:
    wanted = msgspec.structs.replace(route("192.0.2.77", free_port()), announced=Announced.ROUTES)
    claimed: set[str] = set()
    running = Listeners(RecordingWorkers(), grace=0.0, claimed=claimed)
    running.open(msgspec.structs.replace(wanted, backends=()))
    claimed.add("192.0.2.77")
    running.update(wanted)
    assert not running.actual([wanted.frontend])[wanted.frontend].paused
    running.close_all(0.0)


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


@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
@pytest.mark.parametrize(
    ("workers", "refused", "expected"),
    [
        pytest.param(2, False, True, id="steered"),
        pytest.param(2, True, False, id="the kernel refuses"),
        pytest.param(1, True, True, id="there is only one worker to steer to"),
    ],
)
def test_workers_are_told_whether_clients_with_affinity_are_steered(
    workers: int, refused: bool, expected: bool, protocol: str
) -> None:
    told, sockets = RecordingWorkers(workers), FailingSockets()
    running = Listeners(told, grace=0.0, calls=SocketCalls(new_socket=sockets.new))
    sockets.failing = "steer" if refused else ""

    def said() -> set[tuple[str, bool]]:
        messages, told.messages = told.messages, []
        return {
            (type(each).__name__, each.steered)
            for each in messages
            if isinstance(each, Open | Update)
        }

    plain = msgspec.structs.replace(
        route("127.0.0.1", 0), frontend=Frontend(protocol, "127.0.0.1", free_port())
    )
    sticky = msgspec.structs.replace(plain, affinity_timeout=10)
    resumed = "Update" if protocol == "TCP" else "Open"
    try:
        running.open(plain)
        assert said() == {("Open", True)}
        running.update(sticky)
        assert said() == {("Update", expected)}
        assert {each.steered for each, _ in running.opens_for(0)} == {expected}
        running.update(plain)
        assert said() == {("Update", True)}
        running.update(msgspec.structs.replace(plain, backends=()))
        said()
        running.update(sticky)
        assert said() == {(resumed, expected)}
        running.close(plain.frontend)
        running.open(sticky)
        assert said() == {("Open", expected)}
    finally:
        running.close_all(0.0)


class Later:
    """Calls what was put off when the test says so."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []

    def __call__(self, delay: float, call: Callable[[], None]) -> Later:
        self.calls.append(call)
        return self

    def cancel(self) -> None:
        self.calls.clear()

    def run(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()


class FailingSockets:
    """Makes sockets of which some calls can be made to fail."""

    def __init__(self) -> None:
        self.failing = ""
        """"shutdown", "filter": attaching a socket filter, or "steer": attaching the program that
        chooses a worker. "": nothing fails."""

    def new(self, family: int, kind: int) -> socket.socket:
        return _Socket(self, family, kind)

    def check(self, call: str) -> None:
        if call == self.failing:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


class _Socket(socket.socket):
    def __init__(self, maker: FailingSockets, family: int, kind: int) -> None:
        super().__init__(family, kind)
        self._maker = maker

    def shutdown(self, how: int) -> None:
        self._maker.check("shutdown")
        super().shutdown(how)

    def setsockopt(self, *arguments: Any) -> None:
        if arguments[1] == SO_ATTACH_FILTER:
            self._maker.check("filter")
        if arguments[1] == SO_ATTACH_REUSEPORT_CBPF:
            self._maker.check("steer")
        super().setsockopt(*arguments)


class Pausing:
    """A listener whose only endpoint goes while a client waits to be accepted."""

    def __init__(self) -> None:
        self.later = Later()
        self.workers = RecordingWorkers()
        self.sockets = FailingSockets()
        self.listeners = Listeners(
            self.workers,
            grace=0.0,
            call_later=self.later,
            calls=SocketCalls(new_socket=self.sockets.new),
        )
        self.route = route("127.0.0.1", free_port())
        self.address = self.route.frontend.address, self.route.frontend.port
        self.listeners.open(self.route)
        self.client = socket.create_connection(self.address)
        self.client.settimeout(15)
        self.pause()

    def pause(self) -> None:
        self.listeners.update(msgspec.structs.replace(self.route, backends=()))

    def close(self) -> None:
        self.listeners.close_all(0.0)
        self.client.close()


@pytest.fixture
def pausing() -> Iterator[Pausing]:
    made = Pausing()
    yield made
    made.close()


class TestWhoWaitsToBeAccepted:
    def test_is_left_to_workers_that_know_of_the_pause(self, pausing: Pausing) -> None:
        told = [each for each in pausing.workers.messages if isinstance(each, Update)]
        assert len(told) == pausing.workers.count
        assert not told[-1].route.usable
        self.expect_waiting(pausing)

    def test_is_reset_if_they_take_too_long(self, pausing: Pausing) -> None:
        pausing.later.run()
        with pytest.raises(ConnectionResetError):
            pausing.client.recv(1)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(pausing.address)
        assert not pausing.later.calls

    def test_waits_on_when_the_listener_is_resumed(self, pausing: Pausing) -> None:
        pausing.listeners.update(pausing.route)
        pausing.later.run()
        self.expect_waiting(pausing)
        socket.create_connection(pausing.address).close()

    def test_is_reset_when_the_listener_is_closed(self, pausing: Pausing) -> None:
        pausing.listeners.close(pausing.route.frontend)
        assert not pausing.later.calls
        with pytest.raises(ConnectionResetError):
            pausing.client.recv(1)

    def test_a_pause_that_fails_is_tried_again(self, pausing: Pausing) -> None:
        pausing.sockets.failing = "shutdown"
        pausing.later.run()
        pausing.sockets.failing = ""
        self.expect_waiting(pausing)
        pausing.later.run()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(pausing.address)

    def test_kernels_that_cannot_ignore_new_clients_pause_at_once(self, pausing: Pausing) -> None:
        pausing.listeners.update(pausing.route)
        pausing.sockets.failing = "filter"
        pausing.pause()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(pausing.address)

    def test_stays_alone_before_all_is_closed(self, pausing: Pausing) -> None:
        """Nobody joins who waits while workers empty the queues."""
        pausing.listeners.update(pausing.route)
        asyncio.run(pausing.listeners.empty_queues())
        self.expect_waiting(pausing)
        with socket.socket() as newcomer:
            newcomer.setblocking(False)
            assert newcomer.connect_ex(pausing.address) == errno.EINPROGRESS
            pausing.listeners.close_all(0.0)
            assert select.select([], [newcomer], [], 15)[1]
            assert newcomer.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED

    def expect_waiting(self, pausing: Pausing) -> None:
        pausing.client.setblocking(False)
        with pytest.raises(BlockingIOError):
            pausing.client.recv(1)
