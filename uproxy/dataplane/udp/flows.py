"""All UDP flows of one worker: which may begin, and when they end.

A flow ends when it has been silent for too long (core/flows/udp_table.py says how long), when
another flow needs its place, or when its listener says so. One timer serves all of them: a timer
for each flow would have to be moved with each datagram, and to keep the flows in order of their
last datagram took 2 to 7 % of the CPU of an echo (docs/decisions/0007-io-uring.md). Instead, a flow
notes the time of each datagram in an attribute, which costs no call. The table looks at that time
only when the flow comes to the top of a heap, and then puts it where it belongs by now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Protocol

from uproxy.core.flows.counters import Counters, DropReason
from uproxy.core.flows.flow_record import Ender
from uproxy.core.flows.udp_table import FlowTable, TimedFlow
from uproxy.core.route import Backend
from uproxy.dataplane.context import Context
from uproxy.dataplane.udp.idle_sockets import IdleSockets
from uproxy.dataplane.udp.loops import LoopDetector

RESOLUTION = 0.05
"""The least number of seconds between two searches for flows that are over. Thousands that began
one after the other do not each wake the worker then."""

CHUNK = 500
"""Flows that end in one go when thousands do: about 5 ms of work, before other flows are served."""

SHED = 64
"""Flows that are ended in one go to make room: about 2 ms of work. More than one has to go only
where limits have changed, or where descriptors ran out unexpectedly."""

_IN_VAIN = 10.0
"""Seconds for which no flows end for a port after that was of no use."""


class EndableFlow(TimedFlow, Protocol):
    """What is needed of a flow here."""

    backend: Backend

    client_bytes: int
    client_datagrams: int
    backend_datagrams: int

    @property
    def counters(self) -> Counters: ...

    def source(self) -> tuple[str, int]: ...

    def account(self) -> None: ...

    def close(self, ender: Ender = ..., reason: str = ...) -> None: ...


class UdpFlows:
    """Owned by the worker. Flows enter when they begin and leave when they close."""

    def __init__(
        self,
        context: Context,
        *,
        table: FlowTable[EndableFlow] | None = None,
        chunk: int = CHUNK,
        resolution: float = RESOLUTION,
    ) -> None:
        """`table` says when flows are over; without it, they live as the settings say."""
        self.table = FlowTable(context.settings.udp_timeout) if table is None else table
        self._chunk = chunk
        self._resolution = resolution
        self._context = context
        self._capacity = context.capacity
        self.loops = LoopDetector(context)
        self.idle = IdleSockets(context.capacity.max_idle, context.reactor.kernel.disconnect)
        """Sockets of flows that have ended."""
        context.queue.on_shortage.append(self.shed)
        self._in_vain_until = 0.0
        """Until when no flows end for a port, as that was of no use."""
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._due = float("inf")
        """When the timer goes off, in the reactor's time: a loop may have a clock of its own."""

    def set_timeout(self, timeout: float) -> None:
        """From now on flows may be silent for so long."""
        self.table.set_timeout(timeout)
        now, deadline = self._context.reactor.now, self.table.next_deadline()
        if deadline is not None and deadline + self._resolution < self._due:
            self._arm(max(deadline, now + self._resolution), now)

    def make_room(self) -> bool:
        """Whether another flow may begin; if need be, the one that matters least ends for it.

        UDP flows are ended, and TCP clients wait, because a datagram that is not taken is lost
        while a connection waits in the kernel's queue. TCP has a share that it does not give back,
        so there may be no UDP flow to end (docs/decisions/0009-who-gives-way.md).
        """
        capacity = self._capacity
        if capacity.tcp + capacity.udp <= capacity.check_above:
            return True
        room = capacity.udp_room(self._context.reactor.now)
        return room > 0 or self._evict(1 - room)

    def is_loop(self, client: tuple[str, int]) -> bool:
        """Whether a client, with the port of the bait or of a frontend, is uproxy itself. Flows to
        a backend that is proven to lead back then end."""
        loops = self.loops
        if loops.is_frontend(client):
            return True
        if client[1] != loops.port:
            return False
        backend = loops.proven_by(self.table.get(loops.bait), client)
        if backend is None:
            return False
        flows = [flow for flow in self.table if flow.backend == backend]
        self.end(flows, Ender.PROXY, DropReason.LOOP.value)
        return True

    def end(
        self, flows: Sequence[EndableFlow], ender: Ender = Ender.KILLED, reason: str = ""
    ) -> None:
        """End flows: a chunk now, and the others after everything else that is ready. Some may have
        ended by then, and are left alone."""
        for flow in flows[: self._chunk]:
            flow.close(ender, reason)
        if len(flows) > self._chunk:
            rest = flows[self._chunk :]
            self._context.reactor.defer(partial(self.end, rest, ender, reason))

    def free_descriptor(self) -> bool:
        """Close the idle sockets, for a new flow that got no descriptor. If there are none, note
        that descriptors have run out, and end another flow if UDP has all that it may have. Returns
        whether it is worth trying again."""
        if self.idle.clear():
            return True
        self._context.queue.descriptor_refused()
        return self._capacity.udp_room(self._context.reactor.now) <= 0 and self._evict(1)

    def free_ports(self) -> bool:
        """Note that a new flow got no port, and end other flows. Returns whether one has ended."""
        now = self._context.reactor.now
        if now < self._in_vain_until:
            return False
        self._capacity.ports_ran_out(now)
        if not self._capacity.is_short_of_ports or not self._evict(SHED):
            return False
        # Before it is tried again: the ring keeps ports of closed sockets until the next turn.
        # Each new flow of this turn would end as many others, and get no port either.
        self._context.reactor.let_go()
        return True

    def freed_in_vain(self) -> None:
        """Note that there was no port even after flows had ended for it, as other programs have
        them all. Otherwise six new flows would end four hundred, and none would begin."""
        self._in_vain_until = self._context.reactor.now + _IN_VAIN

    def shed(self) -> None:
        """End the flows that are more than UDP's share, because TCP clients wait."""
        self.idle.clear()
        room = self._capacity.udp_room(self._context.reactor.now)
        if room < 0:
            self._evict(-room)

    def admit(self, flow: EndableFlow, now: float) -> None:
        """A flow begins. It is connected already, so that it can be a bait."""
        deadline = self.table.admit(flow)
        self._capacity.udp += 1
        if flow.number >= self.loops.next_bait:
            self.loops.set_bait(flow)
        if deadline + self._resolution < self._due:
            self._arm(deadline, now)

    def discard(self, flow: EndableFlow) -> None:
        """A flow that was admitted has ended."""
        self.table.discard(flow)
        self._capacity.udp -= 1
        if not self._capacity.udp:
            self.idle.clear()
        # Last, since listeners that are resumed look at the number of flows.
        if self._context.queue.waiting:
            self._context.queue.resume_if_room()

    def collect(self) -> None:
        """Bring the counters of all ports up to date, as TcpFlows.collect does. A flow counts by
        itself until then, which costs less for each datagram."""
        for flow in self.table:
            # Bytes as well: one datagram may have been taken back, and another one have come.
            if flow.client_datagrams or flow.backend_datagrams or flow.client_bytes:
                flow.account()

    def close(self) -> None:
        """Stop the timer. The listeners end their flows themselves."""
        if self._timer is not None:
            self._timer.cancel()

    def _evict(self, count: int) -> bool:
        """End `count` flows, SHED at most, those that matter least first. Returns False if there
        was none."""
        ports = self._capacity.is_short_of_ports
        reason = DropReason.PORTS if ports else DropReason.CAPACITY
        for number in range(min(count, SHED)):
            flow = self.table.evict()
            if flow is None:
                return number > 0
            # It is no longer in the table, but still in its listener, and its socket is open:
            # `close` is needed all the same (udp-evicted-and-forgotten).
            flow.counters.drop(reason)
            flow.close(Ender.RESOURCES, reason.value)
        return True

    def _arm(self, due: float, now: float) -> None:
        self.close()
        self._due = due
        self._timer = self._loop.call_later(due - now, self._expire)

    def _expire(self) -> None:
        self._due = float("inf")
        now = self._context.reactor.tick()
        over = self.table.expire(now, self._chunk)
        for flow in over:
            flow.close(Ender.BOTH if flow.answered else Ender.IDLE)
        if len(over) == self._chunk:
            # So that `admit` sets no timer beside the deferred call.
            self._due = now
            self._context.reactor.defer(self._expire)
            return
        deadline = self.table.next_deadline()
        if deadline is not None:
            self._arm(max(deadline, now + self._resolution), now)
