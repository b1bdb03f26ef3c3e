"""How the PROXY header gets to backends."""

from __future__ import annotations

import socket
from _socket import socket as Socket
from functools import partial
from typing import Any

import msgspec
import pytest

from tests.dataplane.peers import Peer, eventually, refusing, world
from tests.dataplane.tcp.proxy_header import V1, V2, Decoded, decode
from uproxy.core.route import ProxyProtocol
from uproxy.dataplane.kernel import Kernel
from uproxy.dataplane.reactor import RingReactor
from uproxy.dataplane.tcp.listener import TcpListener
from uproxy.dataplane.tcp.proxy_protocol import SIGNATURE, End, header


def announce(listener: TcpListener, version: ProxyProtocol | None) -> None:
    """Give new flows of a listener a header."""
    listener.update(msgspec.structs.replace(listener.route, proxy_protocol=version))


async def received(version: ProxyProtocol, backend: Peer, rest: int) -> Decoded:
    """The header and so many bytes after it."""
    start = await backend.receive(16)
    if version is V2:
        return decode(version, start + await backend.receive(start[15] + rest))
    while not start.endswith(b"\r\n"):
        start += await backend.receive(1)
    return decode(version, start + await backend.receive(rest))


def ends(client: Peer) -> tuple[End, End]:
    return client.sock.getsockname()[:2], client.sock.getpeername()[:2]


@pytest.mark.parametrize("version", [V1, V2])
class TestFlows:
    @pytest.mark.parametrize("host", ["127.0.0.1", "::1", "0.0.0.0", "::"])
    async def test_before_the_first_byte_of_the_client(
        self, version: ProxyProtocol, host: str
    ) -> None:
        async with world() as w:
            server = w.server()
            listener = w.listen(server.backend, host=host)
            announce(listener, version)
            address = {"0.0.0.0": "127.0.0.5", "::": "::1"}.get(host, host)
            frontend = listener.route.frontend
            client = w.client(socket.create_connection((address, frontend.port)))
            await client.send(b"hello")
            backend = await server.accept()
            assert await received(version, backend, 5) == Decoded(*ends(client), b"hello")
            assert ends(client)[1] == (address, frontend.port)
            await backend.send(b"hi")
            assert await client.receive(2) == b"hi"
            assert (w.counters.client_bytes, w.counters.backend_bytes) == (5, 2)
            client.finish()
            assert await backend.rest() == b""

    @pytest.mark.parametrize(("frontend", "backend"), [("127.0.0.1", "::1"), ("::1", "127.0.0.1")])
    async def test_the_backend_may_be_of_the_other_family(
        self, version: ProxyProtocol, frontend: str, backend: str
    ) -> None:
        async with world() as w:
            server = w.server(backend)
            listener = w.listen(server.backend, host=frontend)
            announce(listener, version)
            client = w.connect(listener)
            found = await received(version, await server.accept(), 0)
            assert found == Decoded(*ends(client), b"")

    async def test_a_client_that_says_nothing_is_announced_too(
        self, version: ProxyProtocol
    ) -> None:
        """Servers that speak first wait for the header."""
        async with world() as w:
            server = w.server()
            listener = w.listen(server.backend)
            announce(listener, version)
            client = w.connect(listener)
            backend = await server.accept()
            assert await received(version, backend, 0) == Decoded(*ends(client), b"")
            await backend.send(b"220 ready")
            backend.finish()
            assert await client.rest() == b"220 ready"

    async def test_each_attempt_begins_with_it(self, version: ProxyProtocol) -> None:
        async with world() as w:
            hole, server = w.black_hole(), w.server()
            listener = w.listen(refusing(), hole.backend, server.backend)
            announce(listener, version)
            client = w.connect(listener)
            await client.send(b"x")
            backend = await server.accept()
            assert await received(version, backend, 1) == Decoded(*ends(client), b"x")
            assert (w.counters.dial_failures, w.counters.retries) == (2, 2)

    async def test_client_that_is_gone_when_the_backend_answers(
        self, version: ProxyProtocol
    ) -> None:
        """Its port cannot be found out any more, and what it sent must not pass for the proxy's."""
        async with world() as w:
            server = w.server()
            listener = w.listen(server.backend)
            announce(listener, version)
            client = w.connect(listener)
            await client.send(b"secret")
            client.reset()
            await eventually(lambda: w.counters.flows == 1)
            await w.idle()
            # With a ring the handshake is not completed before there is something to say, and need
            # not be; without one it always is.
            if not isinstance(w.reactor, RingReactor) or server.accepts():
                assert await (await server.accept()).was_reset()

    async def test_flows_keep_what_they_began_with(self, version: ProxyProtocol) -> None:
        async with world() as w:
            server = w.server()
            listener = w.listen(server.backend)
            before = w.connect(listener)
            plain = await server.accept()
            announce(listener, version)
            after = w.connect(listener)
            announced = await server.accept()
            announce(listener, None)
            for client in (before, after):
                await client.send(b"x")
            assert await plain.receive(1) == b"x"
            assert await received(version, announced, 1) == Decoded(*ends(after), b"x")
            w.connect(listener).finish()
            assert await (await server.accept()).rest() == b""


class Reluctant(Socket):
    """A socket towards a backend that takes 5 bytes, then nothing, then all: as one whose kernel
    is short of memory."""

    calls = 0

    def send(self, data: Any, flags: int = 0) -> int:
        Reluctant.calls += 1
        if Reluctant.calls == 2:
            raise BlockingIOError
        return super().send(data[:5] if Reluctant.calls == 1 else data, flags)


class Broken(Socket):
    """Takes 5 bytes, then fails: the first one that is made."""

    first: Broken | None = None
    port = 0
    """Where that one went."""

    def send(self, data: Any, flags: int = 0) -> int:
        if Broken.first is None:
            Broken.first = self
            Broken.port = self.getpeername()[1]
            return super().send(data[:5], flags)
        if Broken.first is self:
            raise BrokenPipeError
        return super().send(data, flags)


def called(times: int) -> bool:
    return Reluctant.calls >= times


class TestPartialHeader:
    @pytest.mark.parametrize("version", [V1, V2])
    async def test_the_rest_follows(
        self, version: ProxyProtocol, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What the backend sends meanwhile is not forgotten, and the client waits its turn."""
        monkeypatch.setattr(Reluctant, "calls", 0)
        async with world(kernel=Kernel(new_socket=Reluctant)) as w:
            server = w.server()
            listener = w.listen(server.backend)
            announce(listener, version)
            client = w.connect(listener)
            await client.send(b"hello")
            backend = await server.accept()
            part = await backend.receive(5)
            # Each of these is an event for the flow, which tries again.
            for number, text in ((2, b"a"), (3, b"b")):
                await backend.send(text)
                await eventually(partial(called, number))
            whole = part + await backend.receive(_length(version, client) - 5 + 5)
            assert decode(version, whole) == Decoded(*ends(client), b"hello")
            assert await client.receive(2) == b"ab"
            assert w.counters.client_bytes == 5

    async def test_an_attempt_that_fails_meanwhile(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing of the client was lost, so another backend gets it all."""
        monkeypatch.setattr(Broken, "first", None)
        async with world(kernel=Kernel(new_socket=Broken)) as w:
            servers = w.server(), w.server()
            listener = w.listen(*(each.backend for each in servers))
            announce(listener, V2)
            client = w.connect(listener)
            await client.send(b"hello")
            await eventually(lambda: Broken.first is not None)
            first, second = sorted(servers, key=lambda each: each.backend.port != Broken.port)
            broken = await first.accept()
            assert await broken.receive(5) == SIGNATURE[:5]
            await broken.send(b"?")
            backend = await second.accept()
            assert await received(V2, backend, 5) == Decoded(*ends(client), b"hello")
            assert (w.counters.dial_failures, w.counters.retries) == (1, 1)


def _length(version: ProxyProtocol, client: Peer) -> int:
    return len(header(version, *ends(client)))
