"""What happens when a worker has all the flows that it may have: TCP listeners wait, UDP flows end.

A TCP client loses nothing by waiting in the kernel's accept queue, so its listener stops accepting
and is called when there is room. A datagram that is not taken is lost, so UDP makes room at once
(udp/flows.py), and while TCP listeners wait, it gives back what is more than its own share
(docs/decisions/0009-who-gives-way.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import islice
from typing import Final

from uproxy.core.flows.capacity import Capacity
from uproxy.dataplane.reactor import Reactor

RESUMED: Final = 8
"""Listeners that are called when a flow has ended. All of them would be thousands, of which one
gets the place and the others find that it has gone."""

PAUSE: Final = 0.1
"""Seconds until the next ones are called, in case those that were had no client any more, or limits
have changed without the end of a flow."""


class CapacityQueue:
    """The listeners of a worker that wait for room."""

    def __init__(self, reactor: Reactor, capacity: Capacity) -> None:
        self.waiting: dict[Callable[[], None], None] = {}
        """Called once, then forgotten, when TCP has room again: those that have waited longest
        first."""
        self.on_shortage: list[Callable[[], None]] = []
        """Called whenever TCP has no room: UDP gives back what is more than its share."""
        self._reactor = reactor
        self._capacity = capacity
        self.resumed = RESUMED
        self.pause = PAUSE
        self._timer: asyncio.TimerHandle | None = None

    def descriptor_refused(self) -> None:
        """A descriptor, or memory for one, was refused."""
        self._capacity.ran_out(self._reactor.now)

    def wait(self, resume: Callable[[], None]) -> None:
        """TCP has no room: call once when there may be some."""
        # In this order: UDP flows that end now resume those that wait (UdpFlows.discard). A
        # listener that waits already keeps its place, as two references to its method are equal.
        self.waiting[resume] = None
        self.reclaim_from_udp()
        if self._timer is None:
            self._timer = self._reactor.call_later(self.pause, self._look_again)

    def reclaim_from_udp(self) -> None:
        """TCP clients have to wait, so UDP keeps no more than its share."""
        for give_back in self.on_shortage:
            give_back()

    def resume_if_room(self) -> None:
        """A flow of either protocol has ended."""
        if self.waiting and self._capacity.tcp_room(self._reactor.now) > 0:
            for resume in list(islice(self.waiting, self.resumed)):
                # Before the call: a listener that finds no room waits again, at the end.
                del self.waiting[resume]
                resume()

    def close(self) -> None:
        """Call nothing any more."""
        self.waiting.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _look_again(self) -> None:
        self._timer = None
        self.resume_if_room()
        if self.waiting:
            self._timer = self._reactor.call_later(self.pause, self._look_again)
