"""A flow between real sockets, which a mover moves and the test owns."""

from __future__ import annotations

import asyncio
import socket
from _socket import socket as Socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal, cast, get_args

from tests.dataplane.peers import Peer, descriptors, eventually, pattern
from uproxy.dataplane.engine import choose_engine
from uproxy.dataplane.reactor import RingReactor
from uproxy.dataplane.tcp.mover import Detached, Mover
from uproxy.dataplane.tcp.movers import EpollMovers, Movers
from uproxy.dataplane.tcp.resets import reset

Kind = Literal["epoll", "splice", "ring", "ring with busy polling"]
Successor = Literal["epoll", "splice"]
End = Literal["client", "backend"]

ENDS = get_args(End)
SEND_BUFFER = 32 * 1024
"""Of the proxy's sockets: a slow receiver is met soon."""
TAIL = pattern(100_000, b"tail")


class Moved:
    """A flow: its four sockets, its mover, and what was sent and seen."""

    def __init__(self, movers: Movers, successors: Movers, *, keep: bool = False) -> None:
        self.ended = False
        self.asked: list[str] = []
        self.blamed = ""
        """The end whose socket was broken."""
        self.code: int | None = 0
        self.rests: list[Detached] = []
        """How the mover was detached."""
        self.keeps = keep
        """Whether nothing goes on by itself once the mover is detached."""
        self.successors = successors
        self.near_client, self.client = connected()
        self.near_backend, self.backend = connected()
        self.sent: dict[str, bytearray] = {"client": bytearray(), "backend": bytearray()}
        self.counted: dict[str, int] = dict.fromkeys(ENDS, 0)
        """Bytes, as the counters of a port would have them."""
        self.finished: list[str] = []
        self.mover: Mover = movers.new(self, self.near_backend)
        self.mover.start(self.near_client, self.near_backend)

    def peer(self, end: str) -> Peer:
        return self.client if end == "client" else self.backend

    async def send(self, end: str, data: bytes) -> None:
        self.sent[end] += data
        await self.peer(end).send(data)

    def finish_stream(self, end: str) -> None:
        self.finished.append(end)
        self.peer(end).finish()

    async def fill(self, end: str) -> None:
        """Send until the mover holds bytes that its receiver does not take."""
        sender, block = self.peer(end).sock, pattern(1 << 16, end.encode())

        def full() -> bool:
            try:
                while not self.stuck(end):
                    self.sent[end] += block[: sender.send(block)]
            except BlockingIOError:
                return self.stuck(end)
            return True

        await eventually(full)

    def stuck(self, end: str) -> bool:
        if self.rests:
            return True
        progress = self.mover.from_client if end == "client" else self.mover.from_backend
        return progress.pending > 0

    async def detach(self) -> Detached:
        """Detach it, if it has not done so itself."""
        if not self.rests:
            self.mover.detach()
        await eventually(lambda: bool(self.rests))
        return self.rests[-1]

    def go_on(self) -> None:
        """Continue by the successor."""
        successor = self.successors.successor(self)
        self.mover = successor
        successor.take_over(self.near_client, self.near_backend, self.rests[-1])

    async def check_all_arrives(self) -> None:
        """Send the rest both ways, and compare what arrives with all that was sent."""
        async with asyncio.TaskGroup() as group:
            arrived = {end: group.create_task(self.peer(end).rest()) for end in ENDS}
            for end in ENDS:
                if end not in self.finished:
                    group.create_task(self._send_tail(end))
        assert arrived["backend"].result() == bytes(self.sent["client"])
        assert arrived["client"].result() == bytes(self.sent["backend"])
        await eventually(lambda: self.asked == ["finish"])
        assert self.counted == {end: len(self.sent[end]) for end in ENDS}

    async def _send_tail(self, end: str) -> None:
        await self.send(end, TAIL)
        self.finish_stream(end)

    # What a mover asks of its owner.

    def finish(self) -> None:
        self._end("finish")
        self.near_client.close()
        self.near_backend.close()

    def abort(self, broken: Socket | None = None, code: int | None = 0) -> None:
        ends = {self.near_client: "client", self.near_backend: "backend", None: ""}
        self.blamed, self.code = ends[cast("socket.socket | None", broken)], code
        self._end("abort")
        reset(self.near_client)
        reset(self.near_backend)

    def replied(self, client_spoke: bool) -> None:
        pass

    def detached(self, rest: Detached) -> None:
        self.rests.append(rest)
        if not self.keeps:
            self.go_on()

    def _end(self, how: str) -> None:
        self.asked.append(how)
        self.ended = True
        self.count()
        self.let_go()

    def let_go(self) -> None:
        """As a flow does, before its sockets are closed."""
        for sock in (self.near_client, self.near_backend):
            self.successors.shared.reactor.discard(sock.fileno())
        self.mover.close()

    def count(self) -> None:
        """What the byte counters of a port are told."""
        self.counted["client"] += self.mover.from_client.unreported()
        self.counted["backend"] += self.mover.from_backend.unreported()

    def close(self) -> None:
        if not self.ended:
            self.ended = True
            self.let_go()
        for sock in (self.near_client, self.near_backend, self.client.sock, self.backend.sock):
            sock.close()


def connected() -> tuple[socket.socket, Peer]:
    """A connection: the proxy's end, as its listener or dialer would leave it, and the other."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        far = socket.create_connection(server.getsockname())
        near, _ = server.accept()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    near.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return near, Peer(far)


@asynccontextmanager
async def moved(
    kind: Kind, successor: Successor = "epoll", *, keep: bool = False
) -> AsyncIterator[Moved]:
    """A flow by that mover; after it nothing may be left or under way."""
    before = descriptors()
    engine = choose_engine(
        asyncio.get_running_loop(), splice="always" if kind == "splice" else "adaptive"
    )
    reactor = engine.reactor
    reactor.allow_busy_poll(kind == "ring with busy polling")
    movers = engine.movers if "ring" in kind else EpollMovers(reactor, _splice(kind))
    successors = EpollMovers(reactor, _splice(successor))
    flow = Moved(movers, successors, keep=keep)
    try:
        yield flow
    finally:
        flow.close()
        left = dict(reactor._callbacks)
        for each in (engine.movers, movers, successors):
            each.close()
        reactor.close()
        await asyncio.sleep(0)  # The ring lets go of what it was about to call.
    assert not left
    assert reactor.failures == 0
    assert not movers.shared.pipes.used
    assert not successors.shared.pipes.used
    if isinstance(reactor, RingReactor):
        assert not reactor.ring.buffers.sending
    assert descriptors() == before


def _splice(kind: str) -> Literal["always", "never"]:
    return "always" if kind == "splice" else "never"
