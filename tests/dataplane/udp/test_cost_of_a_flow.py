"""What a UDP flow of one datagram and one reply costs the worker, as those of DNS clients.

Counted, not timed, as for a connection (tests/dataplane/tcp/test_cost_of_a_connection.py). If a
change makes a number smaller, write the smaller one here. Why sockets are used again is in
docs/decisions/0026-datagrams-in-batches.md.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import pytest

from tests.dataplane.counted_calls import counted
from tests.dataplane.udp.world import World, eventually, world
from uproxy.dataplane.reactor import RingReactor
from uproxy.dataplane.udp.idle_sockets import AGE
from uproxy.dataplane.udp.listener import UdpListener


class Cost(NamedTuple):
    """Of one flow."""

    calls: float
    """Of functions of uproxy."""
    system_calls: float
    """By methods of sockets and of the epoll. Disconnecting one is none of them."""


COSTS: Final = {
    ("epoll", "room"): Cost(37, 7),
    ("epoll", "displaces"): Cost(64, 7),
    ("ring", "room"): Cost(45, 1),
    ("ring", "displaces"): Cost(70, 2),
}
TOLERANCE: Final = 2
FLOWS: Final = 60
_OF_THE_TEST: Final = frozenset(
    {"Ring.poll_add", "Ring.add_callback", "Ring.remove_callback", "SubmissionQueue.queue_sqe"}
)
"""The test's own backend waits by the same ring."""


async def exchange(w: World, listener: UdpListener) -> None:
    """A flow for each of many clients, step by step at the same time."""
    clients = [w.client(listener) for _ in range(FLOWS)]
    for client in clients:
        client.send(b"question")
    for client in clients:
        await client.receive()
        client.sock.close()
    # Until then, their sockets are not used again.
    now = w.reactor.kernel.monotonic
    ended = now()
    await eventually(lambda: now() > ended + 2 * AGE)


@pytest.mark.parametrize(("case", "most"), [("room", 1000), ("displaces", 2 * FLOWS)])
async def test_a_flow_takes_no_more_steps_than_before(case: str, most: int) -> None:
    async with world(max_flows=most) as w:
        listener = w.listen(w.server(b"a").backend)
        # As for most backends: their ports are lower than those that the kernel chooses.
        w.context.locality.lowest_local_port = 65536
        for _ in range(5):
            await exchange(w, listener)
        with counted() as counts:
            await exchange(w, listener)
        calls = sum(times for name, times in counts.calls.items() if name not in _OF_THE_TEST)
        cost = Cost(calls / FLOWS, counts.system_calls.total() / FLOWS)
        expected = COSTS["ring" if isinstance(w.reactor, RingReactor) else "epoll", case]
        assert cost.calls < expected.calls + TOLERANCE, (cost, counts.calls)
        assert cost.system_calls < expected.system_calls + 1, (cost, counts.system_calls)
