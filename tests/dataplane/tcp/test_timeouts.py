"""How long TCP flows may be idle, and half-closed."""

from __future__ import annotations

import asyncio
import logging
import socket

import pytest

from tests.dataplane.peers import OWNER, PATIENCE, eventually, world
from uproxy.core.flows.counters import Counters, DropReason


class TestTimeouts:
    async def test_idle_flows_end_and_busy_ones_do_not(self) -> None:
        async with world(tcp_idle_timeout=0.3) as w:
            idle, idle_backend = await w.pair()
            busy, busy_backend = await w.pair()
            async with asyncio.timeout(PATIENCE):
                while not w.dropped(DropReason.IDLE):
                    await busy.send(b"x")
                    assert await busy_backend.receive(1) == b"x"
                    await asyncio.sleep(0.01)
            assert await idle.was_reset()
            assert await idle_backend.was_reset()
            await busy_backend.send(b"y")
            assert await busy.receive(1) == b"y"

    async def test_a_flow_that_cannot_be_ended_spares_no_other(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.CRITICAL, logger="uproxy")  # Its records would keep the flow.
        asked: list[DropReason] = []

        class FailingOnce(Counters):
            def drop(self, reason: DropReason) -> None:
                asked.append(reason)
                if len(asked) == 1:
                    raise ValueError("a bug")
                super().drop(reason)

        async with world(tcp_idle_timeout=0.2) as w:
            w.context.ports.get(OWNER).counters = FailingOnce()
            pairs = [await w.pair() for _ in range(3)]
            for client, backend in pairs:
                assert await client.was_reset()
                assert await backend.was_reset()
            assert w.reactor.failures == 1
            w.reactor.failures = 0

    async def test_half_closed_flows_end_sooner(self) -> None:
        async with world(half_close_timeout=0.2) as w:
            client, backend = await w.pair()
            whole, whole_backend = await w.pair()
            client.finish()
            assert await backend.rest() == b""
            assert await client.was_reset()
            assert w.dropped(DropReason.IDLE) == 1
            await whole.send(b"x")
            assert await whole_backend.receive(1) == b"x"

    async def test_half_closed_flows_live_while_bytes_flow(self) -> None:
        async with world(half_close_timeout=0.2) as w:
            client, backend = await w.pair()
            other, _ = await w.pair()
            client.finish()
            other.finish()
            async with asyncio.timeout(PATIENCE):
                while not w.dropped(DropReason.IDLE):
                    await backend.send(b"x")
                    assert await client.receive(1) == b"x"
                    await asyncio.sleep(0.01)
            backend.close()
            assert await client.rest() == b""

    async def test_time_before_a_half_close_does_not_count(self) -> None:
        async with world(half_close_timeout=0.8) as w:
            marker, _ = await w.pair()
            client, backend = await w.pair()
            marker.finish()
            await eventually(lambda: w.dropped(DropReason.IDLE) == 1)
            client.finish()
            assert await backend.rest() == b""
            until = asyncio.get_running_loop().time() + 0.4  # At least one look at all flows.
            await eventually(lambda: asyncio.get_running_loop().time() > until)
            await backend.send(b"late reply")
            backend.close()
            assert await client.rest() == b"late reply"

    async def test_backends_are_watched_by_keepalive(self) -> None:
        async with world(tcp_idle_timeout=60.0, half_close_timeout=0.2) as w:
            await w.pair()
            (listener,) = w.flows.listeners

            def kept_alive() -> bool:
                (flow,) = listener.flows
                assert flow.sock is not None
                return bool(flow.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

            await eventually(kept_alive)
