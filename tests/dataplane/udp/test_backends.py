"""Which backend a UDP flow goes to, and what it does when that one refuses."""

from __future__ import annotations

import errno
import resource
import socket
from _socket import socket as Socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.dataplane.udp.world import eventually, rerouted, unused_backend, world
from tests.ports import free_port
from uproxy.core.flows.counters import Counters, DropReason
from uproxy.core.flows.ejection import FAILURES
from uproxy.core.route import Backend, BalancerKind, Route
from uproxy.dataplane.kernel import LINUX, Kernel
from uproxy.dataplane.udp.idle_sockets import IdleSockets


class TestRefusal:
    async def test_another_backend_gets_the_datagram_that_the_first_one_refused(self) -> None:
        async with world() as w:
            listener = w.listen(unused_backend(), w.server(b"b").backend)
            client = w.client(listener)
            assert await client.ask(b"hello") == b"bhello"
            assert w.counters == Counters(
                flows=1,
                active=1,
                client_bytes=5,
                backend_bytes=6,
                client_datagrams=1,
                backend_datagrams=1,
                dial_failures=1,
                retries=1,
                dropped={"backend_refused": 1},
            )

    async def test_another_backend_gets_all_datagrams_from_before_the_refusal(self) -> None:
        # A resolver asks for A and AAAA back to back, from one port.
        async with world() as w:
            listener = w.listen(unused_backend(), w.server(b"b").backend)
            client = w.client(listener)
            client.send(b"A")
            client.send(b"AAAA")
            assert {(await client.receive())[0] for _ in range(2)} == {b"bA", b"bAAAA"}
            assert w.counters.client_datagrams == 2
            assert w.counters.client_bytes == 5

    async def test_a_datagram_that_is_too_long_to_keep_is_lost_but_the_flow_moves(self) -> None:
        async with world() as w:
            listener = w.listen(unused_backend(), w.server(b"b").backend)
            client = w.client(listener)
            client.send(bytes(1501))
            await eventually(lambda: w.dropped(DropReason.BACKEND_REFUSED) == 1)
            assert await client.ask(b"hello") == b"bhello"
            assert w.counters.flows == 1

    async def test_many_datagrams_are_refused_in_one_turn(self) -> None:
        """More than a flow keeps. Those that are counted were sent, and those that the kernel has
        refused go to the next backend."""
        async with world() as w:
            listener = w.listen(unused_backend(), (other := w.server(b"b")).backend)
            client = w.client(listener)
            sent = [b"%03d" % number for number in range(60)]
            for data in sent:
                client.send(data)
            await client.receive()
            client.send(b"the last")
            await eventually(lambda: b"the last" in [data for data, _ in other.received])
            arrived = {data for data, _ in other.received}
            assert len(arrived) == len(other.received)
            # The kernel refuses every other one: it reports the refusal of the one before.
            assert len(arrived) > len(sent) // 3
            assert w.counters.client_datagrams == len(sent) + 1

    async def test_few_datagrams_are_kept_even_empty_ones(self) -> None:
        async with world() as w:
            silent, other = w.server(), w.server()
            silent.silent = True
            listener = w.listen(silent.backend, other.backend)
            client = w.client(listener)
            for _ in range(10):
                client.send(b"")
            await eventually(lambda: len(silent.received) == 10)
            silent.close()
            client.send(b"refused")
            assert [(await client.receive())[0] for _ in range(4)] == [b""] * 4
            assert await client.ask(b"the next") == b"the next"
            assert len(other.received) == 5

    async def test_a_flow_that_moved_leaves_no_socket_behind(self) -> None:
        async with world() as w:
            server = w.server(b"b")
            listener = w.listen(unused_backend(), server.backend)
            for _ in range(5):
                assert await w.client(listener).ask(b"hello") == b"bhello"
            assert sockets_towards(server.backend) == 5
            listener.close()
            await eventually(lambda: sockets_towards(server.backend) == 0)

    async def test_a_backend_that_dies_in_the_middle(self) -> None:
        async with world() as w:
            first, second = w.server(b"a"), w.server(b"b")
            listener = w.listen(first.backend, second.backend)
            client = w.client(listener)
            assert await client.ask(b"1") == b"a1"
            first.close()
            client.send(b"2")
            await eventually(lambda: w.dropped(DropReason.BACKEND_REFUSED) == 1)
            assert await client.ask(b"3") == b"b3"
            assert w.counters.flows == 1

    async def test_new_flows_avoid_a_backend_that_refused_three_times(self) -> None:
        async with world() as w:
            listener = w.listen(unused_backend(), w.server(b"b").backend)
            for _ in range(3 * FAILURES):
                assert await w.client(listener).ask(b"") == b"b"
            assert w.counters.dial_failures == FAILURES

    async def test_when_all_refuse_the_flow_ends_and_the_next_datagram_begins_another(self) -> None:
        async with world() as w:
            backends = (unused_backend(), unused_backend())
            listener = w.listen(*backends)
            client = w.client(listener)
            client.send(b"hello")
            await eventually(lambda: w.dropped(DropReason.DIAL_FAILED) == 1)
            assert w.dropped(DropReason.BACKEND_REFUSED) == 2
            assert not listener.flows
            servers = [w.server(port=backend.port) for backend in backends]
            assert await client.ask(b"again") == b"again"
            assert sum(len(server.received) for server in servers) == 1

    async def test_not_more_than_four_attempts(self) -> None:
        async with world() as w:
            listener = w.listen(*(unused_backend() for _ in range(6)))
            w.client(listener).send(b"hello")
            await eventually(lambda: w.dropped(DropReason.DIAL_FAILED) == 1)
            assert w.counters.dial_failures == 4
            assert w.counters.retries == 3

    async def test_a_backend_that_cannot_be_connected_to(self) -> None:
        async with world() as w:
            # EACCES without SO_BROADCAST; nothing is sent.
            listener = w.listen(Backend("255.255.255.255", 9), w.server(b"b").backend)
            assert await w.client(listener).ask(b"hello") == b"bhello"
            assert w.counters.dial_failures == w.counters.retries == 1
            assert w.counters.dropped == {}

    @pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
    async def test_nothing_listens_and_the_kernel_chooses_that_port(self, address: str) -> None:
        """A connected socket would get its own datagrams."""
        async with world() as w:
            gone = w.server(address=address)
            gone.close()

            class Coincidence(Socket):
                def connect(self, address: Any) -> None:
                    if address == gone.backend:
                        self.bind(address)
                    super().connect(address)

            w.reactor.kernel = Kernel(new_socket=Coincidence)
            listener = w.listen(gone.backend, w.server(b"b", address).backend, address=address)
            assert await w.client(listener, address).ask(b"hello") == b"bhello"
            assert w.counters.dial_failures == w.counters.retries == 1

    async def test_out_of_descriptors(self) -> None:
        async with world() as w:
            listener = w.listen(w.server().backend)
            client, newcomer = w.client(listener), w.client(listener)
            await client.ask(b"hello")
            limits = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
            try:
                newcomer.send(b"me too")
                await eventually(lambda: w.dropped(DropReason.DESCRIPTORS) == 1)
                assert await client.ask(b"still there") == b"still there"
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            assert await newcomer.ask(b"now?") == b"now?"
            assert w.counters.dial_failures == 0

    async def test_out_of_ports(self) -> None:
        """The kernel has 28,232 ports for all UDP sockets of a machine (ip_local_port_range)."""
        async with world() as w:
            server = w.server()
            listener = w.listen(server.backend)
            ports = [free_port() for _ in range(100)]

            class Bounded(Socket):
                # By bind, as the kernel knows which ports it has let go of: not that of a socket
                # that was closed while the ring received from it.
                def connect(self, address: Any) -> None:
                    for port in ports:
                        with suppress(OSError):
                            self.bind(("127.0.0.1", port))
                            return super().connect(address)
                    raise BlockingIOError(errno.EAGAIN, "no free port")

            # A port that a socket was bound to stays its own when it is disconnected.
            w.all_flows.idle = IdleSockets(0, LINUX.disconnect)
            w.reactor.kernel = Kernel(new_socket=Bounded)
            for number in range(300):
                assert await w.client(listener).ask(b"%d" % number) == b"%d" % number
            # Those of one turn do not each end other flows.
            clients = [w.client(listener) for _ in range(50)]
            for each in clients:
                each.send(b"at once")
            for each in clients:
                assert (await each.receive())[0] == b"at once"
            # No backend is to blame. Idle flows give way, and some ports stay free for others.
            assert (w.counters.dial_failures, w.counters.retries) == (0, 0)
            assert set(w.counters.dropped) == {"ports"}
            assert len(listener.flows) < 100

    async def test_ports_that_other_programs_have(self) -> None:
        """Flows of uproxy do not end in vain for each new one."""
        async with world() as w:
            server = w.server()
            listener = w.listen(server.backend)
            for _ in range(200):
                await w.client(listener).ask(b"before")

            class Portless(Socket):
                def connect(self, address: Any) -> None:
                    raise BlockingIOError(errno.EAGAIN, "no free port")

            w.reactor.kernel = Kernel(new_socket=Portless)
            for _ in range(10):
                w.client(listener).send(b"no port")
            await eventually(lambda: w.dropped(DropReason.PORTS) == 64 + 10)
            assert len(listener.flows) == 200 - 64


class TestBalancing:
    async def test_affinity_is_by_address_whatever_the_port(self) -> None:
        async with world() as w:
            servers = [w.server(name) for name in (b"a", b"b", b"c", b"d")]
            listener = w.listen(*(server.backend for server in servers), affinity=60)
            for host in range(1, 6):
                answers = {await w.client(listener, f"127.0.0.{host}").ask(b"") for _ in range(5)}
                assert len(answers) == 1

    async def test_affinity_over_frontends_and_through_new_backends(self) -> None:
        async with world() as w:
            first = w.server(b"a")
            one = w.listen(first.backend, affinity=60)
            assert await w.client(one).ask(b"") == b"a"
            backends = [w.server(b"later").backend for _ in range(20)]
            other = w.listen(first.backend, *backends, affinity=60)
            assert await w.client(other).ask(b"") == b"a"

    async def test_affinity_of_a_client_that_gets_no_reply(self) -> None:
        async with world() as w:
            first = w.server()
            first.silent = True
            listener = w.listen(first.backend, affinity=60)
            w.client(listener).send(b"log this")
            await eventually(lambda: len(first.received) == 1)
            backends = [w.server().backend for _ in range(20)]
            listener.update(rerouted(listener, first.backend, *backends))
            w.client(listener).send(b"and this")
            await eventually(lambda: len(first.received) == 2)

    async def test_affinity_moves_when_the_backend_refuses(self) -> None:
        async with world() as w:
            first = w.server(b"a")
            listener = w.listen(first.backend, affinity=60)
            await w.client(listener).ask(b"")
            second = w.server(b"b")
            listener.update(rerouted(listener, first.backend, second.backend))
            first.close()
            assert await w.client(listener).ask(b"") == b"b"
            assert await w.client(listener).ask(b"") == b"b"
            assert w.counters.dial_failures == 1

    async def test_least_connections_counts_flows(self) -> None:
        async with world() as w:
            servers = [w.server(name) for name in (b"a", b"b")]
            backends = tuple(server.backend for server in servers)
            listener = w.listen(*backends)
            old = listener.route
            listener.update(
                Route(
                    frontend=old.frontend,
                    owner=old.owner,
                    kind=old.kind,
                    backends=backends,
                    serving=(backends[1],),
                    balancer=BalancerKind.LEAST_CONNECTIONS,
                )
            )
            assert [await w.client(listener).ask(b"") for _ in range(4)] == [b"a", b"b"] * 2
            listener.update(listener.route)  # Ends both flows to a.
            assert [await w.client(listener).ask(b"") for _ in range(2)] == [b"a", b"a"]


def sockets_towards(backend: Backend) -> int:
    """How many connected UDP sockets the kernel has, with or without a descriptor."""
    peer = f"{int.from_bytes(socket.inet_aton(backend.address), 'little'):08X}:{backend.port:04X}"
    with Path("/proc/net/udp").open() as table:
        return sum(line.split()[2] == peer for line in table)
