"""What is done for all TCP flows of a worker together."""

from __future__ import annotations

import pytest

from tests.dataplane.peers import OWNER, Peer, World, world
from uproxy.dataplane.tcp import flows
from uproxy.dataplane.tcp.flows import COUNTING_CALLS


class TestCounting:
    async def test_many_flows_are_looked_at_in_parts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(flows, "COUNTED_AT_ONCE", 2)
        async with world() as w:
            await flows_of_a_byte(w, 5)
            counted = []
            for _ in range(3):
                w.flows.collect()
                counted.append(client_bytes(w))
            assert counted == [2, 4, 5]

    async def test_a_few_calls_reach_all_however_many_there_are(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(flows, "COUNTED_AT_ONCE", 1)
        async with world() as w:
            await flows_of_a_byte(w, 2 * COUNTING_CALLS)
            for _ in range(COUNTING_CALLS):
                w.flows.collect()
            assert client_bytes(w) == 2 * COUNTING_CALLS

    async def test_flows_that_end_before_their_part_is_looked_at_count_once(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(flows, "COUNTED_AT_ONCE", 1)
        async with world() as w:
            pairs = await flows_of_a_byte(w, 3)
            w.flows.collect()
            for client, backend in pairs:
                client.finish()
                backend.finish()
            await w.idle()
            for _ in range(COUNTING_CALLS):
                w.flows.collect()
            assert client_bytes(w) == 3


async def flows_of_a_byte(w: World, count: int) -> list[tuple[Peer, Peer]]:
    """The ends of so many flows, each of which has brought its backend a byte."""
    server = w.server()
    listener = w.listen(server.backend)
    pairs = []
    for _ in range(count):
        client, backend = w.connect(listener), await server.accept()
        await client.send(b"x")
        assert await backend.receive(1) == b"x"
        pairs.append((client, backend))
    return pairs


def client_bytes(w: World) -> int:
    """What was counted; `World.counters` would count more."""
    return w.context.ports.get(OWNER).counters.client_bytes
