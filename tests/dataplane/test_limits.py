"""What TCP and UDP leave to each other when one of them is flooded."""

from __future__ import annotations

import asyncio
import errno
import select
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import pytest

from tests.dataplane import peers
from tests.dataplane.peers import eventually, free_descriptors
from tests.dataplane.udp import world as udp_world
from tests.io_uring import on_loops_without_a_ring
from uproxy.core.flows.counters import DropReason
from uproxy.dataplane.kernel import LINUX, Kernel
from uproxy.dataplane.udp.flow import CONVERSATION
from uproxy.dataplane.udp.listener import UdpListener


class FullEpoll:
    """An epoll that registers no more descriptors than those it is to keep."""

    def __init__(self, code: int) -> None:
        self.keeps: set[int] | None = None
        self._code = code

    def open(self) -> FullEpoll:
        self._real = select.epoll()
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def register(self, fd: int, events: int) -> None:
        if self.keeps is not None and fd not in self.keeps:
            raise OSError(self._code, "no more")
        self._real.register(fd, events)


@asynccontextmanager
async def world(
    max_flows: int = 1000, kernel: Kernel = LINUX
) -> AsyncIterator[tuple[peers.World, udp_world.World]]:
    """One worker with TCP and UDP frontends."""
    async with peers.world(max_flows=max_flows, kernel=kernel) as tcp:
        udp = udp_world.World(tcp.context, tcp.engine.new_intake)
        try:
            yield tcp, udp
        finally:
            udp.close()


async def conversation(w: udp_world.World, listener: UdpListener) -> udp_world.Client:
    client = w.client(listener)
    for _ in range(1 + CONVERSATION):
        await client.ask(b"we are talking")
    return client


class TestMaxFlows:
    async def test_udp_leaves_tcp_its_share(self) -> None:
        async with world(max_flows=40) as (tcp, udp):
            server = tcp.server()
            stream, datagrams = tcp.listen(server.backend), udp.listen(udp.server().backend)
            talking = await conversation(udp, datagrams)
            for _ in range(10):
                for _ in range(10):
                    await udp.client(datagrams).ask(b"flood")
                tcp.connect(stream)
                await server.accept()
            assert (tcp.context.capacity.tcp, tcp.context.capacity.udp) == (10, 30)
            await talking.ask(b"still there")
            assert udp.counters.flows == 101

    async def test_tcp_leaves_udp_its_share(self) -> None:
        async with world(max_flows=40) as (tcp, udp):
            server = tcp.server()
            stream, datagrams = tcp.listen(server.backend), udp.listen(udp.server().backend)
            for _ in range(40):
                tcp.connect(stream)
            for _ in range(30):
                await server.accept()
            await eventually(lambda: bool(tcp.context.queue.waiting))
            talking = await conversation(udp, datagrams)
            for _ in range(20):
                await udp.client(datagrams).ask(b"me too")
            await talking.ask(b"still there")
            assert (tcp.context.capacity.tcp, tcp.context.capacity.udp) == (30, 10)
            assert udp.counters.flows == 21

    async def test_tcp_may_have_it_all_where_there_is_no_udp(self) -> None:
        async with world(max_flows=8) as (tcp, udp):
            server = tcp.server()
            stream, datagrams = tcp.listen(server.backend), udp.listen(udp.server().backend)
            datagrams.close()
            for _ in range(9):
                tcp.connect(stream)
            for _ in range(8):
                await server.accept()
            await eventually(lambda: bool(tcp.context.queue.waiting))

    async def test_listeners_that_wait_are_resumed_in_turn(self) -> None:
        """With thousands of Services, every flow that ended made all of their listeners look."""
        async with world(max_flows=1) as (tcp, _):
            tcp.context.queue.resumed, tcp.context.queue.pause = 2, 1000.0
            server = tcp.server()
            streams = [tcp.listen(server.backend) for _ in range(6)]
            first = tcp.connect(streams[0])
            backend = await server.accept()
            for stream in streams:
                tcp.connect(stream)
            await eventually(lambda: len(tcp.context.queue.waiting) == 6)
            streams[0].update(streams[0].route)
            await eventually(lambda: not streams[0]._accepting)
            assert len(tcp.context.queue.waiting) == 6
            resumed: list[int] = []
            tcp.context.queue.waiting = {partial(resumed.append, n): None for n in range(6)}
            backend.close()
            first.close()
            await tcp.idle()
            assert resumed == [0, 1]

    async def test_listeners_do_not_wait_for_others_whose_clients_are_gone(self) -> None:
        async with world(max_flows=1) as (tcp, _):
            tcp.context.queue.resumed = 1
            server = tcp.server()
            streams = [tcp.listen(server.backend) for _ in range(4)]
            first = tcp.connect(streams[0])
            backend = await server.accept()
            clients = [tcp.connect(stream) for stream in streams]
            await eventually(lambda: len(tcp.context.queue.waiting) == 4)
            for stream in streams[:3]:
                stream.close(60.0)
            backend.close()
            first.close()
            await clients[3].send(b"x")
            assert await (await server.accept()).receive(1) == b"x"

    async def test_udp_gives_back_what_is_more_than_its_share(self) -> None:
        async with world(max_flows=8) as (tcp, udp):
            datagrams = udp.listen(udp.server().backend)
            for _ in range(8):
                await udp.client(datagrams).ask(b"we were first")
            server = tcp.server()
            stream = tcp.listen(server.backend)
            for _ in range(2):
                tcp.connect(stream)
                await server.accept()
            assert tcp.context.capacity.udp == 6


class TestDescriptors:
    async def test_udp_answers_newcomers_without_a_free_descriptor(self) -> None:
        async with world() as (_, udp):
            datagrams = udp.listen(udp.server().backend)
            talking = await conversation(udp, datagrams)
            clients = [udp.client(datagrams) for _ in range(60)]
            with free_descriptors(20):
                for client in clients:
                    await client.ask(b"flood")
                await talking.ask(b"still there")
            assert udp.counters.flows == 61
            assert udp.counters.dropped == {"capacity": 40}

    async def test_udp_leaves_tcp_its_share_of_descriptors(self) -> None:
        async with world() as (tcp, udp):
            server = tcp.server()
            stream, datagrams = tcp.listen(server.backend), udp.listen(udp.server().backend)
            clients = [udp.client(datagrams) for _ in range(80)]
            with socket.socket() as late, free_descriptors(40):
                for client in clients[:50]:
                    await client.ask(b"flood")
                late.connect(stream.route.frontend[1:])
                for client in clients[50:]:
                    await client.ask(b"flood")
                    await asyncio.sleep(0)
                await eventually(server.accepts)
            assert tcp.counters.flows == 1
            assert udp.dropped(DropReason.DESCRIPTORS) == 0

    @on_loops_without_a_ring  # The ring is asked instead of epoll.
    @pytest.mark.parametrize("code", [errno.ENOMEM, errno.ENOSPC])
    async def test_no_backend_is_to_blame_when_epoll_takes_no_more(self, code: int) -> None:
        """ENOSPC: the user's watches are used up (fs.epoll.max_user_watches)."""
        full = FullEpoll(code)
        kernel = Kernel(epoll=cast("type[select.epoll]", full.open))
        async with world(kernel=kernel) as (tcp, udp):
            server = tcp.server()
            stream, datagrams = tcp.listen(server.backend), udp.listen(udp.server().backend)
            client = udp.client(datagrams)
            full.keeps = {stream._fd, datagrams.sock.fileno()}
            client.send(b"hello?")
            await eventually(lambda: udp.dropped(DropReason.DESCRIPTORS) == 1)
            waiting = tcp.connect(stream)
            await eventually(lambda: tcp.flows.shortage.active)
            full.keeps = None
            await waiting.send(b"x")
            while await (await server.accept()).receive(1) != b"x":
                pass  # An attempt that could not be registered.
            assert await client.ask(b"hello?") == b"hello?"
            assert udp.counters.dial_failures == tcp.counters.dial_failures == 0

    async def test_no_flow_ends_for_descriptors_that_others_have_taken(self) -> None:
        """Where flows hold next to nothing, ending them does not help."""
        async with world() as (_, udp):
            datagrams = udp.listen(udp.server().backend)
            client, newcomer = udp.client(datagrams), udp.client(datagrams)
            await client.ask(b"hello")
            with free_descriptors(0):
                newcomer.send(b"me too")
                await eventually(lambda: udp.dropped(DropReason.DESCRIPTORS) == 1)
                await client.ask(b"still there")
            assert udp.counters.flows == 1
