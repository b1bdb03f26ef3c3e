"""Which UDP flows are still alive: UDP has no end, only silence."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Iterator
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Generic, Protocol, TypeVar

from uproxy.core.route import Backend

UNREPLIED_TIMEOUT = 30.0
"""Seconds; conntrack's nf_conntrack_udp_timeout. A flow that nobody answers is a probe, a spoofed
source or a one-way stream, whose next datagram simply begins another."""

BRIEF_TIMEOUT = 30.0
"""Seconds for a flow that was answered and is no conversation yet: a DNS client never comes back
to its port. Conntrack gives it its short timeout as well."""

ESTABLISHED_AFTER = 2.0
"""Seconds. A flow that was answered and still has traffic by then is a conversation; conntrack
calls it a stream, gives it nf_conntrack_udp_timeout_stream, and spares it when full."""

_SECOND = 1.0
"""Seconds of silence that tell one flow from another when somebody has to go. What differs by less
differs by chance."""

_AWAY = 30.0
"""Seconds. An established flow that has been silent for so much longer than the newcomer which
would have to go instead is not in use."""

_FEW = 64
"""Entries of flows that are gone which may stay, whatever the number of flows."""


class Timed(Protocol):
    """What a flow notes for the table with each datagram: no call, and nothing to be sorted."""

    began: float
    """Monotonic seconds of the first datagram."""
    last: float
    """Monotonic seconds of the last datagram, to or from the client. Never decreases."""
    answered: bool
    """Whether its backend has replied; never taken back. The table sets it."""
    established: bool
    """Whether it is a conversation; never taken back. The table sets it."""
    number: int
    """What the table knows it by, and sets; different for all flows, ever."""


F = TypeVar("F", bound=Timed)
_Entry = tuple[float, int]
"""When a flow is known to have had a datagram, and its number."""
_Heap = list[_Entry]


class FlowTable(Generic[F]):
    """Flows by the time of their last datagram.

    There are three classes, as in conntrack: unanswered flows; brief ones, which were answered and
    may be over with that; and established ones, which went on after they were answered. Only the
    last may be silent for `timeout` seconds. Times are monotonic seconds.

    A heap for each class has every flow at a time when it was not silent yet, and in a class that
    may be over. Both may be long ago, so whatever comes to the top is first put where it belongs by
    now: once in a timeout for a flow with traffic, however much. (To keep flows in order with each
    datagram took 2 to 7 % of the CPU of an echo.)
    """

    __slots__ = ("_brief", "_brief_timeout", "_established", "_established_count",
                 "_established_timeout", "_flows", "_numbers", "_unanswered",
                 "_unanswered_count", "_unanswered_timeout")  # fmt: skip

    def __init__(
        self, timeout: float, unreplied: float = UNREPLIED_TIMEOUT, brief: float = BRIEF_TIMEOUT
    ) -> None:
        """`unreplied` must not be longer than `brief`: a flow that has been answered may still be
        in the heap of those that have not, behind one that is due later. Raises ValueError."""
        if unreplied > brief:
            raise ValueError("an answer must not shorten the life of a flow")
        self._unanswered_timeout = min(unreplied, timeout)
        self._brief_timeout = min(brief, timeout)
        self._established_timeout = timeout
        self._flows: dict[int, F] = {}
        self._unanswered: _Heap = []
        self._brief: _Heap = []
        self._established: _Heap = []
        self._unanswered_count = 0
        self._established_count = 0
        self._numbers = count(1)

    def __len__(self) -> int:
        return len(self._flows)

    def __iter__(self) -> Iterator[F]:
        """As of now: they may end meanwhile."""
        return iter(list(self._flows.values()))

    def get(self, number: int) -> F | None:
        """The flow with a number, if it is still there."""
        return self._flows.get(number)

    def admit(self, flow: F) -> float:
        """A flow begins, with a datagram from its client. Returns when it is over, unless there is
        more traffic."""
        flow.number = next(self._numbers)
        self._flows[flow.number] = flow
        self._unanswered_count += 1
        heappush(self._unanswered, (flow.last, flow.number))
        return flow.last + self._unanswered_timeout

    def answer(self, flow: F) -> None:
        """The backend of a flow has replied."""
        if not flow.answered:
            flow.answered = True
            self._unanswered_count -= 1

    def establish(self, flow: F) -> None:
        """A flow that was answered has turned out to be a conversation."""
        if not flow.established:
            flow.established = True
            self._established_count += 1

    def discard(self, flow: F) -> None:
        """A flow is over; it need not be in the table."""
        if self._flows.pop(flow.number, None) is not None:
            self._forget(flow)
        for heap, _ in self._classes():
            if len(heap) > 2 * len(self._flows) + _FEW:
                heap[:] = [entry for entry in heap if entry[1] in self._flows]
                heapify(heap)

    def evict(self) -> F | None:
        """Take out a flow to make room for another. None if there is no flow.

        What is established is spared, as by conntrack's early_drop, so that a flood from spoofed
        sources displaces itself and not the conversations of others. But a quarter of the table is
        for newcomers, who would not be answered otherwise, and so are flows that nobody uses.
        """
        heap, last = self._newcomer()
        if last is None or self._crowds_out_newcomers() or self._is_away(last):
            established = self._settle(self._established)
            heap, last = (heap, last) if established is None else (self._established, established)
        return self._take(heap) if last is not None else None

    def expire(self, now: float, most: int = sys.maxsize) -> list[F]:
        """Take out the flows whose time is over, or so many of them."""
        over: list[F] = []
        for heap, timeout in self._classes():
            while (last := self._settle(heap)) is not None and last + timeout <= now:
                if len(over) == most:
                    return over
                over.append(self._take(heap))
        return over

    def next_deadline(self) -> float | None:
        """When `expire` will next have something to do, unless there is traffic; None: never."""
        deadlines = []
        for heap, timeout in self._classes():
            if (last := self._settle(heap)) is not None:
                deadlines.append(last + timeout)
        return min(deadlines, default=None)

    def _newcomer(self) -> tuple[_Heap, float | None]:
        """Of the flows that are not established, the one that can best be spared: the heap that
        has it at its top, and since when it has been silent.

        It is whoever has been silent for longer, answered or not. Where no second lies between
        them, very many come and go: then a finished exchange makes room for one under way, unless
        three quarters have no answer and so displace each other, as a flood does.
        """
        unanswered, brief = self._settle(self._unanswered), self._settle(self._brief)
        if unanswered is None or brief is None:
            return (self._unanswered, unanswered) if brief is None else (self._brief, brief)
        if abs(unanswered - brief) > _SECOND:
            waiting_first = unanswered < brief
        else:
            newcomers = len(self._flows) - self._established_count
            waiting_first = 4 * (self._unanswered_count + 1) >= 3 * newcomers
        return (self._unanswered, unanswered) if waiting_first else (self._brief, brief)

    def _crowds_out_newcomers(self) -> bool:
        """Whether established flows hold more than three quarters of the table."""
        return 4 * (len(self._flows) - self._established_count) < len(self._flows)

    def _is_away(self, last: float) -> bool:
        """Whether an established flow has been silent since long before `last`."""
        heap = self._established
        if not heap or heap[0][0] + _AWAY >= last:
            return False  # It need not be looked up what that flow has done since.
        silent = self._settle(heap)
        return silent is not None and silent + _AWAY < last

    def _classes(self) -> tuple[tuple[_Heap, float], ...]:
        return (
            (self._unanswered, self._unanswered_timeout),
            (self._brief, self._brief_timeout),
            (self._established, self._established_timeout),
        )

    def _settle(self, heap: _Heap) -> float | None:
        """Have the flow that has been silent for longest at the top. Its last time, if any."""
        while heap:
            known, number = heap[0]
            flow = self._flows.get(number)
            if flow is not None:
                right = self._heap_of(flow)
                if right is heap and flow.last <= known:
                    return known
                heappush(right, (flow.last, number))
            heappop(heap)
        return None

    def _heap_of(self, flow: F) -> _Heap:
        if not flow.answered:
            return self._unanswered
        if not flow.established and flow.last - flow.began < ESTABLISHED_AFTER:
            return self._brief
        self.establish(flow)
        return self._established

    def _take(self, heap: _Heap) -> F:
        flow = self._flows.pop(heappop(heap)[1])
        self._forget(flow)
        return flow

    def _forget(self, flow: F) -> None:
        """A flow no longer counts."""
        if not flow.answered:
            self._unanswered_count -= 1
        if flow.established:
            self._established_count -= 1


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
