"""What UDP frontends do, over real sockets on loopback, on each kind of event loop."""

from __future__ import annotations

import asyncio
import os

import pytest

from tests.dataplane.udp.world import eventually, restricted, world
from tests.io_uring import on_ring_loops
from uproxy.core.flows.counters import Counters, DropReason
from uproxy.dataplane.kernel import Kernel
from uproxy.dataplane.udp.epoll_intake import EpollIntake
from uproxy.uring.loop import RingLoop


class TestRelaying:
    async def test_echo(self) -> None:
        """P2 TestUDPProxy."""
        async with world() as w:
            listener = w.listen(w.server(b"from a backend: ").backend)
            assert await w.client(listener).ask(b"abc123") == b"from a backend: abc123"

    @pytest.mark.parametrize("size", [0, 1, 1472, 1473, 4097, 65507])
    @pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
    async def test_datagrams_arrive_whole(self, address: str, size: int) -> None:
        async with world() as w:
            server = w.server()
            listener = w.listen(server.backend, address=address)
            data = os.urandom(size)
            assert await w.client(listener).ask(data) == data
            assert [each for each, _ in server.received] == [data]

    @pytest.mark.parametrize("size", [0, 65527])
    async def test_datagrams_arrive_whole_over_ipv6(self, size: int) -> None:
        async with world() as w:
            listener = w.listen(w.server(address="::1").backend, address="::")
            data = os.urandom(size)
            assert await w.client(listener, "::1").ask(data) == data

    async def test_more_than_a_batch_at_once(self) -> None:
        async with world() as w:
            listener = w.listen(w.server().backend)
            client, other = w.client(listener), w.client(listener)
            sent = [str(number).encode() for number in range(200)]
            for data in sent:
                client.send(data)
            assert await other.ask(b"me too") == b"me too"
            assert [(await client.receive())[0] for _ in sent] == sent

    async def test_each_client_has_a_flow_and_gets_its_own_replies(self) -> None:
        async with world() as w:
            server = w.server()
            listener = w.listen(server.backend)
            clients = [w.client(listener) for _ in range(50)]
            for number, client in enumerate(clients):
                client.send(b"%d" % number)
            for number, client in enumerate(clients):
                assert await client.receive() == (b"%d" % number, client.to)
            assert len({address for _, address in server.received}) == 50
            assert len(listener.flows) == 50

    async def test_clients_are_spread_over_backends(self) -> None:
        async with world() as w:
            servers = [w.server(name) for name in (b"a", b"b", b"c")]
            listener = w.listen(*(server.backend for server in servers))
            answers = [await w.client(listener).ask(b"") for _ in range(6)]
            assert answers == [b"a", b"b", b"c", b"a", b"b", b"c"]

    async def test_a_client_that_sends_again_stays_in_its_flow(self) -> None:
        async with world() as w:
            listener = w.listen(*(w.server(name).backend for name in (b"a", b"b")))
            client = w.client(listener)
            assert [await client.ask(b"") for _ in range(4)] == [b"a"] * 4

    async def test_a_backend_may_send_more_than_it_is_asked_for(self) -> None:
        async with world() as w:
            server = w.server()
            client = w.client(w.listen(server.backend))
            await client.ask(b"subscribe")
            for number in range(100):
                server.sock.sendto(b"%d" % number, server.received[0][1])
            assert [(await client.receive())[0] for _ in range(100)] == [
                b"%d" % number for number in range(100)
            ]

    async def test_a_client_that_vanishes_disturbs_no_other(self) -> None:
        async with world() as w:
            server = w.server()
            server.silent = True
            listener = w.listen(server.backend)
            gone = w.client(listener)
            gone.send(b"any news?")
            await eventually(lambda: len(server.received) == 1)
            gone.sock.close()
            for _ in range(10):  # Each is answered by "port unreachable".
                server.sock.sendto(b"news", server.received[0][1])
            server.silent = False
            assert await w.client(listener).ask(b"hello") == b"hello"

    async def test_datagrams_that_cannot_be_sent_are_counted(self) -> None:
        async with world() as w:
            # 65,527 bytes fit into an IPv6 datagram only.
            listener = w.listen(w.server().backend, address="::1")
            client = w.client(listener, "::1")
            client.send(bytes(65527))
            await eventually(lambda: w.dropped(DropReason.SEND_FAILED) == 1)
            assert await client.ask(b"shorter") == b"shorter"


class TestReplySource:
    @pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2", "127.255.0.9"])
    async def test_a_wildcard_replies_from_the_address_that_was_asked(self, address: str) -> None:
        async with world() as w:
            listener = w.listen(w.server().backend, address="0.0.0.0")
            client = w.client(listener)
            # `ask` compares the address.
            assert await client.ask(b"who?", (address, client.to[1])) == b"who?"

    async def test_one_client_may_ask_several_addresses(self) -> None:
        async with world() as w:
            listener = w.listen(*(w.server(n).backend for n in (b"a", b"b")), address="0.0.0.0")
            client = w.client(listener)
            second, third = (("127.0.0.2", client.to[1]), ("127.0.0.3", client.to[1]))
            assert await client.ask(b"", second) == b"a"
            assert await client.ask(b"", third) == b"b"
            assert await client.ask(b"", second) == b"a"
            assert len(listener.flows) == 2

    async def test_ipv6_wildcard(self) -> None:
        async with world() as w:
            listener = w.listen(w.server(address="::1").backend, address="::")
            assert await w.client(listener, "::1").ask(b"six") == b"six"

    async def test_a_specific_address(self) -> None:
        async with world() as w:
            listener = w.listen(w.server().backend, address="127.0.0.4")
            assert await w.client(listener).ask(b"four") == b"four"


class TestAdmission:
    async def test_sources_outside_of_the_ranges_are_refused(self) -> None:
        async with world() as w:
            listener = w.listen(w.server().backend)
            listener.update(restricted(listener, sources=("127.0.0.8/29", "2001:db8::/32")))
            outside, inside = w.client(listener), w.client(listener, "127.0.0.9")
            outside.send(b"hello")
            assert await inside.ask(b"hello") == b"hello"
            assert w.counters.dropped == {"source_refused": 1}
            assert w.counters.flows == 1

    async def test_ranges_concern_new_flows_only(self) -> None:
        async with world() as w:
            listener = w.listen(w.server().backend)
            client = w.client(listener)
            await client.ask(b"hello")
            listener.update(restricted(listener, sources=()))
            assert await client.ask(b"still there") == b"still there"

    @pytest.mark.parametrize(
        ("outside", "answer"),
        [pytest.param(True, b"near", id="external"), pytest.param(False, b"far", id="this node")],
    )
    async def test_policy_local(self, outside: bool, answer: bytes) -> None:
        async with world(outside=outside) as w:
            far, near = w.server(b"far"), w.server(b"near")
            listener = w.listen(far.backend)
            listener.update(restricted(listener, local=(near.backend,)))
            assert await w.client(listener, "127.0.0.9").ask(b"") == answer

    async def test_policy_local_without_local_backends(self) -> None:
        async with world(outside=True) as w:
            listener = w.listen(w.server().backend)
            listener.update(restricted(listener, local=()))
            w.client(listener, "127.0.0.9").send(b"hello")
            await eventually(lambda: w.dropped(DropReason.NO_BACKEND) == 1)
            assert w.counters.flows == 0


@on_ring_loops
async def test_where_the_ring_cannot_have_buffers_for_datagrams_epoll_relays_them() -> None:
    assert isinstance(asyncio.get_running_loop(), RingLoop)
    # The kernel refuses any number of buffers that is not a power of two.
    async with world(kernel=Kernel(datagram_buffers=3)) as w:
        listener = w.listen(w.server(b"b").backend)
        assert isinstance(listener._intake, EpollIntake)
        assert await w.client(listener).ask(b"hello") == b"bhello"


async def test_counters_are_exact() -> None:
    async with world() as w:
        server = w.server(b"12")
        listener = w.listen(server.backend)
        clients = [w.client(listener) for _ in range(3)]
        for client in clients:
            for data in (b"", b"x", b"y" * 1000):
                await client.ask(data)
        server.silent = True
        clients[0].send(b"unanswered")
        await eventually(lambda: len(server.received) == 10)
        await eventually(lambda: w.counters.client_datagrams == 10)
        assert w.counters == Counters(
            flows=3,
            active=3,
            client_bytes=3 * 1001 + 10,
            backend_bytes=3 * 1007,
            client_datagrams=10,
            backend_datagrams=9,
        )
