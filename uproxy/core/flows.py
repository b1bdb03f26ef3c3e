"""Which UDP flows are still alive: UDP has no end, only silence."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Generic, Protocol, TypeVar

from uproxy.core.route import Backend

UNREPLIED_TIMEOUT = 30.0
"""Seconds; conntrack's nf_conntrack_udp_timeout. A flow that nobody answers is a probe, a spoofed
source or a one-way stream, whose next datagram simply begins another."""

_FEW = 64
"""Entries of flows that are gone which may stay, whatever the number of flows."""


class Timed(Protocol):
    """What a flow notes for the table with each datagram: no call, and nothing to be sorted."""

    last: float
    """Monotonic seconds of the last datagram, to or from the client. Never decreases."""
    answered: bool
    """Whether its backend has replied; never taken back."""
    number: int
    """What the table knows it by, and sets; different for all flows, ever."""


F = TypeVar("F", bound=Timed)
_Entry = tuple[float, int]
"""When a flow is known to have had a datagram, and its number."""


class FlowTable(Generic[F]):
    """Flows by the time of their last datagram.

    There are two idle classes, as in conntrack: a flow may be silent for `timeout` seconds once
    its backend has replied, and for `unreplied` seconds at most before that. Times are monotonic
    seconds.

    A heap for each class has every flow at a time when it was not silent yet. That may have been
    long ago, so whatever comes to the top is first put where it belongs by now: once in a timeout
    for a flow with traffic, however much. (To keep flows in order with each datagram took 2 to 7 %
    of the CPU of an echo.)
    """

    __slots__ = ("_flows", "_numbers", "_replied", "_replied_timeout", "_unreplied",
                 "_unreplied_timeout")  # fmt: skip

    def __init__(self, timeout: float, unreplied: float = UNREPLIED_TIMEOUT) -> None:
        self._replied_timeout = timeout
        self._unreplied_timeout = min(unreplied, timeout)
        self._flows: dict[int, F] = {}
        self._unreplied: list[_Entry] = []
        """May have some that were answered since they came here."""
        self._replied: list[_Entry] = []
        self._numbers = count(1)

    def __len__(self) -> int:
        return len(self._flows)

    def admit(self, flow: F) -> None:
        """A flow begins, with a datagram from its client."""
        flow.number = next(self._numbers)
        self._flows[flow.number] = flow
        self._push(flow)

    def discard(self, flow: F) -> None:
        """A flow is over; it need not be in the table."""
        self._flows.pop(flow.number, None)
        for heap in (self._unreplied, self._replied):
            if len(heap) > 2 * len(self._flows) + _FEW:
                heap[:] = [entry for entry in heap if entry[1] in self._flows]
                heapify(heap)

    def evict(self) -> F | None:
        """Take out a flow to make room for another: the one that has been silent for longest,
        of those without a reply if there are any. None if there is no flow.

        Conntrack's early_drop spares what was answered too, so that a flood from spoofed sources
        displaces itself and not the conversations of others.
        """
        for heap in (self._unreplied, self._replied):
            if self._settle(heap) is not None:
                return self._take(heap)
        return None

    def expire(self, now: float) -> list[F]:
        """Take out the flows whose time is over."""
        over = []
        for heap, timeout in self._classes():
            while (last := self._settle(heap)) is not None and last + timeout <= now:
                over.append(self._take(heap))
        return over

    def next_deadline(self) -> float | None:
        """When `expire` will next have something to do, unless there is traffic; None: never."""
        deadlines = []
        for heap, timeout in self._classes():
            if (last := self._settle(heap)) is not None:
                deadlines.append(last + timeout)
        return min(deadlines, default=None)

    def _classes(self) -> tuple[tuple[list[_Entry], float], ...]:
        return (self._unreplied, self._unreplied_timeout), (self._replied, self._replied_timeout)

    def _settle(self, heap: list[_Entry]) -> float | None:
        """Have the flow that has been silent for longest at the top. Its last time, if any."""
        while heap:
            known, number = heap[0]
            flow = self._flows.get(number)
            if flow is not None:
                right = self._replied if flow.answered else self._unreplied
                if right is heap and flow.last <= known:
                    return known
                self._push(flow)
            heappop(heap)
        return None

    def _push(self, flow: F) -> None:
        heap = self._replied if flow.answered else self._unreplied
        heappush(heap, (flow.last, flow.number))

    def _take(self, heap: list[_Entry]) -> F:
        return self._flows.pop(heappop(heap)[1])


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
