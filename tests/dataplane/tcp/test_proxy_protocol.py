"""The PROXY header: its bytes, and its way to backends."""

from __future__ import annotations

import socket
import struct
from _socket import socket as Socket
from functools import partial
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.dataplane.peers import Peer, eventually, refusing, world
from uproxy.core.route import ProxyProtocol
from uproxy.dataplane.kernel import Kernel
from uproxy.dataplane.reactor import RingReactor
from uproxy.dataplane.tcp.listener import TcpListener
from uproxy.dataplane.tcp.proxy_protocol import SIGNATURE, End, header, header_without_client

V1, V2 = ProxyProtocol.V1, ProxyProtocol.V2


class Decoded(NamedTuple):
    """What a receiver learns; None for connections of the proxy's own."""

    client: End | None
    server: End | None
    rest: bytes


def decode(version: ProxyProtocol, data: bytes) -> Decoded:
    """As a strict receiver does it."""
    return _decode_text(data) if version is V1 else _decode_binary(data)


def _decode_text(data: bytes) -> Decoded:
    line, end, rest = data.partition(b"\r\n")
    assert end
    assert len(line) + 2 <= 107
    words = line.decode("ascii").split(" ")
    if words == ["PROXY", "UNKNOWN"]:
        return Decoded(None, None, rest)
    proxy, family, client, server, client_port, server_port = words
    kind = {"TCP4": socket.AF_INET, "TCP6": socket.AF_INET6}[family]
    assert proxy == "PROXY"
    for address in (client, server):
        assert socket.inet_ntop(kind, socket.inet_pton(kind, address)) == address
    for port in (client_port, server_port):
        assert str(int(port)) == port
    return Decoded((client, int(client_port)), (server, int(server_port)), rest)


def _decode_binary(data: bytes) -> Decoded:
    assert data[:12] == bytes.fromhex("0d0a0d0a000d0a515549540a")
    command, family, length = data[12], data[13], int.from_bytes(data[14:16], "big")
    body, rest = data[16 : 16 + length], data[16 + length :]
    assert len(body) == length
    if command == 0x20:
        return Decoded(None, None, rest)
    assert command == 0x21
    kind, width = {0x11: (socket.AF_INET, 4), 0x21: (socket.AF_INET6, 16)}[family]
    assert length == 2 * width + 4
    client, server = body[:width], body[width : 2 * width]
    client_port, server_port = struct.unpack("!HH", body[2 * width :])
    return Decoded(
        (socket.inet_ntop(kind, client), client_port),
        (socket.inet_ntop(kind, server), server_port),
        rest,
    )


FULL = "ffff:" * 7 + "ffff"


class TestBytes:
    @pytest.mark.parametrize(
        ("version", "client", "server", "expected"),
        [
            pytest.param(
                V1,
                ("192.168.0.1", 56324),
                ("192.168.0.11", 443),
                b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n",
                id="v1: the specification's example",
            ),
            pytest.param(
                V1,
                ("255.255.255.255", 65535),
                ("255.255.255.255", 65535),
                b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
                id="v1: the longest with IPv4",
            ),
            pytest.param(
                V1,
                (FULL, 65535),
                (FULL, 65535),
                f"PROXY TCP6 {FULL} {FULL} 65535 65535\r\n".encode(),
                id="v1: the longest with IPv6",
            ),
            pytest.param(
                V1,
                ("2001:db8::1", 1),
                ("::1", 80),
                b"PROXY TCP6 2001:db8::1 ::1 1 80\r\n",
                id="v1: IPv6 abbreviated",
            ),
            pytest.param(
                V2,
                ("192.0.2.1", 0x1234),
                ("198.51.100.2", 443),
                SIGNATURE + bytes.fromhex("21 11 000c c0000201 c6336402 1234 01bb"),
                id="v2: IPv4",
            ),
            pytest.param(
                V2,
                ("2001:db8::1", 1),
                ("::1", 65535),
                SIGNATURE
                + bytes.fromhex("21 21 0024 20010db8 00000000 00000000 00000001")
                + bytes.fromhex("00000000 00000000 00000000 00000001 0001 ffff"),
                id="v2: IPv6",
            ),
        ],
    )
    def test_header(
        self, version: ProxyProtocol, client: End, server: End, expected: bytes
    ) -> None:
        assert header(version, client, server) == expected

    def test_lengths_of_the_specification(self) -> None:
        longest = {
            (V1, "255.255.255.255"): 56,
            (V1, FULL): 104,
            (V2, "255.255.255.255"): 16 + 12,
            (V2, FULL): 16 + 36,
        }
        for (version, address), length in longest.items():
            assert len(header(version, (address, 65535), (address, 65535))) == length

    @pytest.mark.parametrize(
        ("version", "expected"),
        [
            pytest.param(V1, b"PROXY UNKNOWN\r\n", id="v1"),
            pytest.param(V2, SIGNATURE + b"\x20\x00\x00\x00", id="v2"),
        ],
    )
    def test_without_client(self, version: ProxyProtocol, expected: bytes) -> None:
        assert header_without_client(version) == expected
        assert decode(version, expected + b"x") == Decoded(None, None, b"x")

    @given(
        version=st.sampled_from(ProxyProtocol),
        addresses=st.one_of(
            st.tuples(st.ip_addresses(v=4), st.ip_addresses(v=4)),
            st.tuples(st.ip_addresses(v=6), st.ip_addresses(v=6)),
        ),
        ports=st.tuples(st.integers(0, 65535), st.integers(0, 65535)),
        rest=st.binary(max_size=40),
    )
    def test_round_trip(
        self,
        version: ProxyProtocol,
        addresses: tuple[Any, Any],
        ports: tuple[int, int],
        rest: bytes,
    ) -> None:
        family = socket.AF_INET if addresses[0].version == 4 else socket.AF_INET6
        # As the kernel spells them; Python's ipaddress differs in ::ffff:0.0.0.1.
        texts = [socket.inet_ntop(family, each.packed) for each in addresses]
        client, server = (texts[0], ports[0]), (texts[1], ports[1])
        found = decode(version, header(version, client, server) + rest)
        assert found == Decoded(client, server, rest)


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
        """Nobody can tell its port any more, and what it sent must not pass for the proxy's."""
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
        async with world() as w:
            w.reactor.kernel = Kernel(new_socket=Reluctant)
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
        async with world() as w:
            w.reactor.kernel = Kernel(new_socket=Broken)
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
