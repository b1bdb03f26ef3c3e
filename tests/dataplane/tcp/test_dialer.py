"""How a TCP flow finds its backend, and what happens when there is none."""

from __future__ import annotations

import asyncio
import socket
from _socket import socket as Socket
from collections.abc import Callable
from typing import Any

import pytest

from tests.dataplane.peers import (
    OWNER,
    Peer,
    World,
    eventually,
    free_descriptors,
    refusing,
    world,
)
from uproxy.core.flows.backend_counts import BackendTally
from uproxy.core.flows.balancer import Balancer
from uproxy.core.flows.counters import DropReason
from uproxy.core.flows.ejection import FAILURES
from uproxy.core.route import Backend
from uproxy.dataplane.kernel import Kernel
from uproxy.dataplane.tcp.dialer import TIMEOUTS
from uproxy.dataplane.tcp.listener import TcpListener


def now() -> float:
    return asyncio.get_running_loop().time()


class TestRetries:
    async def test_refused_goes_to_another_at_once(self) -> None:
        async with world() as w:
            server = w.server()
            listener = w.listen(refusing(), refusing(), server.backend)
            began = now()
            client = w.connect(listener)
            backend = await server.accept()
            assert now() - began < TIMEOUTS[0]
            await client.send(b"x")
            assert await backend.receive(1) == b"x"
            assert (w.counters.dial_failures, w.counters.retries) == (2, 2)
            assert w.counters.flows == 1

    async def test_no_answer_goes_to_another_after_250_ms(self) -> None:
        async with world() as w:
            hole, server = w.black_hole(), w.server()
            listener = w.listen(hole.backend, server.backend)
            began = now()
            client = w.connect(listener)
            await client.send(b"early")
            client.finish()
            backend = await server.accept()
            assert TIMEOUTS[0] <= now() - began < TIMEOUTS[0] + TIMEOUTS[1]
            assert await backend.rest() == b"early"
            assert (w.counters.dial_failures, w.counters.retries) == (1, 1)

    async def test_backend_that_failed_three_times_is_set_aside(self) -> None:
        async with world() as w:
            hole, server = w.black_hole(), w.server()
            listener = w.listen(hole.backend, server.backend)
            for _ in range(2 * FAILURES):
                w.connect(listener)
            for _ in range(2 * FAILURES):
                await server.accept()
            began = now()
            for _ in range(4):
                w.connect(listener)
                await server.accept()
            assert now() - began < TIMEOUTS[0]
            assert w.counters.dial_failures == FAILURES
            assert w.context.ports.get(OWNER).balancer.tally(hole.backend).ejections == 1

    async def test_all_refuse(self) -> None:
        async with world() as w:
            listener = w.listen(refusing(), refusing())
            began = now()
            client = w.connect(listener)
            assert await client.was_reset()
            assert now() - began < TIMEOUTS[0]
            assert (w.counters.dial_failures, w.counters.retries) == (2, 1)
            assert w.dropped(DropReason.DIAL_FAILED) == 1
            assert w.counters.flows == 1

    async def test_at_most_four_attempts(self) -> None:
        async with world() as w:
            listener = w.listen(*(refusing() for _ in range(6)))
            client = w.connect(listener)
            assert await client.was_reset()
            assert (w.counters.dial_failures, w.counters.retries) == (4, 3)

    @pytest.mark.asyncio(loop_factories=["uvloop"])
    async def test_a_single_silent_backend_is_dialed_four_times(self) -> None:
        async with world() as w:
            listener = w.listen(w.black_hole().backend)
            began = now()
            client = w.connect(listener)
            assert await client.was_reset()
            assert now() - began == pytest.approx(sum(TIMEOUTS), abs=0.5)
            assert (w.counters.dial_failures, w.counters.retries) == (4, 3)
            assert w.dropped(DropReason.DIAL_FAILED) == 1

    async def test_a_silent_backend_that_recovers_is_reached(self) -> None:
        async with world() as w:
            hole = w.black_hole()
            client = w.connect(w.listen(hole.backend))
            await eventually(lambda: w.counters.dial_failures == 1)
            hole.recover()
            backend = await hole.accept()
            # The dial that was lost may have been accepted as well, if the kernel was quick.
            await client.send(b"x")
            assert await backend.receive(1) in (b"x", b"")
            client.close()

    async def test_a_banner_that_is_there_before_the_dial_is_noticed(self) -> None:
        async with world() as w:
            server = w.server()
            listener = w.listen(server.backend)

            def greet() -> None:
                try:
                    sock, _ = server.sock.accept()
                except BlockingIOError:  # The handshake's last ACK may wait for a moment.
                    loop.call_soon(greet)
                    return
                server.accepted.append(Peer(sock))
                sock.send(b"220 ready")

            loop = asyncio.get_running_loop()
            w.context.ports.get(OWNER).balancer = Interrupting(lambda: loop.call_soon(greet))
            client = w.connect(listener)
            assert await client.receive(9) == b"220 ready"

    async def test_refused_and_silent_asks_the_silent_again(self) -> None:
        async with world() as w:
            hole = w.black_hole()
            w.connect(w.listen(refusing(), hole.backend))
            await eventually(lambda: w.counters.dial_failures == 2)
            hole.recover()
            await hole.accept()
            assert w.counters.retries in (2, 3)  # By the third attempt's SYN, or the fourth's.
            assert w.counters.dial_failures in (2, 3)

    async def test_unreachable_address_is_a_refusal(self) -> None:
        async with world() as w:
            server = w.server()
            # The loopback route of IPv6 covers ::1 only; the multicast address cannot be dialed.
            client = w.connect(w.listen(Backend("255.255.255.255", 9), server.backend))
            backend = await server.accept()
            await client.send(b"x")
            assert await backend.receive(1) == b"x"
            assert w.counters.dial_failures == 1

    @pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
    async def test_nothing_listens_and_the_kernel_chooses_that_port(self, host: str) -> None:
        """TCP then connects the socket to itself; that was no backend."""
        async with world() as w:
            gone, server = w.server(host), w.server(host)
            gone.close()

            class Coincidence(Socket):
                def connect_ex(self, address: Any) -> int:
                    if address == gone.backend:
                        self.bind(address)
                    return super().connect_ex(address)

            w.reactor.kernel = Kernel(new_socket=Coincidence)
            client = w.connect(w.listen(gone.backend, server.backend))
            await client.send(b"for a backend")
            backend = await server.accept()
            assert await backend.receive(13) == b"for a backend"
            assert (w.counters.dial_failures, w.counters.retries) == (1, 1)
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            socket.create_server(gone.backend, family=family).close()

    async def test_backend_that_resets_at_once(self) -> None:
        async with world() as w:
            server = w.server()
            client = w.connect(w.listen(server.backend))
            (await server.accept()).reset()
            assert await client.was_reset()
            await w.idle()


class TestClientsThatDoNotWait:
    async def test_client_that_resets_while_dialing(self) -> None:
        async with world() as w:
            hole, server = w.black_hole(), w.server()
            client = w.connect(w.listen(hole.backend, server.backend))
            await eventually(lambda: w.context.active == 1)
            client.reset()
            await w.idle()
            # With a ring the handshake is not completed before there is something to say.
            if server.accepts():
                assert await (await server.accept()).was_reset()
            assert w.counters.flows == 1
            assert not w.counters.dropped

    async def test_closing_the_listener_ends_dials(self) -> None:
        async with world() as w:
            listener = w.listen(w.black_hole().backend)
            client = w.connect(listener)
            await eventually(lambda: w.context.active == 1)
            listener.close(0)
            assert await client.was_reset()
            assert w.context.active == 0


class TestFamilies:
    async def test_ipv6(self) -> None:
        async with world() as w:
            server = w.server("::1")
            client = w.connect(w.listen(server.backend, host="::1"))
            backend = await server.accept()
            await client.send(b"six")
            assert await backend.receive(3) == b"six"

    async def test_ipv6_in_front_of_ipv4(self) -> None:
        async with world() as w:
            server = w.server()
            client = w.connect(w.listen(server.backend, host="::1"))
            backend = await server.accept()
            await backend.send(b"four")
            assert await client.receive(4) == b"four"


class TestBalancing:
    async def test_flows_are_spread(self) -> None:
        async with world() as w:
            servers = [w.server() for _ in range(3)]
            listener = w.listen(*(server.backend for server in servers))
            for _ in range(2):
                for server in servers:
                    w.connect(listener)
                    await server.accept()
            assert [len(server.accepted) for server in servers] == [2, 2, 2]
            assert not any(server.has_client() for server in servers)


class TestShortage:
    async def test_no_client_is_reset_when_descriptors_run_out(self) -> None:
        async with world() as w:
            server = w.server()
            listener = w.listen(server.backend)
            clients = [w.client(socket.socket()) for _ in range(5)]
            loop = asyncio.get_running_loop()
            with free_descriptors(3):
                for client in clients:
                    await loop.sock_connect(client.sock, ("127.0.0.1", port_of(w)))
                    await client.send(b"x")
                await eventually(lambda: w.flows.shortage.active and w.context.active == 2)
                # Long enough for several attempts, each of which must pause again.
                began = now()
                await eventually(lambda: now() - began > 0.35)
                assert w.context.active == 2
                assert not w.counters.dropped.get(DropReason.DIAL_FAILED.value)
            for _ in clients:
                backend = await server.accept()
                assert await backend.receive(1) == b"x"
            assert w.context.active == 5
            assert w.counters.dial_failures == 0
            assert listener.flows

    @pytest.mark.asyncio(loop_factories=["uvloop"])
    async def test_patience_ends(self) -> None:
        async with world() as w:
            server = w.server()
            w.listen(server.backend)
            client = w.client(socket.socket())
            loop = asyncio.get_running_loop()
            with free_descriptors(1):
                await loop.sock_connect(client.sock, ("127.0.0.1", port_of(w)))
                assert await client.was_reset()
            assert w.dropped(DropReason.DESCRIPTORS) == 1
            assert w.context.active == 0

    async def test_accepting_pauses_instead_of_spinning(self) -> None:
        async with world() as w:
            server = w.server()
            w.listen(server.backend)
            client = w.client(socket.socket())
            loop = asyncio.get_running_loop()
            began = now()
            with free_descriptors(0):
                await loop.sock_connect(client.sock, ("127.0.0.1", port_of(w)))
                await eventually(lambda: w.dropped(DropReason.DESCRIPTORS) >= 3)
            assert now() - began >= 0.2
            await server.accept()


class Interrupting(Balancer):
    """Calls when a dial begins."""

    def __init__(self, call: Callable[[], object]) -> None:
        super().__init__(random=lambda: 0.5)
        self._call = call

    def begin(self, backend: Backend) -> BackendTally:
        self._call()
        return super().begin(backend)


def port_of(w: World) -> int:
    (listener,) = w.flows.listeners
    assert isinstance(listener, TcpListener)
    assert listener.route.owner == OWNER
    return listener.route.frontend.port
