"""What a worker does with the messages of the control process, and what it reports."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
from msgspec.structs import replace

from tests.dataplane.peers import OWNER, Peer, Server, eventually
from tests.ports import free_port
from uproxy.core.ip import Family
from uproxy.core.protocols import SERVED
from uproxy.core.route import Backend, Frontend, FrontendKind, Route, ServicePortName
from uproxy.dataplane.context import Context
from uproxy.dataplane.engine import choose_engine
from uproxy.dataplane.return_paths import Probe
from uproxy.dataplane.tcp.listener import TcpListener
from uproxy.dataplane.worker import Worker
from uproxy.net.channel import Channel
from uproxy.net.listening import open_listeners
from uproxy.net.messages import (
    Close,
    Drain,
    Drained,
    FromWorker,
    LocalClients,
    Open,
    Report,
    Settings,
    ToWorker,
    Unserved,
    Update,
    Witness,
)

SETTINGS = Settings(
    worker=0,
    workers=1,
    max_flows=1000,
    udp_timeout=30.0,
    tcp_idle_timeout=0.0,
    half_close_timeout=0.0,
)


class ControlledWorker:
    """A worker, to which the test is the control process."""

    def __init__(self, settings: Settings = SETTINGS) -> None:
        ours, theirs = socket.socketpair()
        kind: type[FromWorker] = FromWorker  # type: ignore[assignment]
        other: type[ToWorker] = ToWorker  # type: ignore[assignment]
        self.channel = Channel(ours, kind)
        self.theirs = Channel(theirs, other)
        self.server = Server()
        engine = choose_engine(asyncio.get_running_loop())
        self.reactor = engine.reactor
        self.context = context = Context(self.reactor, settings, lambda: 0.5, 10000)
        self.worker = Worker(self.theirs, context, engine)
        self.sockets: list[socket.socket] = []

    def route(self, port: int, backend: Backend | None = None) -> Route:
        return Route(
            frontend=Frontend("TCP", "127.0.0.1", port),
            owner=OWNER,
            kind=FrontendKind.NODE_PORT,
            backends=(backend or self.server.backend,),
        )

    def open(self, route: Route) -> None:
        """Have it open a frontend. It may be called again, with the same socket."""
        if not self.sockets:
            self.sockets = open_listeners(route.frontend, 1)
        self.worker.handle(Open(route), os.dup(self.sockets[0].fileno()))

    def has_recorded(self, number: int) -> bool:
        return self.context.records.number == number

    def messages(self) -> list[FromWorker]:
        """What it reports now."""
        self.worker.report()
        return [message for message, _ in self.channel.receive()]

    async def connect(self, route: Route) -> tuple[Peer, Peer]:
        sock = socket.create_connection((route.frontend.address, route.frontend.port))
        client = Peer(sock)
        return client, await self.server.accept()

    def close(self) -> None:
        self.worker.close()
        self.reactor.close()
        self.server.close()
        self.channel.close()
        self.theirs.close()
        for sock in self.sockets:
            sock.close()


@asynccontextmanager
async def controlled_worker(settings: Settings = SETTINGS) -> AsyncIterator[ControlledWorker]:
    made = ControlledWorker(settings)
    try:
        yield made
    finally:
        made.close()
        await asyncio.sleep(0)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_a_frontend_without_its_socket_is_requested_less_and_less_often() -> None:
    async with controlled_worker() as made:
        lost = [made.route(1), made.route(2)]
        for each in lost:
            made.worker.handle(Open(each), None)
        asked = [
            number
            for number in range(100)
            for each in made.messages()
            if each == Unserved([route.frontend for route in lost])
        ]
        assert asked[:5] == [0, 1, 3, 7, 15]
        assert asked[-1] - asked[-2] == 16


async def test_it_is_requested_at_once_when_the_unserved_frontends_change() -> None:
    async with controlled_worker() as made:
        route = made.route(free_port())
        made.worker.handle(Open(made.route(1)), None)
        for _ in range(20):
            made.messages()
        made.worker.handle(Open(route), None)
        assert Unserved(sorted([made.route(1).frontend, route.frontend])) in made.messages()
        made.open(route)
        assert Unserved([made.route(1).frontend]) in made.messages()
        made.worker.handle(Close(made.route(1).frontend, 0.0), None)
        assert Unserved([]) in made.messages()
        assert not any(isinstance(each, Unserved) for _ in range(50) for each in made.messages())
        assert not made.worker.has_unserved


async def test_every_protocol_that_services_may_have_has_a_listener() -> None:
    async with controlled_worker() as made:
        assert set(made.worker._new_listener) == set(SERVED)


async def test_a_frontend_that_is_sent_twice_keeps_its_flows() -> None:
    """A frontend that was requested twice is sent twice."""
    async with controlled_worker() as made:
        route = made.route(free_port())
        made.open(route)
        client, backend = await made.connect(route)
        before = descriptors()
        made.open(route)
        assert descriptors() == before
        await client.send(b"still there")
        assert await backend.receive(11) == b"still there"
        client.close()
        backend.close()


async def test_a_frontend_that_is_sent_again_has_its_latest_route() -> None:
    async with controlled_worker() as made:
        route = made.route(free_port())
        other = Server()
        made.open(route)
        made.open(made.route(route.frontend.port, backend=other.backend))
        client = socket.create_connection((route.frontend.address, route.frontend.port))
        backend = await other.accept()
        client.sendall(b"to the latest")
        assert await backend.receive(13) == b"to the latest"
        client.close()
        backend.close()
        other.close()


async def test_a_message_that_fails_affects_no_other_and_is_requested_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with controlled_worker() as made:
        route = made.route(free_port())
        with open(os.devnull) as no_socket:  # noqa: ASYNC230
            number = os.dup(no_socket.fileno())
        before = descriptors()
        made.worker.handle(Open(made.route(1)), number)
        assert descriptors() == before - 1, "the descriptor that came with it is closed"
        made.open(route)
        assert Unserved([made.route(1).frontend]) in made.messages()
        assert "cannot handle the message Open" in caplog.text
        client, backend = await made.connect(route)
        client.close()
        backend.close()


async def test_an_update_that_fails_is_requested_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with controlled_worker() as made:
        route = made.route(free_port())
        made.open(route)
        listener = made.worker._listeners[route.frontend]

        def fail(_: Route) -> None:
            raise OSError("odd")

        with monkeypatch.context() as patch:
            patch.setattr(listener, "update", fail)
            made.worker.handle(Update(route), None)
        assert Unserved([route.frontend]) in made.messages()
        made.open(route)
        assert not made.worker.has_unserved
        client, backend = await made.connect(route)
        client.close()
        backend.close()


async def test_open_listeners_learn_in_which_families_client_addresses_are_preserved() -> None:
    async with controlled_worker() as made:
        local = (made.server.backend,)
        route = msgspec.structs.replace(
            made.route(free_port()), local_backends=local, preserves_outside=True
        )
        made.open(route)
        listener = made.worker._listeners[route.frontend]
        assert isinstance(listener, TcpListener)
        for families in (("IPv4",), (), ("IPv6", "IPv4")):
            made.worker.handle(LocalClients((), (), families), None)
            assert listener._preserves_outside == ("IPv4" in families)
        client, backend = await made.connect(route)
        client.close()
        backend.close()


async def test_what_goes_astray_is_reported_once_and_again_when_it_was_lifted() -> None:
    async with controlled_worker() as made:
        paths = made.worker._context.return_paths
        other = OWNER._replace(port="other")

        def find(owner: ServicePortName) -> None:
            pair = Witness("IPv4", owner, made.server.backend, "10.0.0.9")
            ports = made.worker._context.pod_ports
            probe = Probe(made.reactor, ports, [pair], lambda _: None, pair)
            probe.silent.append(pair)
            probe._backend_answered.add(pair)
            paths._probes[owner] = probe
            paths._decided(owner, probe)

        def tell(*astray: ServicePortName, families: tuple[Family, ...] = ()) -> None:
            made.worker.handle(LocalClients((), (), families, astray=astray), None)

        def reported() -> list[ServicePortName]:
            reports = [each for each in made.messages() if isinstance(each, Report)]
            return [each.port for report in reports for each in report.astray]

        find(OWNER)
        find(OWNER)
        assert (reported(), reported()) == ([OWNER], [])
        tell(OWNER)
        find(OWNER)
        find(other)
        assert paths.astray == {OWNER, other}
        # It is lifted before the other one is reported, which stays.
        tell()
        assert paths.astray == {other}
        assert reported() == [other]
        find(OWNER)
        assert reported() == [OWNER]
        # Another network: what was found in the old one is forgotten, reported or not.
        find(OWNER._replace(port="third"))
        tell(families=("IPv4",))
        assert paths.astray == set()
        assert reported() == []
        # What another worker has found counts here, and need not be reported.
        tell(other, families=("IPv4",))
        find(other)
        assert paths.astray == {other}
        assert reported() == []


async def test_there_is_a_sign_of_life_when_there_is_nothing_to_report() -> None:
    async with controlled_worker() as made:
        made.worker.handle(LocalClients((), ()), None)
        messages = [each for _ in range(10) for each in made.messages()]
        assert messages == [Report([], 0)] * 5


async def test_what_is_counted_while_nothing_is_read_waits_and_takes_no_memory() -> None:
    """As when the control process is stopped."""
    async with controlled_worker() as made:
        route = made.route(free_port())
        made.open(route)
        port = made.worker._context.ports.get(route.owner)
        for number in range(20000):
            port.counters.client_bytes = number
            made.worker.report()
        assert made.theirs.wants_write
        assert len(made.theirs._unsent) < 1000
        total = 0
        while messages := made.channel.receive():
            made.worker.report()
            for message, _ in messages:
                assert isinstance(message, Report)
                total += sum(counters.client_bytes for _, counters in message.ports)
        assert total == 19999


async def test_a_listener_that_is_opened_while_draining_accepts_no_client() -> None:
    async with controlled_worker() as made:
        made.worker.handle(Drain(), None)
        route = made.route(free_port())
        made.open(route)
        client = socket.create_connection((route.frontend.address, route.frontend.port))
        await asyncio.sleep(0.05)
        assert not made.server.has_client()
        client.close()


async def test_a_worker_says_once_that_it_has_drained() -> None:
    async with controlled_worker() as made:
        route = made.route(free_port())
        made.open(route)
        client, backend = await made.connect(route)
        made.worker.handle(Drain(), None)
        assert Drained() not in made.messages()
        client.close()
        backend.close()
        await eventually(lambda: made.worker._context.active == 0)
        messages = [each for _ in range(5) for each in made.messages()]
        assert messages.count(Drained()) == 1


async def test_ports_that_are_gone_are_forgotten_when_all_is_reported() -> None:
    async with controlled_worker() as made:
        route = made.route(free_port())
        made.open(route)
        client, backend = await made.connect(route)
        made.worker.handle(Close(route.frontend, 30.0), None)
        assert [each.ports[0][1].flows for each in made.messages() if isinstance(each, Report)] == [
            1
        ]
        assert made.messages() == []
        assert route.owner in made.worker._context.ports.all, "its flow goes on"
        client.close()
        backend.close()
        await eventually(lambda: made.worker._context.active == 0)
        for _ in range(3):
            made.messages()
        assert made.worker._context.ports.all == {}


async def test_affinity_knows_whether_clients_come_to_any_worker() -> None:
    """All frontends of a Service port share its pins."""
    async with controlled_worker() as made:
        route, other = made.route(free_port()), made.route(1)
        made.open(route)
        balancer = made.worker._context.ports.get(OWNER).balancer
        seen = [balancer.steered]

        def tell(message: ToWorker) -> None:
            made.worker.handle(message, None)
            seen.append(balancer.steered)

        tell(Update(route, steered=False))
        tell(LocalClients((), (), ("IPv4",)))
        tell(Update(route))
        assert seen == [True, False, False, True]
        with open_listeners(other.frontend._replace(port=free_port()), 1)[0] as sock:
            made.worker.handle(Open(other, steered=False), os.dup(sock.fileno()))
        tell(Update(route))
        assert not seen[-1], "clients of the other frontend are not steered"
        tell(Close(other.frontend, 0.0))
        tell(Update(route))
        assert seen[-1]


async def test_settings_that_come_again_are_for_flows_that_exist_too() -> None:
    """The configuration was reloaded."""
    async with controlled_worker() as made:
        route = made.route(free_port())
        made.open(route)
        client, backend = await made.connect(route)
        made.worker.handle(replace(SETTINGS, tcp_idle_timeout=0.1, max_flows=1), None)
        waiting = Peer(socket.create_connection((route.frontend.address, route.frontend.port)))
        assert await client.was_reset(), "without other settings it would never end"
        admitted = await made.server.accept()
        for peer in (client, backend, waiting, admitted):
            peer.close()
