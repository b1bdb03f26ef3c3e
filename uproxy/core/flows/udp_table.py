"""Which UDP flows are still alive. UDP does not mark the end of a flow, so only silence shows it.

The rules are those of Linux's conntrack, on which clients and kube-proxy rely.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Iterator
from heapq import heapify, heappop, heappush, heapreplace
from itertools import count
from typing import Generic, Protocol, TypeVar

from uproxy.core.route import Backend

UNREPLIED_TIMEOUT = 30.0
"""Seconds, as conntrack's nf_conntrack_udp_timeout. A flow without an answer is a probe, has a
spoofed source, or is a one-way stream, whose next datagram simply begins another flow."""

BRIEF_TIMEOUT = 30.0
"""Seconds for a flow that was answered and is not a conversation yet: a DNS client never uses its
port again. conntrack gives it the short timeout as well."""

ESTABLISHED_AFTER = 2.0
"""Seconds. A flow that was answered and still has traffic by then is a conversation. conntrack
calls it a stream, gives it nf_conntrack_udp_timeout_stream, and spares it when its table is
full."""

_SECOND = 1.0
"""Two flows whose silences differ by fewer seconds than this count as equally silent when one of
them has to be evicted: such a difference is chance."""

_UNUSED_AFTER = 30.0
"""Seconds. An established flow is not in use if it has been silent for so much longer than the flow
that would be evicted in its place."""

_FEW = 64
"""Heap entries of ended flows that may stay, whatever the number of flows."""


class TimedFlow(Protocol):
    """What a flow records for the table at each datagram, with no call and nothing to sort."""

    began: float
    """Monotonic seconds of the first datagram."""
    last: float
    """Monotonic seconds of the last datagram, to or from the client. Never decreases."""
    answered: bool
    """Whether its backend has replied. The table sets it, and never resets it."""
    established: bool
    """Whether it is a conversation. The table sets it, and never resets it."""
    number: int
    """Its number in the table, which sets it. No number is ever used twice."""


F = TypeVar("F", bound=TimedFlow)
_Entry = tuple[float, int]
"""A time at which a flow had a datagram, not necessarily its last one, and the flow's number."""
_Heap = list[_Entry]


class FlowTable(Generic[F]):
    """Flows by the time of their last datagram.

    There are three classes, as in conntrack: unanswered flows; brief flows, which were answered and
    may be over; and established flows, which went on after they were answered. Only the last may be
    silent for `timeout` seconds. Times are seconds of a monotonic clock.

    Each class has a heap, in which a flow is at some time at which it had a datagram. The flow may
    have had others since, and may be of another class by now. So a flow that comes to the top of a
    heap is first moved to where it belongs (`_settle`). This happens once in a timeout, however
    much traffic the flow has. To keep flows in order at each datagram took 2 to 7 % of the CPU of
    an echo.
    """

    __slots__ = ("_brief", "_brief_timeout", "_established", "_established_count",
                 "_established_timeout", "_flows", "_longest", "_numbers", "_unanswered",
                 "_unanswered_count", "_unanswered_timeout")  # fmt: skip

    def __init__(
        self, timeout: float, unreplied: float = UNREPLIED_TIMEOUT, brief: float = BRIEF_TIMEOUT
    ) -> None:
        """All timeouts are in seconds. `unreplied` must not be longer than `brief`, as a flow that
        was answered may still be in the heap of unanswered flows, where it would be looked at too
        late. Raises ValueError."""
        if unreplied > brief:
            raise ValueError("an answer must not shorten the life of a flow")
        self._longest = unreplied, brief
        self.set_timeout(timeout)
        self._flows: dict[int, F] = {}
        self._unanswered: _Heap = []
        self._brief: _Heap = []
        self._established: _Heap = []
        self._unanswered_count = 0
        self._established_count = 0
        self._numbers = count(1)

    def set_timeout(self, timeout: float) -> None:
        """From now on flows may be silent for so long, also those that are in the table."""
        unreplied, brief = self._longest
        self._unanswered_timeout = min(unreplied, timeout)
        self._brief_timeout = min(brief, timeout)
        self._established_timeout = timeout

    def __len__(self) -> int:
        return len(self._flows)

    def __iter__(self) -> Iterator[F]:
        """The flows alive now. They may end during the iteration."""
        return iter(list(self._flows.values()))

    def get(self, number: int) -> F | None:
        """The flow with a number; None if it has ended."""
        return self._flows.get(number)

    def admit(self, flow: F) -> float:
        """Add a flow, which begins with a datagram from its client. Returns when the flow is over
        if there is no more traffic."""
        flow.number = next(self._numbers)
        self._flows[flow.number] = flow
        self._unanswered_count += 1
        heappush(self._unanswered, (flow.last, flow.number))
        return flow.last + self._unanswered_timeout

    def answer(self, flow: F) -> None:
        """Note that the backend of a flow has replied."""
        if not flow.answered:
            flow.answered = True
            self._unanswered_count -= 1

    def establish(self, flow: F) -> None:
        """Note that a flow, which was answered, is a conversation."""
        if not flow.established:
            flow.established = True
            self._established_count += 1

    def discard(self, flow: F) -> None:
        """Remove a flow that is over. It need not be in the table."""
        if self._flows.pop(flow.number, None) is None:
            return  # It was evicted, or has expired: its entry in a heap went with it.
        self._forget(flow)
        for heap in (self._unanswered, self._brief, self._established):
            if len(heap) > 2 * len(self._flows) + _FEW:
                heap[:] = [entry for entry in heap if entry[1] in self._flows]
                heapify(heap)

    def evict(self) -> F | None:
        """Remove a flow to make room for another one, and return it. None if there is no flow.

        Established flows are spared, as by conntrack's early_drop, so that a flood from spoofed
        sources displaces itself and not the conversations of others. There are two exceptions: at
        least a quarter of the table is for flows that are not established, since new clients would
        get no answer otherwise; and an established flow that is not in use may go first.
        """
        heap, last = self._newcomer()
        if last is None or self._crowds_out_newcomers() or self._is_unused(last):
            established = self._settle(self._established)
            heap, last = (heap, last) if established is None else (self._established, established)
        return self._take(heap) if last is not None else None

    def expire(self, now: float, most: int = sys.maxsize) -> list[F]:
        """Remove the flows whose timeout is over, `most` or fewer of them, and return them."""
        over: list[F] = []
        for heap, timeout in self._classes():
            while (last := self._settle(heap)) is not None and last + timeout <= now:
                if len(over) == most:
                    return over
                over.append(self._take(heap))
        return over

    def next_deadline(self) -> float | None:
        """When the next flow is over if there is no more traffic. None if there is no flow."""
        deadlines = []
        for heap, timeout in self._classes():
            if (last := self._settle(heap)) is not None:
                deadlines.append(last + timeout)
        return min(deadlines, default=None)

    def _newcomer(self) -> tuple[_Heap, float | None]:
        """Which of the flows that are not established to evict: the heap that has it at the top,
        and the time of its last datagram.

        The flow that has been silent for longest goes, answered or not. If the longest silences of
        the two classes are less than a second apart, flows come and go in great numbers. Then an
        answered flow goes, which is probably over. But if three quarters of these flows are
        unanswered, it is a flood, and an unanswered flow goes, so that the flood displaces itself.
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
        """Whether established flows have more than three quarters of the table."""
        return 4 * (len(self._flows) - self._established_count) < len(self._flows)

    def _is_unused(self, last: float) -> bool:
        """Whether the established flow that has been silent for longest is not in use: its last
        datagram came long before `last`."""
        heap = self._established
        if not heap or heap[0][0] + _UNUSED_AFTER >= last:
            return False  # Datagrams that the flow has had since cannot change the answer.
        silent = self._settle(heap)
        return silent is not None and silent + _UNUSED_AFTER < last

    def _classes(self) -> tuple[tuple[_Heap, float], ...]:
        return (
            (self._unanswered, self._unanswered_timeout),
            (self._brief, self._brief_timeout),
            (self._established, self._established_timeout),
        )

    def _settle(self, heap: _Heap) -> float | None:
        """Bring the flow that has been silent for longest to the top, and return the time of its
        last datagram. None if the class has no flow."""
        while heap:
            known, number = heap[0]
            flow = self._flows.get(number)
            if flow is None:
                heappop(heap)
                continue
            right = self._heap_of(flow)
            if right is heap:
                if flow.last <= known:
                    return known
                heapreplace(heap, (flow.last, number))
            else:
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
        """Stop counting a removed flow."""
        if not flow.answered:
            self._unanswered_count -= 1
        if flow.established:
            self._established_count -= 1


class HasBackend(Protocol):
    """A flow, as far as `stale` is concerned."""

    @property
    def backend(self) -> Backend: ...


B = TypeVar("B", bound=HasBackend)


def stale(flows: Iterable[B], serving: Collection[Backend]) -> list[B]:
    """The flows to close after a change of endpoints: those whose backend no longer serves.

    kube-proxy deletes conntrack entries by the same rule. A client that keeps using its port would
    otherwise send to a pod that is gone for as long as it sends. If no endpoint serves, there is
    nothing better to offer, and flows are left alone.
    """
    if not serving:
        return []
    return [flow for flow in flows if flow.backend not in serving]
