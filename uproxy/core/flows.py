"""Which UDP flows are still alive: UDP has no end, only silence."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable
from typing import Generic, Protocol, TypeVar

from uproxy.core.route import Backend

UNREPLIED_TIMEOUT = 30.0
"""Seconds; conntrack's nf_conntrack_udp_timeout. A flow that nobody answers is a probe, a spoofed
source or a one-way stream, whose next datagram simply begins another."""

F = TypeVar("F")


class FlowTable(Generic[F]):
    """Flows in order of their last datagram, so that the order itself is the timer queue.

    There are two idle classes, as in conntrack: a flow may be silent for `timeout` seconds once
    its backend has replied, and for `unreplied` seconds at most before that. Times are monotonic
    seconds that never decrease from call to call.
    """

    __slots__ = ("_replied", "_replied_timeout", "_unreplied", "_unreplied_timeout")

    def __init__(self, timeout: float, unreplied: float = UNREPLIED_TIMEOUT) -> None:
        self._replied_timeout = timeout
        self._unreplied_timeout = min(unreplied, timeout)
        self._unreplied: OrderedDict[F, float] = OrderedDict()
        self._replied: OrderedDict[F, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._unreplied) + len(self._replied)

    def admit(self, flow: F, now: float) -> None:
        """A flow begins, with a datagram from its client."""
        self._unreplied[flow] = now

    def touch(self, flow: F, now: float) -> None:
        """Another datagram from the client of a flow in the table."""
        flows = self._replied if flow in self._replied else self._unreplied
        flows[flow] = now
        flows.move_to_end(flow)

    def replied(self, flow: F, now: float) -> None:
        """A datagram from the backend of a flow in the table."""
        if flow not in self._replied:
            del self._unreplied[flow]
        self._replied[flow] = now
        self._replied.move_to_end(flow)

    def discard(self, flow: F) -> None:
        """A flow is over; it need not be in the table."""
        if self._unreplied.pop(flow, None) is None:
            self._replied.pop(flow, None)

    def evict(self) -> F | None:
        """Take out a flow to make room for another: the one that has been silent for longest,
        of those without a reply if there are any. None if there is no flow.

        Conntrack's early_drop spares what was answered too, so that a flood from spoofed sources
        displaces itself and not the conversations of others.
        """
        for flows in (self._unreplied, self._replied):
            if flows:
                return flows.popitem(last=False)[0]
        return None

    def expire(self, now: float) -> list[F]:
        """Take out the flows whose time is over."""
        over = _overdue(self._unreplied, self._unreplied_timeout, now)
        return over + _overdue(self._replied, self._replied_timeout, now)

    def next_deadline(self) -> float | None:
        """When `expire` will next have something to do, unless there is traffic; None: never."""
        deadlines = []
        if self._unreplied:
            deadlines.append(_first(self._unreplied) + self._unreplied_timeout)
        if self._replied:
            deadlines.append(_first(self._replied) + self._replied_timeout)
        return min(deadlines, default=None)


class HasBackend(Protocol):
    @property
    def backend(self) -> Backend: ...


B = TypeVar("B", bound=HasBackend)


def stale(flows: Iterable[B], serving: Collection[Backend]) -> list[B]:
    """The flows to close after a change of endpoints: those whose backend no longer serves.

    The same rule by which kube-proxy deletes conntrack entries, since a client that keeps its port
    would otherwise talk to a pod that is gone for as long as it talks. If nothing serves, there is
    nothing better to offer, and flows are left alone.
    """
    if not serving:
        return []
    return [flow for flow in flows if flow.backend not in serving]


def _first(flows: OrderedDict[F, float]) -> float:
    return next(iter(flows.values()))


def _overdue(flows: OrderedDict[F, float], timeout: float, now: float) -> list[F]:
    over = []
    while flows and _first(flows) + timeout <= now:
        over.append(flows.popitem(last=False)[0])
    return over
