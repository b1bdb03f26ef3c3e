"""Waiting for an io_uring: asleep, or awake for a moment.

Whoever sleeps has to be woken up, by another processor and with cold caches; a lonely connection
that asks and answers without pause pays for that twice in each request. So as long as completions
come one at a time and soon, we look for the next one before going to sleep. (Linux does the same
when a guest is idle: its cpuidle governor haltpoll. Measured, keep-alive over one connection: 1.4
times the requests, for 1.4 times the CPU of each; see docs/decisions/0008-busy-polling.md.)
"""

from __future__ import annotations

from collections.abc import Callable
from os import sched_yield
from time import monotonic
from typing import Final, Protocol

from uproxy.uring.abi import SQ_TASKRUN

AWAKE: Final = 100e-6
"""Seconds to look for a completion, and those in which one counts as soon. A request to a pod on
the same node takes half of that."""

LONELY: Final = 32
"""Completions in a row, alone and soon, that make the next worth looking for. To look in vain costs
100 us, at most once in so many."""


class WatchedQueues(Protocol):
    """What is looked at."""

    fields: memoryview
    sq_flags_at: int
    cq_tail_at: int

    def enter(self, to_submit: int, *, get_events: bool) -> int: ...

    def enter_and_wait(self, to_submit: int) -> int: ...


class BusyPoll:
    """Decides how a ring waits."""

    def __init__(self, queues: WatchedQueues, clock: Callable[[], float] = monotonic) -> None:
        self.allowed = False
        """Whether to look before going to sleep."""
        self.alone = 0
        """Completions in a row that came one at a time, and soon."""
        self._queues = queues
        self._clock = clock

    def enter_and_wait(self, to_submit: int) -> int:
        """Submit so many entries and wait for a completion. Returns how many were taken, or -1."""
        queues = self._queues
        if self.alone >= LONELY:
            done = queues.fields[queues.cq_tail_at]
            taken = queues.enter(to_submit, get_events=False)
            if taken != to_submit or queues.fields[queues.cq_tail_at] != done or self._look():
                return taken
            self.alone = 0
            queues.enter_and_wait(0)
            return taken
        begin = self._clock()
        taken = queues.enter_and_wait(to_submit)
        if self._clock() - begin > AWAKE:
            self.alone = 0
        return taken

    def _look(self) -> bool:
        """Whether a completion has come while we were awake."""
        queues, clock = self._queues, self._clock
        fields, sq_flags_at = queues.fields, queues.sq_flags_at
        limit = clock() + AWAKE
        while not fields[sq_flags_at] & SQ_TASKRUN:
            if clock() > limit:
                return False
            # Whom we wait for may have nowhere else to run: without it the p99 of two
            # connections rises to the 3 ms that the scheduler lets us have.
            sched_yield()
        queues.enter(0, get_events=True)
        return True
