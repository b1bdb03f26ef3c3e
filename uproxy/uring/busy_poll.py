"""Waiting for an io_uring: asleep, or awake for a moment.

A process that sleeps has to be woken up by another processor, and goes on with cold caches. A
single connection that asks and answers without pause pays for that twice in each request. So as
long as completions come one at a time and soon, we look for the next one before we go to sleep.
(Linux does the same when a guest is idle: its cpuidle governor haltpoll. Measured, keep-alive over
one connection: 1.4 times the requests, for 1.4 times the CPU of each; see
docs/decisions/0008-busy-polling.md, which also has the alternatives.)
"""

from __future__ import annotations

from collections.abc import Callable
from os import sched_yield
from time import monotonic
from typing import Final, Protocol

from uproxy.uring.abi import SQ_TASKRUN

POLL_SECONDS: Final = 100e-6
"""How long to look for a completion; one that comes within that time came soon. A request to a pod
on the same node takes half of it."""

STREAK: Final = 32
"""Completions in a row, each alone and soon, that make the next worth looking for. Looking in vain
costs 100 us, at most once in that many. With 16 or 64 the gain is the same within the noise."""


class PolledQueues(Protocol):
    """What is looked at, and how to wait."""

    fields: memoryview
    sq_flags_at: int
    cq_tail_at: int

    def enter(self, to_submit: int, *, get_events: bool) -> int: ...

    def enter_and_wait(self, to_submit: int) -> int: ...


class BusyPoll:
    """Decides how a ring waits. `Ring` counts the streak, and asks here while there is one."""

    def __init__(self, queues: PolledQueues, clock: Callable[[], float] = monotonic) -> None:
        self.allowed = False
        """Whether to look before going to sleep."""
        self.streak = 0
        """Completions in a row that came one at a time, and soon."""
        self._queues = queues
        self._clock = clock

    def enter_and_wait(self, to_submit: int) -> int:
        """Submit `to_submit` SQEs and wait for a completion. Returns how many were taken, or -1."""
        queues = self._queues
        if self.streak >= STREAK:
            cq_tail = queues.fields[queues.cq_tail_at]
            taken = queues.enter(to_submit, get_events=False)
            # What completes at once is in the CQ now, and what was not taken comes first: neither
            # is to be waited for.
            if taken != to_submit or queues.fields[queues.cq_tail_at] != cq_tail or self._look():
                return taken
            self.streak = 0
            queues.enter_and_wait(0)
            return taken
        begin = self._clock()
        taken = queues.enter_and_wait(to_submit)
        if self._clock() - begin > POLL_SECONDS:
            self.streak = 0
        return taken

    def _look(self) -> bool:
        """Whether a completion has come while we were awake."""
        queues, clock = self._queues, self._clock
        fields, sq_flags_at = queues.fields, queues.sq_flags_at
        limit = clock() + POLL_SECONDS
        # The kernel sets this flag when a packet arrives for an operation
        # (IORING_SETUP_TASKRUN_FLAG), so that there is no system call until there is something to
        # be had.
        while not fields[sq_flags_at] & SQ_TASKRUN:
            if clock() > limit:
                return False
            # The peer that we wait for may have no other processor to run on: without yielding the
            # p99 of two connections rises to the 3 ms that the scheduler lets us have.
            sched_yield()
        queues.enter(0, get_events=True)
        return True
