"""When UDP flows end, and what changes of a route do to them."""

from __future__ import annotations

import asyncio
import gc
import os
from functools import partial

import pytest

from tests.dataplane.udp.world import (
    eventually,
    living_flows,
    rerouted,
    udp_socket,
    unused_backend,
    world,
)
from uproxy.core.flows.counters import DropReason
from uproxy.core.flows.udp_table import FlowTable
from uproxy.core.route import Route, ServicePortName
from uproxy.dataplane.udp.flow import CONVERSATION
from uproxy.dataplane.udp.flows import EndableFlow, UdpFlows
from uproxy.net.listening import open_listeners


class TestEndOfFlows:
    @pytest.mark.parametrize("silent", [True, False])
    async def test_idle(self, silent: bool) -> None:
        """P3 TestUDPProxyTimeout."""
        async with world(udp_timeout=0.25) as w:
            server = w.server()
            server.silent = silent
            listener = w.listen(server.backend)
            client = w.client(listener)
            client.send(b"hello")
            await eventually(lambda: len(server.received) == 1)
            assert len(listener.flows) == 1
            assert w.context.active == w.counters.active == 1
            await eventually(lambda: not listener.flows)
            assert w.context.active == w.counters.active == 0
            server.silent = False
            client.send(b"again")
            await eventually(lambda: len(server.received) == 2)
            assert server.received[0][1] != server.received[1][1]
            assert w.counters.flows == 2

    async def test_a_shorter_timeout_ends_flows_that_exist(self) -> None:
        async with world(udp_timeout=3600.0) as w:
            listener = w.listen(w.server().backend)
            await w.client(listener).ask(b"hello")
            assert len(listener.flows) == 1
            w.all_flows.set_timeout(0.05)
            await eventually(lambda: not listener.flows)

    async def test_a_reply_makes_a_flow_last_longer(self) -> None:
        table: FlowTable[EndableFlow] = FlowTable(60.0, unreplied=0.05)
        async with world(all_flows=partial(UdpFlows, table=table)) as w:
            talking, silent = w.server(b"a"), w.server(b"b")
            silent.silent = True
            listener = w.listen(talking.backend, silent.backend)
            client = w.client(listener)
            await client.ask(b"hello")
            listener.update(rerouted(listener, silent.backend, serving=listener.route.serving))
            for count in (2, 3):
                w.client(listener).send(b"hello?")
                await w.began(count)
                await eventually(lambda: len(listener.flows) == 1)
            await client.ask(b"still there")
            assert w.counters.flows == 3

    @pytest.mark.parametrize("one_way", [False, True])
    async def test_traffic_keeps_a_flow(self, one_way: bool) -> None:
        async with world(udp_timeout=0.4) as w:
            server = w.server()
            server.silent = one_way
            listener = w.listen(server.backend)
            client, idle = w.client(listener), w.client(listener)
            for _ in range(3):
                idle.send(b"one flow after the other")
                client.send(b"first")
                await eventually(lambda: len(listener.flows) == 2)
                while len(listener.flows) == 2:
                    client.send(b"go on")
                    await asyncio.sleep(0.01)
            assert w.counters.flows == 4

    async def test_flows_are_freed_when_they_end(self) -> None:
        async with world() as w:
            listener = w.listen(unused_backend(), w.server().backend)
            gc.collect()
            gc.disable()
            try:
                for _ in range(5):
                    await w.client(listener).ask(b"hello")
                assert living_flows() == 5
                listener.update(rerouted(listener, unused_backend()))
                assert living_flows() == 0
            finally:
                gc.enable()

    async def test_thousands_of_flows_that_end_together_do_not_hold_up_others(self) -> None:
        """To end one takes 8 to 14 us, so 50,000 would take half a second."""
        async with world(all_flows=partial(UdpFlows, chunk=10)) as w:
            listener = w.listen(w.server().backend)
            for _ in range(25):
                await w.client(listener).ask(b"hello")
            listener.update(rerouted(listener, w.server(b"new ").backend))
            assert len(listener.flows) == 15
            await eventually(lambda: not listener.flows)

    async def test_thousands_of_idle_flows_do_not_hold_up_others(self) -> None:
        table: FlowTable[EndableFlow] = FlowTable(60.0, unreplied=0.0, brief=0.0)
        all_flows = partial(UdpFlows, table=table, chunk=10, resolution=float("inf"))
        async with world(all_flows=all_flows) as w:
            listener = w.listen(w.server().backend)
            for _ in range(25):
                await w.client(listener).ask(b"hello")
            before = len(listener.flows)
            w.all_flows._expire()
            assert (before, len(listener.flows)) == (25, 15)
            await eventually(lambda: not listener.flows)

    async def test_at_capacity_the_flow_that_was_silent_for_longest_ends(self) -> None:
        async with world(max_flows=2) as w:
            server = w.server()
            listener = w.listen(server.backend)
            first, second, third = (w.client(listener) for _ in range(3))
            for client in (first, second, first, third, first):
                await client.ask(b"hello")
            assert w.counters.flows == 3
            assert w.dropped(DropReason.CAPACITY) == 1
            assert w.context.active == w.counters.active == len(listener.flows) == 2

    async def test_at_capacity_flows_that_were_answered_are_spared(self) -> None:
        async with world(max_flows=2) as w:
            talking, silent = w.server(b"a"), w.server(b"b")
            silent.silent = True
            listener = w.listen(talking.backend, silent.backend)
            client = w.client(listener)
            await client.ask(b"hello")
            listener.update(rerouted(listener, silent.backend, serving=listener.route.serving))
            for _ in range(5):
                w.client(listener).send(b"flood")
            await eventually(lambda: w.counters.flows == 6)
            assert w.dropped(DropReason.CAPACITY) == 4
            await client.ask(b"still there")
            assert w.counters.flows == 6

    async def test_at_capacity_clients_with_a_single_request_are_served(self) -> None:
        async with world(max_flows=32) as w:
            slow = w.server()
            listener = w.listen(slow.backend)
            for _ in range(32):
                await w.client(listener).ask(b"the table is full of those that were answered")
            slow.silent = True
            for _ in range(20):
                clients = [w.client(listener) for _ in range(8)]
                slow.received.clear()
                for client in clients:
                    client.send(b"me too")
                await eventually(lambda: len(slow.received) == 8)
                for data, flow in slow.received:
                    slow.sock.sendto(data, flow)
                for client in clients:
                    assert (await client.receive())[0] == b"me too"
            assert w.dropped(DropReason.CAPACITY) == 20 * 8
            assert w.context.active == len(listener.flows) == 32

    async def test_at_capacity_a_conversation_is_spared(self) -> None:
        async with world(max_flows=8) as w:
            listener = w.listen(w.server().backend)
            client = w.client(listener)
            for _ in range(1 + CONVERSATION):
                await client.ask(b"again")
            for _ in range(40):
                await w.client(listener).ask(b"once")
            await client.ask(b"still there")
            assert w.counters.flows == 41

    async def test_at_capacity_no_flow_ends_for_one_without_a_backend(self) -> None:
        async with world(max_flows=1) as w:
            listener = w.listen(w.server().backend)
            client = w.client(listener)
            await client.ask(b"hello")
            listener.update(rerouted(listener))
            w.client(listener).send(b"me too")
            await eventually(lambda: w.counters.dropped == {"no_backend": 1})
            await client.ask(b"still there")
            assert w.counters.flows == 1

    async def test_tcp_uses_up_the_capacity(self) -> None:
        async with world(max_flows=1) as w:
            listener = w.listen(w.server().backend)
            w.context.capacity.tcp += 1
            client = w.client(listener)
            client.send(b"anybody?")
            await eventually(lambda: w.dropped(DropReason.CAPACITY) == 1)
            assert w.counters.flows == 0
            w.context.capacity.tcp -= 1
            w.context.queue.resume_if_room()
            assert await client.ask(b"now?") == b"now?"

    async def test_closing_the_listener(self) -> None:
        """P7 TestUDPProxyStop."""
        async with world() as w:
            listener = w.listen(w.server().backend)
            client = w.client(listener)
            client.sock.connect(client.to)
            await client.ask(b"hello")
            listener.close(30.0)
            listener.close()
            assert w.context.active == w.counters.active == 0
            client.sock.send(b"anybody?")
            with pytest.raises(ConnectionRefusedError):
                client.sock.recv(10)

    async def test_a_port_can_be_served_again(self) -> None:
        async with world() as w:
            server = w.server()
            first = w.listen(server.backend)
            client = w.client(first)
            await client.ask(b"hello")
            first.close()
            (sock,) = open_listeners(first.route.frontend, 1)
            w.serve(sock, first.route)
            assert await client.ask(b"again") == b"again"

    async def test_no_descriptor_is_left(self) -> None:
        async with world() as w:
            server, refusing = w.server(), unused_backend()
            before = len(os.listdir("/proc/self/fd"))
            listener = w.listen(server.backend, refusing)
            for _ in range(10):
                with udp_socket() as sock:
                    sock.sendto(b"hello", listener.route.frontend[1:])
            await eventually(lambda: len(server.received) == 10)
            listener.update(rerouted(listener, unused_backend()))
            assert not listener.flows
            listener.close()
            assert len(os.listdir("/proc/self/fd")) == before


class TestUpdates:
    @pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
    async def test_a_flow_leaves_a_backend_that_no_longer_serves(self, address: str) -> None:
        """The Kubernetes e2e conntrack tests: a client that keeps its port reaches the new pod."""
        async with world() as w:
            old, new = w.server(b"old "), w.server(b"new ")
            listener = w.listen(old.backend, address=address)
            client = w.client(listener)
            assert await client.ask(b"1") == b"old 1"
            listener.update(rerouted(listener, new.backend))
            assert await client.ask(b"2") == b"new 2"
            assert (w.counters.flows, w.counters.active) == (2, 1)

    async def test_flows_stay_when_nothing_serves(self) -> None:
        async with world() as w:
            listener = w.listen(w.server().backend)
            client = w.client(listener)
            await client.ask(b"hello")
            listener.update(rerouted(listener))
            assert await client.ask(b"still there") == b"still there"
            w.client(listener).send(b"me too")
            await eventually(lambda: w.dropped(DropReason.NO_BACKEND) == 1)
            assert w.counters.flows == 1

    async def test_flows_stay_when_only_policy_changes(self) -> None:
        async with world() as w:
            first, second = w.server(b"a"), w.server(b"b")
            listener = w.listen(first.backend)
            client = w.client(listener)
            assert await client.ask(b"") == b"a"
            serving = (first.backend, second.backend)
            listener.update(rerouted(listener, second.backend, serving=serving))
            assert await client.ask(b"") == b"a"
            assert await w.client(listener).ask(b"") == b"b"

    async def test_a_frontend_that_passes_to_another_service_ends_its_flows(self) -> None:
        async with world() as w:
            listener = w.listen(w.server().backend)
            client = w.client(listener)
            await client.ask(b"hello")
            old = listener.route
            owner = ServicePortName("default", "other", "", "UDP")
            new = Route(frontend=old.frontend, owner=owner, kind=old.kind, backends=old.backends)
            listener.update(new)
            assert w.counters.active == 0
            await client.ask(b"hello")
            assert w.counters.flows == 1
            assert w.context.ports.get(owner).counters.flows == 1

    async def test_backends_come_back(self) -> None:
        async with world() as w:
            server = w.server()
            listener = w.listen()
            client = w.client(listener)
            client.send(b"anybody?")
            await eventually(lambda: w.dropped(DropReason.NO_BACKEND) == 1)
            listener.update(rerouted(listener, server.backend))
            assert await client.ask(b"now?") == b"now?"

    async def test_draining_takes_no_new_flows_and_keeps_the_others(self) -> None:
        async with world() as w:
            listener = w.listen(w.server().backend)
            client = w.client(listener)
            await client.ask(b"hello")
            listener.stop_accepting()
            w.client(listener).send(b"me too")
            await eventually(lambda: w.dropped(DropReason.DRAINING) == 1)
            assert await client.ask(b"still there") == b"still there"
            assert w.counters.flows == 1
