"""Which clients a TCP listener admits, and what becomes of its flows."""

from __future__ import annotations

import msgspec
import pytest

from tests.dataplane.peers import OWNER, World, eventually, pattern, world
from uproxy.core.flows.counters import DropReason
from uproxy.core.route import BalancerKind, ServicePortName
from uproxy.dataplane.tcp.epoll_mover import EpollMover
from uproxy.dataplane.tcp.listener import ACCEPT_BATCH
from uproxy.dataplane.tcp.ring_mover import RingMover
from uproxy.net import listening


class TestAdmission:
    @pytest.mark.parametrize(
        ("allowed", "admitted"),
        [
            pytest.param(None, True, id="no restriction"),
            pytest.param(("127.0.0.0/8",), True, id="inside"),
            pytest.param(("10.0.0.0/8", "127.0.0.1/32"), True, id="in one of two"),
            pytest.param(("10.0.0.0/8",), False, id="outside"),
            pytest.param(("::/0",), False, id="only the other family"),
            pytest.param((), False, id="no source at all"),
        ],
    )
    async def test_sources(self, allowed: tuple[str, ...] | None, admitted: bool) -> None:
        async with world() as w:
            server = w.server()
            listener = w.listen(server.backend)
            listener.update(msgspec.structs.replace(listener.route, allowed_sources=allowed))
            client = w.connect(listener)
            if admitted:
                backend = await server.accept()
                await client.send(b"x")
                assert await backend.receive(1) == b"x"
                return
            assert await client.was_reset()
            assert w.dropped(DropReason.SOURCE_REFUSED) == 1
            assert w.counters.flows == 0
            assert not server.has_client()

    async def test_without_backends(self) -> None:
        async with world() as w:
            server = w.server()
            listener = w.listen(server.backend)
            listener.update(msgspec.structs.replace(listener.route, backends=()))
            client = w.connect(listener)
            assert await client.was_reset()
            assert w.dropped(DropReason.NO_BACKEND) == 1

    async def test_this_node_is_served_by_the_cluster_set(self) -> None:
        async with world() as w:
            server = w.server()
            listener = w.listen(server.backend)
            listener.update(msgspec.structs.replace(listener.route, local_backends=()))
            client = w.connect(listener)
            backend = await server.accept()
            await backend.send(b"served")
            assert await client.receive(6) == b"served"
            assert w.dropped(DropReason.NO_BACKEND) == 0

    async def test_max_flows_let_clients_wait(self) -> None:
        async with world(max_flows=2) as w:
            server = w.server()
            listener = w.listen(server.backend)
            clients = [w.connect(listener) for _ in range(4)]
            for client in clients:
                await client.send(b"x")
            first = await server.accept()
            await server.accept()
            await eventually(lambda: bool(w.context.queue.waiting))
            assert (w.context.active, w.counters.flows) == (2, 2)
            assert not server.has_client()
            first.close()
            clients[0].close()
            third = await server.accept()
            assert await third.receive(1) == b"x"
            assert w.counters.flows == 3
            assert not w.counters.dropped


class TestUpdates:
    async def test_new_flows_take_the_new_route(self) -> None:
        async with world() as w:
            old, new = w.server(), w.server()
            listener = w.listen(old.backend)
            before = w.connect(listener)
            backend = await old.accept()
            listener.update(msgspec.structs.replace(listener.route, backends=(new.backend,)))
            w.connect(listener)
            await new.accept()
            await before.send(b"still the old one")
            assert await backend.receive(17) == b"still the old one"

    async def test_flows_stay_with_the_owner_they_began_with(self) -> None:
        async with world() as w:
            server = w.server()
            listener = w.listen(server.backend)
            client = w.connect(listener)
            backend = await server.accept()
            other = ServicePortName("default", "other", "", "TCP")
            listener.update(msgspec.structs.replace(listener.route, owner=other))
            await client.send(b"x")
            assert await backend.receive(1) == b"x"
            w.connect(listener)
            await server.accept()
            assert w.counters.client_bytes == 1
            assert (w.counters.flows, w.context.ports.get(other).counters.flows) == (1, 1)

    async def test_pause_and_resume(self) -> None:
        async with world() as w:
            server = w.server()
            listener = w.listen(server.backend)
            with listener._sock.dup() as held:
                listening.pause(held)
                with pytest.raises(ConnectionRefusedError):
                    w.connect(listener)
                await eventually(lambda: not listener._accepting)
                assert not w.flows.shortage.active
                listening.resume(held)
                listener.update(listener.route)
                w.connect(listener)
                await server.accept()

    async def test_who_waits_is_served_before_the_listener_is_paused(self) -> None:
        async with world() as w:
            server = w.server()
            listener = w.listen(server.backend)
            waiting = [w.connect(listener) for _ in range(ACCEPT_BATCH + 10)]
            listener.update(msgspec.structs.replace(listener.route, backends=()))
            with listener._sock.dup() as held:
                listening.pause(held)
            for _ in waiting:
                (await server.accept()).sock.send(b"served")
            for client in waiting:
                assert await client.receive(6) == b"served"
            await eventually(lambda: not listener._accepting)

    async def test_opened_without_backends_and_resumed_later(self) -> None:
        async with world() as w:
            server = w.server()
            listener = w.listen()
            with listener._sock.dup() as held:
                listening.pause(held)
                with pytest.raises(ConnectionRefusedError):
                    w.connect(listener)
                listening.resume(held)
                listener.update(msgspec.structs.replace(listener.route, backends=(server.backend,)))
                w.connect(listener)
                await server.accept()


class TestClosing:
    async def test_with_grace_flows_may_end(self) -> None:
        async with world() as w:
            server = w.server()
            listener = w.listen(server.backend)
            client = w.connect(listener)
            backend = await server.accept()
            listener.close(60)
            with pytest.raises(ConnectionRefusedError):
                w.connect(listener)
            await client.send(b"x")
            assert await backend.receive(1) == b"x"
            client.finish()
            backend.finish()
            await w.idle()
            assert not w.flows.listeners

    async def test_when_grace_is_over_flows_are_reset(self) -> None:
        async with world() as w:
            server = w.server()
            listener = w.listen(server.backend)
            client = w.connect(listener)
            backend = await server.accept()
            listener.close(0.05)
            assert await client.was_reset()
            assert await backend.was_reset()
            assert not w.flows.listeners

    async def test_without_grace_flows_are_reset_at_once(self) -> None:
        async with world() as w:
            server = w.server()
            listener = w.listen(server.backend)
            client = w.connect(listener)
            await server.accept()
            listener.close(60)
            listener.close(0)
            assert w.context.active == 0
            assert await client.was_reset()
            listener.close(0)

    async def test_draining_accepts_no_client_and_keeps_flows(self) -> None:
        async with world() as w:
            server = w.server()
            listener = w.listen(server.backend)
            client = w.connect(listener)
            backend = await server.accept()
            listener.stop_accepting()
            listener.update(listener.route)
            late = w.connect(listener)  # The kernel's queue takes it.
            await client.send(b"x")
            assert await backend.receive(1) == b"x"
            assert (w.context.active, server.has_client()) == (1, False)
            listener.close(0)
            assert await late.was_reset()


class TestMover:
    async def test_says_what_it_is(self) -> None:
        async with world() as w:
            client, backend = await w.pair()
            await client.send(b"x")
            assert await backend.receive(1) == b"x"
            self.look_at(w)

    def look_at(self, w: World) -> None:
        (listener,) = w.flows.listeners
        (flow,) = listener.flows
        mover = flow.mover
        assert isinstance(mover, EpollMover | RingMover)
        direction = mover.from_client
        kind = type(direction).__name__
        assert repr(direction) == f"<{kind} of {flow!r}>"
        assert repr(mover) == f"<{type(mover).__name__} of {flow!r}>"
        assert "relaying" in repr(flow)
        flow.abort()
        flow.abort()
        direction.abort()
        assert repr(direction) == f"<{kind} of nothing>"
        assert "ended" in repr(flow)


async def test_counters_are_exact() -> None:
    async with world() as w:
        server = w.server()
        listener = w.listen(server.backend, balancer=BalancerKind.LEAST_CONNECTIONS)
        for number in range(1, 4):
            client = w.connect(listener)
            backend = await server.accept()
            assert w.counters.active == number
            await client.send(pattern(1000 * number))
            assert len(await backend.receive(1000 * number)) == 1000 * number
            await backend.send(pattern(10 * number))
            assert len(await client.receive(10 * number)) == 10 * number
        # Up to date although all flows are alive.
        counters = w.counters
        assert (counters.flows, counters.active) == (3, 3)
        assert (counters.client_bytes, counters.backend_bytes) == (6000, 60)
        for each in (*w.clients, *server.accepted):
            each.close()
        await w.idle()
        counters = w.context.ports.get(OWNER).counters
        assert (counters.flows, counters.active) == (3, 0)
        assert (counters.client_bytes, counters.backend_bytes) == (6000, 60)
        assert (counters.dial_failures, counters.retries, counters.dropped) == (0, 0, {})


async def test_three_hundred_flows_at_a_time() -> None:
    async with world() as w:
        server = w.server()
        listener = w.listen(server.backend)
        for _ in range(300):
            client = w.connect(listener)
            await client.send(b"x")
            await server.accept()
        for backend in server.accepted:
            assert await backend.receive(1) == b"x"
            backend.close()
        for client in w.clients:
            assert await client.rest() == b""
            client.close()
        await w.idle()
        assert w.counters.client_bytes == 300
