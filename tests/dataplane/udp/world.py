"""The UDP half of a worker, with backends and clients, over real sockets on loopback."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from uproxy.core.flows.counters import Counters, DropReason
from uproxy.core.route import (
    Backend,
    Frontend,
    FrontendKind,
    Route,
    ServicePortName,
)
from uproxy.dataplane.context import Context
from uproxy.dataplane.engine import choose_engine
from uproxy.dataplane.kernel import LINUX, Kernel
from uproxy.dataplane.locality import Locality
from uproxy.dataplane.udp.flow import UdpFlow
from uproxy.dataplane.udp.flows import UdpFlows
from uproxy.dataplane.udp.intake import NewIntake
from uproxy.dataplane.udp.listener import UdpListener
from uproxy.net.listening import open_listeners
from uproxy.net.messages import Settings

OWNER = ServicePortName("default", "dns", "dns", "UDP")
PATIENCE = 20.0
"""Seconds after which a condition that is still not met fails the test."""


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            if condition():
                return
            await asyncio.sleep(0.001)


def udp_socket(address: str = "127.0.0.1", port: int = 0) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.bind((address, port))
    return sock


class Client:
    def __init__(self, to: tuple[str, int], address: str = "127.0.0.1") -> None:
        self.to = to
        self.sock = udp_socket(address)

    def send(self, data: bytes, to: tuple[str, int] | None = None) -> None:
        self.sock.sendto(data, to or self.to)

    async def receive(self) -> tuple[bytes, tuple[str, int]]:
        """The next datagram, and its source."""
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    data, address = self.sock.recvfrom(65536)
                except BlockingIOError:
                    await asyncio.sleep(0.001)
                else:
                    return data, address[:2]

    async def ask(self, data: bytes, to: tuple[str, int] | None = None) -> bytes:
        self.send(data, to)
        answer, address = await self.receive()
        assert address == (to or self.to)
        return answer


class Server:
    """A backend: answers every datagram with its name and the same bytes, unless silent."""

    def __init__(self, name: bytes = b"", address: str = "127.0.0.1", port: int = 0) -> None:
        self.name = name
        self.silent = False
        self.received: list[tuple[bytes, tuple[str, int]]] = []
        self.sock = udp_socket(address, port)
        self.backend = Backend(*self.sock.getsockname()[:2])
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self.sock.fileno(), self._answer)

    def _answer(self) -> None:
        data, client = self.sock.recvfrom(65536)
        self.received.append((data, client))
        if not self.silent:
            self.sock.sendto(self.name + data, client)

    def close(self) -> None:
        if self.sock.fileno() >= 0:
            self._loop.remove_reader(self.sock.fileno())
            self.sock.close()


class OutsideLocality(Locality):
    """Takes loopback addresses for clients outside of the cluster, from which tests cannot send."""

    def is_local(self, client: str) -> bool:
        return False


class World:
    """The UDP half of a worker, with backends and clients."""

    def __init__(
        self, context: Context, new_intake: NewIntake, all_flows: UdpFlows | None = None
    ) -> None:
        self.reactor = context.reactor
        self.context = context
        self.new_intake = new_intake
        self.all_flows = UdpFlows(context) if all_flows is None else all_flows
        self.listeners: list[UdpListener] = []
        self.servers: list[Server] = []
        self.clients: list[Client] = []

    def server(self, name: bytes = b"", address: str = "127.0.0.1", port: int = 0) -> Server:
        self.servers.append(Server(name, address, port))
        return self.servers[-1]

    def client(self, listener: UdpListener, address: str = "127.0.0.1") -> Client:
        to = listener.route.frontend.address
        to = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(to, to)
        self.clients.append(Client((to, listener.route.frontend.port), address))
        return self.clients[-1]

    def listen(
        self, *backends: Backend, address: str = "127.0.0.1", affinity: int = 0
    ) -> UdpListener:
        (sock,) = open_listeners(Frontend("UDP", address, 0), 1)
        route = Route(
            frontend=Frontend("UDP", address, sock.getsockname()[1]),
            owner=OWNER,
            kind=FrontendKind.NODE_PORT,
            backends=backends,
            serving=backends,
            affinity_timeout=affinity,
        )
        return self.serve(sock, route)

    def serve(self, sock: socket.socket, route: Route) -> UdpListener:
        listener = UdpListener(self.context, self.all_flows, self.new_intake, sock, route)
        self.listeners.append(listener)
        return listener

    @property
    def counters(self) -> Counters:
        self.all_flows.collect()
        return self.context.ports.get(OWNER).counters

    def dropped(self, reason: DropReason) -> int:
        return self.counters.dropped.get(reason.value, 0)

    async def began(self, flows: int) -> None:
        """Wait until this many flows have begun."""
        await eventually(lambda: self.counters.flows == flows)

    def close(self) -> None:
        """Close everything but the reactor."""
        for listener in self.listeners:
            listener.close()
        self.all_flows.close()
        for server in self.servers:
            server.close()
        for client in self.clients:
            client.sock.close()


@asynccontextmanager
async def world(
    *,
    max_flows: int = 1000,
    udp_timeout: float = 60.0,
    outside: bool = False,
    kernel: Kernel = LINUX,
    all_flows: Callable[[Context], UdpFlows] = UdpFlows,
) -> AsyncIterator[World]:
    settings = Settings(
        worker=0,
        workers=1,
        max_flows=max_flows,
        udp_timeout=udp_timeout,
        tcp_idle_timeout=60.0,
        half_close_timeout=60.0,
    )
    engine = choose_engine(asyncio.get_running_loop(), kernel)
    context = Context(engine.reactor, settings, lambda: 0.5)
    if outside:
        context.locality = OutsideLocality()
    made = World(context, engine.new_intake, all_flows(context))
    try:
        yield made
    finally:
        made.close()
        engine.reactor.close()
    assert made.context.active == 0
    assert made.counters.active == 0
    assert made.reactor.failures == 0


def rerouted(
    listener: UdpListener, *backends: Backend, serving: tuple[Backend, ...] | None = None
) -> Route:
    """The listener's route with other backends, which also serve unless said otherwise."""
    old = listener.route
    return Route(
        frontend=old.frontend,
        owner=old.owner,
        kind=old.kind,
        backends=backends,
        serving=backends if serving is None else serving,
        affinity_timeout=old.affinity_timeout,
    )


def restricted(
    listener: UdpListener,
    *,
    local: tuple[Backend, ...] | None = None,
    sources: tuple[str, ...] | None = None,
) -> Route:
    old = listener.route
    return Route(
        frontend=old.frontend,
        owner=old.owner,
        kind=old.kind,
        backends=old.backends,
        serving=old.serving,
        local_backends=local,
        allowed_sources=sources,
    )


def unused_backend() -> Backend:
    """An address on which nothing listens: the kernel answers "port unreachable"."""
    sock = udp_socket()
    backend = Backend(*sock.getsockname())
    sock.close()
    return backend


def living_flows() -> int:
    return sum(isinstance(each, UdpFlow) for each in gc.get_objects())
