"""Flows that displace each other go on with each other's sockets, by epoll and by io_uring."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
from _socket import socket as Socket
from collections.abc import Callable
from typing import Any

import pytest

from tests.dataplane.udp.world import (
    PATIENCE,
    Client,
    Server,
    World,
    eventually,
    rerouted,
    udp_socket,
    world,
)
from uproxy.core.flows.counters import DropReason
from uproxy.dataplane.kernel import LINUX, Kernel
from uproxy.dataplane.udp.flow import UdpFlow
from uproxy.dataplane.udp.idle_sockets import AGE
from uproxy.dataplane.udp.listener import UdpListener
from uproxy.dataplane.udp.ring_flow import RingUdpFlow

FLOWS = 4
MANY = 40


class CountedSockets(Socket):
    opened = 0

    def __init__(self, family: int, kind: int) -> None:
        super().__init__(family, kind)
        type(self).opened += 1


def counting() -> tuple[Kernel, Callable[[], int]]:
    """A kernel, and how many sockets were opened."""
    kind = type("Counted", (CountedSockets,), {"opened": 0})
    return Kernel(new_socket=kind), lambda: kind.opened  # type: ignore[attr-defined]


async def displace(w: World, listener: UdpListener, times: int) -> None:
    """Begin flows, one after the other, each with a client of its own. Clients stay open, or the
    kernel might choose the port of one for another, whose flow would be that of the first."""
    for number in range(times):
        question = b"question %d" % number
        assert await w.client(listener).ask(question) == b"a" + question


async def test_a_socket_is_the_next_flow_s() -> None:
    kernel, opened = counting()
    async with world(max_flows=FLOWS, kernel=kernel) as w:
        listener = w.listen(w.server(b"a").backend)
        begun = 0
        async with asyncio.timeout(PATIENCE):
            # One is used again a hundredth of a second after the end of its flow, at the earliest.
            while begun - opened() < MANY:
                await displace(w, listener, 1)
                begun += 1
        assert w.dropped(DropReason.CAPACITY) == begun - FLOWS
        assert w.counters.flows == begun


async def test_a_late_reply_reaches_no_other_client() -> None:
    """A backend answers each question again and again, also when its flow has ended."""
    kernel, opened = counting()
    async with world(max_flows=FLOWS, kernel=kernel) as w:
        server = w.server(b"a")
        listener = w.listen(server.backend)
        clients: list[Client] = []
        async with asyncio.timeout(PATIENCE):
            while len(clients) - opened() < MANY:
                clients.append(w.client(listener))
                question = b"%d" % len(clients)
                assert await clients[-1].ask(question) == b"a" + question
                # Now and then also to flows that have not ended yet, the next one among them.
                ended = FLOWS if len(clients) % 3 else 0
                answer_again(server, server.received[-2 * FLOWS : -ended or None])
        await displace(w, listener, FLOWS)
        for number, client in enumerate(clients, 1):
            while (got := received(client.sock)) is not None:
                assert got == b"late %d" % number
            client.sock.close()


async def test_none_is_left_when_the_last_flow_ends() -> None:
    async with world(max_flows=FLOWS) as w:
        listener = w.listen(w.server(b"a").backend)
        before = len(os.listdir("/proc/self/fd"))
        await displace(w, listener, 3 * FLOWS)
        await eventually(lambda: len(w.all_flows.idle) > 0)
        w.all_flows.set_timeout(0.01)
        await eventually(lambda: not listener.flows)
        assert len(w.all_flows.idle) == 0
        for client in w.clients:
            client.sock.close()
        await eventually(lambda: len(os.listdir("/proc/self/fd")) <= before)


def bind_to_client(w: World, flow: UdpFlow) -> None:
    flow._preserving = True


def run_out_of_descriptors(w: World, flow: UdpFlow) -> None:
    w.context.capacity._limit_met = 1


def merge(w: World, flow: UdpFlow) -> None:
    if isinstance(flow, RingUdpFlow):
        flow._merge()
    else:
        bind_to_client(w, flow)  # By epoll, no flow merges.


def end_receive(w: World, flow: UdpFlow) -> None:
    flow._receive.over = True
    if not isinstance(flow, RingUdpFlow):
        bind_to_client(w, flow)  # A registration with epoll does not end by itself.


@pytest.mark.parametrize("reason", [bind_to_client, run_out_of_descriptors, merge, end_receive])
async def test_some_are_closed(reason: Callable[[World, UdpFlow], None]) -> None:
    async with world() as w:
        listener = w.listen(w.server(b"a").backend)
        for _ in range(3):
            assert await w.client(listener).ask(b"hello") == b"ahello"
        first, second, _ = listener.flows.values()
        # The ring has to know what has become of what was sent.
        await eventually(lambda: first._may_be_idle() and second._may_be_idle())
        first.close()
        assert len(w.all_flows.idle) == 1
        reason(w, second)
        second.close()
        assert len(w.all_flows.idle) == 1


async def test_they_give_way_to_what_needs_descriptors() -> None:
    async with world(max_flows=FLOWS) as w:
        listener = w.listen(w.server(b"a").backend)
        await displace(w, listener, 3 * FLOWS)
        assert len(w.all_flows.idle) > 0
        w.context.queue.reclaim_from_udp()
        assert len(w.all_flows.idle) == 0


async def test_a_flow_gets_the_descriptor_of_an_idle_one() -> None:
    """Of the other family, so that the socket itself is of no use to it."""
    async with world(max_flows=FLOWS) as w:
        listener = w.listen(w.server(b"a").backend)
        other = w.listen(w.server(b"a", "::1").backend, address="::1")
        client = w.client(other, "::1")
        await displace(w, listener, 2 * FLOWS)
        assert len(w.all_flows.idle) > 0
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            client.send(b"hello")
            await eventually(lambda: w.dropped(DropReason.DESCRIPTORS) == 1)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert len(w.all_flows.idle) == 0
        assert await client.ask(b"again") == b"aagain"


async def test_one_that_is_connected_to_itself_is_not_used() -> None:
    """The kernel chooses the port of a backend that is gone for a socket that is used again."""
    gone: list[tuple[str, int]] = []

    class Coincidence(Socket):
        def connect(self, address: Any) -> None:
            if gone and address == gone[0] and self in used:
                self.bind(address)
            used.append(self)
            super().connect(address)

    used: list[Socket] = []
    async with world(max_flows=FLOWS, kernel=Kernel(new_socket=Coincidence)) as w:
        first, second = w.server(b"a"), w.server(b"a")
        listener = w.listen(first.backend, second.backend)
        await displace(w, listener, 3 * FLOWS)
        first.close()
        gone.append(first.backend)
        await displace(w, listener, MANY)
        assert w.counters.dial_failures > 0


def answer_again(server: Server, questions: list[tuple[bytes, tuple[str, int]]]) -> None:
    """Not to a port that the kernel has chosen again for a later question."""
    latest = {source: data for data, source in server.received}
    for data, source in questions:
        if latest[source] == data:
            server.sock.sendto(b"late " + data, source)


def received(sock: socket.socket) -> bytes | None:
    """What has come, if anything."""
    try:
        return sock.recv(100)
    except BlockingIOError:
        return None


def test_the_kernel_takes_port_and_peer_away() -> None:
    server, sock = udp_socket(), Socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect(server.getsockname())
    assert LINUX.disconnect(sock.fileno())
    assert sock.getsockname() == ("0.0.0.0", 0)
    sock.close()
    server.close()


async def test_a_flow_that_moves_gets_a_descriptor_again() -> None:
    """That of its own socket, when its backend has refused and there is no other descriptor."""

    class Scarce(Socket):
        free = 1

        def __init__(self, family: int, kind: int) -> None:
            if not Scarce.free:
                raise OSError(errno.EMFILE, "too many open files")
            super().__init__(family, kind)
            Scarce.free -= 1

        def close(self) -> None:
            Scarce.free += 1
            super().close()

    async with world(kernel=Kernel(new_socket=Scarce)) as w:
        gone, alive = w.server(), w.server(b"a")
        gone.close()
        listener = w.listen(gone.backend, alive.backend)
        client = w.client(listener)
        # A refusal is known only with the next datagram, and the balancer may choose either.
        async with asyncio.timeout(PATIENCE):
            while not alive.received:
                client.send(b"hello")
                await asyncio.sleep(0.001)
        assert await client.receive() == (b"ahello", client.to)
        assert w.dropped(DropReason.DESCRIPTORS) == 0
        assert w.counters.flows == 1


async def test_a_flow_with_the_socket_of_another_one_moves() -> None:
    """The socket that it gets then is its own, and so is what is received from that."""
    kernel, opened = counting()
    async with world(max_flows=FLOWS, kernel=kernel) as w:
        first, second = w.server(b"a"), w.server(b"b")
        listener = w.listen(first.backend)
        before = -1
        async with asyncio.timeout(PATIENCE):
            while opened() != before:
                before, client = opened(), w.client(listener)
                assert await client.ask(b"hello") == b"ahello"
        w.all_flows.idle.clear()
        listener.update(rerouted(listener, second.backend, serving=(first.backend,)))
        first.close()
        async with asyncio.timeout(PATIENCE):
            while not second.received:
                client.send(b"moved")
                await asyncio.sleep(0.001)
        assert opened() == before + 1
        assert await client.receive() == (b"bmoved", client.to)


async def test_a_backend_of_the_other_family_gets_a_socket_of_its_own() -> None:
    async with world(max_flows=FLOWS) as w:
        listener = w.listen(w.server(b"a").backend)
        other = w.listen(w.server(b"b", "::1").backend, address="::1")
        await displace(w, listener, 2 * FLOWS)
        await asyncio.sleep(2 * AGE)  # It may fail only if they may be used again.
        assert len(w.all_flows.idle) > 0
        assert await w.client(other, "::1").ask(b"hello") == b"bhello"
        assert w.counters.dial_failures == 0
