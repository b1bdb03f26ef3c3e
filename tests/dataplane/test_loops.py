"""Backends that lead back to a frontend, although their addresses do not show it."""

from __future__ import annotations

import socket

import msgspec
import pytest

from tests.dataplane.peers import eventually, world
from tests.dataplane.udp import world as udp_world
from uproxy.core.flows.counters import DropReason
from uproxy.core.route import Backend
from uproxy.dataplane.tcp.listener import ACCEPT_BATCH, TcpListener
from uproxy.dataplane.tcp.loops import INSPECTED, MOST, STEP
from uproxy.dataplane.udp.loops import EVERY, PROOF


def lead_back(listener: TcpListener, *more: Backend) -> None:
    """Make a frontend its own backend."""
    itself = Backend(listener.route.frontend.address, listener.route.frontend.port)
    listener.update(msgspec.structs.replace(listener.route, backends=(itself, *more)))


class TestTcp:
    @pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
    async def test_one_connection_does_not_become_thousands(self, host: str) -> None:
        async with world() as w:
            listener = w.listen(host=host)
            lead_back(listener)
            client = w.connect(listener)
            assert await client.was_reset()
            await w.idle()
            assert w.dropped(DropReason.LOOP) >= 1
            assert w.counters.flows < 64 + ACCEPT_BATCH + 2 * MOST // STEP

    async def test_the_next_connection_becomes_even_fewer(self) -> None:
        async with world() as w:
            listener = w.listen()
            lead_back(listener)
            assert await w.connect(listener).was_reset()
            await w.idle()
            before = w.counters.flows
            assert await w.connect(listener).was_reset()
            await w.idle()
            assert w.counters.flows - before == MOST // STEP

    async def test_two_frontends_that_lead_to_each_other(self) -> None:
        async with world() as w:
            first, second = w.listen(), w.listen()
            for one, other in ((first, second), (second, first)):
                there = Backend(other.route.frontend.address, other.route.frontend.port)
                one.update(msgspec.structs.replace(one.route, backends=(there,)))
            assert await w.connect(first).was_reset()
            await w.idle()
            assert w.counters.flows < 64 + ACCEPT_BATCH + 2 * MOST // STEP

    async def test_clients_that_come_back_once_are_served(self) -> None:
        """A frontend that is the backend of another one, as with a load balancer before nodes."""
        async with world() as w:
            server = w.server()
            inner = w.listen(server.backend)
            outer = w.listen(Backend(inner.route.frontend.address, inner.route.frontend.port))
            for _ in range(60):
                w.connect(outer)
                await server.accept()
            assert w.flows.dialer.loops.to_inspect < INSPECTED
            assert not w.counters.dropped

    async def test_after_a_jump_in_flows_clients_are_inspected_for_a_while(self) -> None:
        async with world() as w:
            server = w.server()
            listener = w.listen(server.backend)
            for _ in range(65 + INSPECTED):
                w.connect(listener)
            await eventually(lambda: w.counters.flows == 65 + INSPECTED)
            assert 0 < w.flows.dialer.loops.to_inspect < INSPECTED
            assert not w.counters.dropped

    async def test_a_backend_gets_a_lower_ttl_than_the_client_had(self) -> None:
        async with world() as w:
            hops = w.flows.dialer.loops
            for host, level, option in (
                ("127.0.0.1", socket.IPPROTO_IP, socket.IP_TTL),
                ("::1", socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS),
            ):
                family = socket.AF_INET6 if ":" in host else socket.AF_INET
                with socket.create_server((host, 0), family=family) as server:
                    for had, gets in ((255, 56), (64, 56), (40, 32), (9, 1), (8, 0), (1, 0)):
                        with socket.socket(family) as client, socket.socket(family) as backend:
                            client.setsockopt(level, option, had)
                            client.connect(server.getsockname())
                            with server.accept()[0] as accepted:
                                assert hops.pass_on(accepted, backend) is (gets > 0)
                            assert not gets or backend.getsockopt(level, option) == gets


class TestUdp:
    @pytest.mark.parametrize("host", ["127.0.0.1", "::1", "0.0.0.0"])
    async def test_one_datagram_does_not_go_round_for_ever(self, host: str) -> None:
        async with udp_world.world(max_flows=400) as w:
            listener = w.listen(address=host)
            there = Backend(host.replace("0.0.0.0", "127.0.0.5"), listener.route.frontend.port)
            listener.update(udp_world.rerouted(listener, there))
            w.client(listener, host.replace("0.0.0.0", "127.0.0.1")).send(b"round and round")
            await eventually(lambda: w.dropped(DropReason.LOOP) == 1)
            assert w.counters.flows <= EVERY + PROOF + 1
            assert not listener.flows
            w.client(listener, host.replace("0.0.0.0", "127.0.0.1")).send(b"and again")
            await eventually(lambda: w.dropped(DropReason.LOOP) == 2)
            assert not listener.flows

    async def test_two_frontends_that_lead_to_each_other(self) -> None:
        async with udp_world.world(max_flows=400) as w:
            first, second = w.listen(), w.listen()
            for one, other in ((first, second), (second, first)):
                there = Backend("127.0.0.1", other.route.frontend.port)
                one.update(udp_world.rerouted(one, there))
            w.client(first).send(b"back and forth")
            await eventually(lambda: w.dropped(DropReason.LOOP) == 1)
            w.client(first).send(b"back and forth")
            await eventually(lambda: w.dropped(DropReason.LOOP) == 2)

    @pytest.mark.parametrize("host", ["127.0.0.1", "::1", "0.0.0.0"])
    async def test_two_frontends_do_not_talk_to_each_other(self, host: str) -> None:
        """A datagram to one frontend with the forged address of the other would start it, and two
        backends that answer everything would never end it."""
        async with udp_world.world() as w:
            one, other = w.server(), w.server()
            first, second = w.listen(one.backend, address=host), w.listen(other.backend)
            if host == "::1":
                second = w.listen(other.backend, address=host)
            there = host.replace("0.0.0.0", "127.0.0.1")
            second.sock.sendto(b"and what do you say?", (there, first.route.frontend.port))
            await eventually(lambda: w.dropped(DropReason.LOOP) == 1)
            first.sock.sendto(b"and you?", (second.route.frontend[1:]))
            await eventually(lambda: w.dropped(DropReason.LOOP) == 2)
            assert not one.received
            assert not other.received

    async def test_the_port_of_a_closed_frontend_may_be_that_of_a_client(self) -> None:
        async with udp_world.world() as w:
            first, second = w.listen(w.server().backend), w.listen(w.server().backend)
            port = second.route.frontend.port
            second.close()
            with udp_world.udp_socket(port=port) as sock:
                sock.sendto(b"hello", first.route.frontend[1:])
                await w.began(1)
            assert w.dropped(DropReason.LOOP) == 0

    async def test_other_backends_are_served(self) -> None:
        async with udp_world.world(max_flows=400) as w:
            listener = w.listen()
            there = Backend("127.0.0.1", listener.route.frontend.port)
            listener.update(udp_world.rerouted(listener, there))
            w.client(listener).send(b"round and round")
            await eventually(lambda: w.dropped(DropReason.LOOP) == 1)
            listener.update(udp_world.rerouted(listener, there, w.server(b"good ").backend))
            for _ in range(4):
                assert await w.client(listener).ask(b"hello") == b"good hello"

    async def test_clients_on_this_node_are_served(self) -> None:
        async with udp_world.world() as w:
            listener = w.listen(w.server().backend)
            for _ in range(3 * EVERY):
                await w.client(listener).ask(b"hello")
            assert not w.counters.dropped
