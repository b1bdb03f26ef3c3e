"""Clients and backends with real sockets, and the TCP flows of a worker between them."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import os
import resource
import select
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from tests.ports import free_port
from uproxy.core.flows.counters import Counters, DropReason
from uproxy.core.route import (
    Backend,
    BalancerKind,
    Frontend,
    FrontendKind,
    Route,
    ServicePortName,
)
from uproxy.dataplane.context import Context
from uproxy.dataplane.engine import choose_engine
from uproxy.dataplane.kernel import LINUX, Kernel
from uproxy.dataplane.tcp.epoll_direction import EpollDirection
from uproxy.dataplane.tcp.epoll_mover import EpollMover
from uproxy.dataplane.tcp.flow import Flow
from uproxy.dataplane.tcp.flows import TcpFlows
from uproxy.dataplane.tcp.listener import TcpListener
from uproxy.dataplane.tcp.pipes import Pipe
from uproxy.dataplane.tcp.ring_direction import RingDirection
from uproxy.dataplane.tcp.ring_mover import RingMover
from uproxy.dataplane.tcp.shared_buffers import SpliceMode
from uproxy.net.listening import open_listeners
from uproxy.net.messages import Settings

OWNER = ServicePortName("default", "web", "http", "TCP")
MIB = 1 << 20
PATIENCE = 20.0
"""Seconds until a condition counts as never met."""

_LINGER = struct.pack("ii", 1, 0)
_OF_FLOWS = Flow | EpollMover | EpollDirection | RingMover | RingDirection | Pipe


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def pattern(size: int, seed: bytes = b"") -> bytes:
    """Bytes in which no part looks like another."""
    return hashlib.shake_128(seed + str(size).encode()).digest(size)


class Peer:
    """A connected socket, of a client or of a backend."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._loop = asyncio.get_running_loop()

    async def send(self, data: bytes) -> None:
        await self._loop.sock_sendall(self.sock, data)

    async def receive(self, size: int) -> bytes:
        """Exactly so many bytes, or fewer at the end of the stream."""
        data = bytearray()
        while len(data) < size:
            part = await self._loop.sock_recv(self.sock, min(size - len(data), 1 << 20))
            if not part:
                break
            data += part
        return bytes(data)

    async def rest(self) -> bytes:
        """Everything until the end of the stream. Raises ConnectionResetError."""
        return await self.receive(1 << 40)

    async def digest(self) -> tuple[int, str]:
        """Length and hash of everything until the end of the stream."""
        buffer = bytearray(1 << 20)
        total, digest = 0, hashlib.sha256()
        while count := await self._loop.sock_recv_into(self.sock, buffer):
            total += count
            digest.update(memoryview(buffer)[:count])
        return total, digest.hexdigest()

    async def was_reset(self) -> bool:
        """Wait for the end of the stream, which must be either."""
        try:
            await self.rest()
        except ConnectionResetError:
            return True
        return False

    def finish(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
        self.sock.close()

    def close(self) -> None:
        self.sock.close()


class Server:
    """A backend that accepts when the test says so."""

    def __init__(self, host: str = "127.0.0.1", backlog: int = 100) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.sock = socket.create_server((host, 0), family=family, backlog=backlog)
        self.sock.setblocking(False)
        self.backend = Backend(host, self.sock.getsockname()[1])
        self.accepted: list[Peer] = []

    async def accept(self) -> Peer:
        sock, _ = await asyncio.get_running_loop().sock_accept(self.sock)
        self.accepted.append(Peer(sock))
        return self.accepted[-1]

    def accepts(self) -> bool:
        """Whether a connection waits."""
        return bool(select.select([self.sock], [], [], 0)[0])

    def has_client(self) -> bool:
        """Whether a connection waits, which is then closed."""
        try:
            sock, _ = self.sock.accept()
        except BlockingIOError:
            return False
        sock.close()
        return True

    def close(self) -> None:
        self.sock.close()
        for peer in self.accepted:
            peer.close()


class BlackHole(Server):
    """A backend that answers nothing: its queue is full, so the kernel drops every SYN."""

    def __init__(self) -> None:
        super().__init__(backlog=0)
        self._filler = socket.create_connection(self.backend)

    def recover(self) -> None:
        """Take the connection out of the queue."""
        sock, _ = self.sock.accept()
        sock.close()

    def close(self) -> None:
        self._filler.close()
        super().close()


def refusing() -> Backend:
    """A backend whose port has no listener."""
    server = Server()
    server.close()
    return server.backend


class World:
    """The TCP flows of a worker, with their clients and backends."""

    def __init__(self, splice: SpliceMode, kernel: Kernel, settings: dict[str, float]) -> None:
        merged = {"max_flows": 1000, "tcp_idle_timeout": 0.0, "half_close_timeout": 0.0} | settings
        self.engine = choose_engine(asyncio.get_running_loop(), kernel, splice=splice)
        self.reactor = self.engine.reactor
        self.context = Context(
            self.reactor,
            Settings(
                worker=0,
                workers=1,
                max_flows=int(merged["max_flows"]),
                udp_timeout=60.0,
                tcp_idle_timeout=merged["tcp_idle_timeout"],
                half_close_timeout=merged["half_close_timeout"],
                flow_log_every=int(merged.get("flow_log_every", 0)),
            ),
            lambda: 0.5,
        )
        self.flows = TcpFlows(self.context, self.engine.movers)
        self.servers: list[Server] = []
        self.clients: list[Peer] = []

    def server(self, host: str = "127.0.0.1") -> Server:
        self.servers.append(Server(host))
        return self.servers[-1]

    def black_hole(self) -> BlackHole:
        server = BlackHole()
        self.servers.append(server)
        return server

    def listen(
        self,
        *backends: Backend,
        host: str = "127.0.0.1",
        balancer: BalancerKind = BalancerKind.ROUND_ROBIN,
    ) -> TcpListener:
        # Not port 0: what the kernel chose is lost when a listener is paused.
        frontend = Frontend("TCP", host, free_port())
        (sock,) = open_listeners(frontend, 1)
        route = Route(
            frontend=frontend,
            owner=OWNER,
            kind=FrontendKind.NODE_PORT,
            backends=backends,
            balancer=balancer,
        )
        return TcpListener(self.context, self.flows, sock, route)

    def client(self, sock: socket.socket) -> Peer:
        self.clients.append(Peer(sock))
        return self.clients[-1]

    def connect(self, listener: TcpListener) -> Peer:
        """A client whose connection was completed by the kernel; the listener may not know yet."""
        frontend = listener.route.frontend
        return self.client(socket.create_connection((frontend.address, frontend.port)))

    async def pair(self) -> tuple[Peer, Peer]:
        """Both ends of a new flow: client and backend."""
        server = self.server()
        client = self.connect(self.listen(server.backend))
        return client, await server.accept()

    @property
    def counters(self) -> Counters:
        self.flows.collect()
        return self.context.ports.get(OWNER).counters

    def dropped(self, reason: DropReason) -> int:
        return self.counters.dropped.get(reason.value, 0)

    async def idle(self) -> None:
        """Wait until no flow is left."""
        await eventually(lambda: self.context.active == 0)

    def close(self) -> None:
        self.flows.close()
        self.reactor.close()
        for server in self.servers:
            server.close()
        for client in self.clients:
            client.close()


@asynccontextmanager
async def world(
    splice: SpliceMode = "adaptive", *, kernel: Kernel = LINUX, **settings: float
) -> AsyncIterator[World]:
    """A World; after it, nothing of it may be left: no flow, descriptor, pipe, cycle or bug."""
    before = descriptors()
    gc.collect()
    gc.disable()
    made = World(splice, kernel, settings)
    try:
        async with asyncio.timeout(3 * PATIENCE):
            yield made
        made.close()
        await asyncio.sleep(0)  # The ring lets go of what it was about to call.
        counters = made.counters
        assert made.reactor.failures == 0
        tallies = made.context.ports.get(OWNER).balancer.tallies.values()
        assert not any(each.active for each in tallies)
        assert (made.context.active, counters.active) == (0, 0)
        assert made.flows.movers.shared.pipes.used == 0
        assert descriptors() == before
        assert not [each for each in gc.get_objects() if isinstance(each, _OF_FLOWS)]
    finally:
        made.close()
        gc.enable()


async def fill(w: World, sender: Peer) -> int:
    """Send until nothing goes any more. The number of bytes sent."""
    sent = 0
    block = pattern(MIB)

    def full() -> bool:
        nonlocal sent
        try:
            sent += sender.sock.send(block)
        except BlockingIOError:
            return w.flows.pending > 0
        return False

    await eventually(full)
    return sent


def descriptors() -> dict[str, str]:
    """What is open, for comparison."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:  # The directory itself.
            continue
    return found


@contextmanager
def free_descriptors(count: int) -> Iterator[None]:
    """Leave this process so many descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = {int(name) for name in os.listdir("/proc/self/fd")}
    # The listing had a descriptor of its own.
    lowest = os.dup(0)
    os.close(lowest)
    used.discard(lowest)
    limit, free = 0, 0
    while free < count or limit in used:
        free += limit not in used
        limit += 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
