"""What the UDP listeners of one worker share: a buffer, the capacity, and one timer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Protocol

from uproxy.core.flows.counters import Counters, DropReason
from uproxy.core.flows.udp_table import FlowTable, Timed
from uproxy.core.route import Backend
from uproxy.dataplane.context import Context
from uproxy.dataplane.udp.loops import Circles
from uproxy.uring.datagrams import Datagrams

BUFFER = 65536
"""Bytes; a UDP datagram has 65,535 at most, header included, and is never truncated."""

RESOLUTION = 0.05
"""Seconds between two looks for flows that are over, at least, so that thousands that began one
after the other do not each wake the worker."""


CHUNK = 500
"""Flows that end in one go when thousands do: about 5 ms of work, then others get their turn."""

SHED = 64
"""Flows that are ended in one go: about 2 ms of work. More than one has to go only where limits
have changed, or were met unexpectedly."""


class Expiring(Timed, Protocol):
    """A flow, as far as the engine is concerned."""

    backend: Backend

    @property
    def counters(self) -> Counters: ...

    def source(self) -> tuple[str, int]: ...

    def close(self) -> None: ...


class UdpEngine:
    """Owned by the worker. Flows enter when they begin and leave when they close."""

    def __init__(self, context: Context, datagrams: Datagrams | None) -> None:
        self.flows: FlowTable[Expiring] = FlowTable(context.settings.udp_timeout)
        buffer = bytearray(BUFFER)
        self.buffer = memoryview(buffer)
        """Where datagrams are received without a ring; the content is valid until the next one."""
        self.datagrams = datagrams
        """What the ring receives into; None: epoll does all the work."""
        self._context = context
        self._capacity = context.capacity
        self.circles = Circles(context)
        context.on_need.append(self.shed)
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._due = float("inf")
        """When the timer goes off, in the reactor's time: a loop may have a clock of its own."""

    def make_room(self) -> bool:
        """Whether another flow may begin; if need be by ending the one that matters least.

        TCP has a share that it need not give back, so there may be no UDP flow to end.
        """
        capacity = self._capacity
        if capacity.tcp + capacity.udp <= capacity.ample:
            return True
        room = capacity.udp_room(self._context.reactor.now)
        return room > 0 or self._end(1 - room)

    def goes_round(self, client: tuple[str, int]) -> bool:
        """Whether a client, with the port of the bait or of a frontend, is ourselves. Flows to a
        backend that is proven to lead back then end."""
        circles = self.circles
        if circles.is_frontend(client):
            return True
        if client[1] != circles.port:
            return False
        backend = circles.closes(self.flows.get(circles.bait), client)
        if backend is None:
            return False
        self.end([flow for flow in self.flows if flow.backend == backend])
        return True

    def end(self, flows: Sequence[Expiring]) -> None:
        """End flows, of which some may have ended: the first ones at once."""
        for flow in flows[:CHUNK]:
            flow.close()
        if len(flows) > CHUNK:
            self._context.reactor.defer(partial(self.end, flows[CHUNK:]))

    def lack(self) -> bool:
        """Whether there is a descriptor for a flow that got none, now that another was ended."""
        self._context.ran_out()
        return self._capacity.udp_room(self._context.reactor.now) <= 0 and self._end(1)

    def shed(self) -> None:
        """Give back what is more than UDP's share."""
        room = self._capacity.udp_room(self._context.reactor.now)
        if room < 0:
            self._end(-room)

    def admit(self, flow: Expiring, now: float) -> None:
        """A flow begins."""
        deadline = self.flows.admit(flow)
        self._capacity.udp += 1
        if flow.number >= self.circles.due:
            self.circles.lay(flow)
        if deadline + RESOLUTION < self._due:
            self._arm(deadline, now)

    def discard(self, flow: Expiring) -> None:
        """A flow that was admitted has ended."""
        self.flows.discard(flow)
        self._capacity.udp -= 1
        if self._context.on_room:
            self._context.resume_if_room()

    def close(self) -> None:
        """Stop the timer. The listeners end their flows themselves."""
        if self._timer is not None:
            self._timer.cancel()

    def _end(self, count: int) -> bool:
        """End some flows, those that matter least. False if there was none."""
        for number in range(min(count, SHED)):
            flow = self.flows.evict()
            if flow is None:
                return number > 0
            flow.counters.drop(DropReason.CAPACITY)
            flow.close()
        return True

    def _arm(self, due: float, now: float) -> None:
        self.close()
        self._due = due
        self._timer = self._loop.call_later(due - now, self._expire)

    def _expire(self) -> None:
        self._due = float("inf")
        now = self._context.reactor.tick()
        over = self.flows.expire(now, CHUNK)
        for flow in over:
            flow.close()
        if len(over) == CHUNK:
            self._due = now
            self._context.reactor.defer(self._expire)
            return
        deadline = self.flows.next_deadline()
        if deadline is not None:
            self._arm(max(deadline, now + RESOLUTION), now)
