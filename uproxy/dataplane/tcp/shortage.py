"""Flows and listeners that wait while the process is out of descriptors or socket memory.

Such a shortage passes, so no client is reset for it at once: clients wait in the kernel's accept
queue, and flows that were accepted already wait here and are served first.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from uproxy.core.flows.counters import DropReason
from uproxy.dataplane.context import Context

PAUSE: Final = 0.1
"""Seconds. asyncio pauses for a whole one; flows that end make room much sooner."""

PATIENCE: Final = 3.75
"""Seconds that a flow waits for a descriptor: as long as all its dials might have taken."""


class Acceptor(Protocol):
    """A listener that has stopped accepting for a while."""

    def resume(self) -> None: ...


class WaitingFlow(Protocol):
    """A flow whose dial could not be made for lack of a descriptor."""

    def retry(self) -> None:
        """Dial again."""

    def drop(self, reason: DropReason) -> None:
        """Give up."""


class Shortage:
    """One for a worker. It tries again every PAUSE, flows in the order of their waiting first."""

    def __init__(self, context: Context, release: Callable[[], None]) -> None:
        self._context = context
        self._reactor = context.reactor
        self._release = release
        """Closes descriptors that are kept unused."""
        self._timer: asyncio.TimerHandle | None = None
        self._acceptors: list[Acceptor] = []
        self._flows: OrderedDict[WaitingFlow, float] = OrderedDict()
        """To the time when their patience ends; the one that has waited longest is first."""

    @property
    def active(self) -> bool:
        """Whether clients must not be accepted now."""
        return self._timer is not None

    def begin(self) -> None:
        """A descriptor or memory was refused."""
        if self._timer is None:
            self._release()
            self._context.queue.reclaim_from_udp()
            self._timer = self._reactor.call_later(PAUSE, self._try_again)

    def resume_after(self, acceptor: Acceptor) -> None:
        """Resume a listener when the shortage is over."""
        self._acceptors.append(acceptor)

    def wait(self, flow: WaitingFlow) -> None:
        """Retry the dial of a flow later, as a descriptor for it was refused."""
        self._context.queue.descriptor_refused()
        self._flows.setdefault(flow, self._reactor.now + PATIENCE)
        self.begin()

    def forget(self, flow: WaitingFlow) -> None:
        """The flow has ended, or was served."""
        if self._flows:
            self._flows.pop(flow, None)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._acceptors.clear()
        self._flows.clear()

    def _try_again(self) -> None:
        # First: then `active` says below whether something was refused again, and `begin` sets the
        # next timer. Otherwise neither would happen, and all would wait for ever.
        self._timer = None
        for flow, until in list(self._flows.items()):
            if self._reactor.now >= until:
                self._reactor.guard(partial(flow.drop, DropReason.DESCRIPTORS))
            elif flow in self._flows:
                self._retry(flow)
            if self.active:
                return  # One was refused again: those behind it have to wait for it.
        # Emptied before the calls: a listener that cannot be registered yet adds itself again, and
        # would be forgotten.
        acceptors, self._acceptors = self._acceptors, []
        for acceptor in acceptors:
            self._reactor.guard(acceptor.resume)

    def _retry(self, flow: WaitingFlow) -> None:
        # Taken out, so that it is there again only if it was refused again. Its patience still
        # counts from the first time, or it would never end (test_patience_ends).
        until = self._flows.pop(flow)
        self._reactor.guard(flow.retry)
        if flow in self._flows:
            self._flows[flow] = until
            self._flows.move_to_end(flow, last=False)
