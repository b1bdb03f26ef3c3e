"""Time, chance and the trace of one simulation.

Nothing here passes by itself. A system call of the simulated process takes a few microseconds, and
what others do meanwhile (the network, clients, backends, the control process) are events that have
a time. Whoever waits jumps to the next of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from enum import StrEnum
from heapq import heappop, heappush
from random import Random
from typing import Final

MOST_EVENTS: Final = 60_000
"""A simulation with more of them does not come to an end."""


class Violation(BaseException):
    """Something that must never be. Not an Exception, so that no handler of the data plane takes
    it for a failure of its own."""


class Fault(StrEnum):
    """What a kernel may do at any time, although it rarely does."""

    SHORT_SEND = "a socket takes a part of what it has room for"
    FULL_SEND = "a socket with room takes nothing (EAGAIN)"
    NO_MEMORY_SEND = "a socket takes nothing (ENOBUFS)"
    SPURIOUS_EVENT = "an event for which there is no reason, or no longer"
    SHUFFLED_EVENTS = "events of one batch are in any order"
    NO_BUFFERS = "the ring finds no buffer (ENOBUFS)"
    RECEIVE_ENDS = "a multishot receive ends with what it has received"
    LATE_WORK = "the ring leaves some of what is to be done for the next time"
    PART_SUBMITTED = "the ring takes only some of what was submitted"
    ENTER_REFUSED = "io_uring_enter is refused for a moment"
    EPOLL_FAILS = "epoll_wait has no memory (ENOMEM)"
    NO_WATCH = "epoll has no memory for another descriptor (ENOMEM)"
    NO_DESCRIPTOR = "a new descriptor is refused (EMFILE, ENFILE)"
    NO_SOCKET_MEMORY = "a new connection has no memory (ENOBUFS)"
    NO_PORT = "a new connection or flow finds no free port (EADDRNOTAVAIL, EAGAIN)"
    NO_ROUTE = "a new connection finds no route (ENETUNREACH)"
    ACCEPT_FAILS = "accept reports what happened to a client (ECONNABORTED)"
    NO_SPLICE = "splice is refused (EINVAL, ENOMEM)"
    SHORT_SPLICE = "splice moves less than it could"
    LOST_DATAGRAM = "a datagram gets lost on the way"
    OPTION_FAILS = "an option of a socket is refused"


class World:
    """What is shared by all that is simulated."""

    def __init__(
        self, seed: str, rates: Mapping[Fault, float], *, tracing: bool, slowness: float = 1.0
    ) -> None:
        """`slowness`: how long the process takes for what it does, compared to others."""
        self.random = Random(seed)
        self.now = 1000.0
        """Seconds of the monotonic clock."""
        self.rates = dict(rates)
        """How probable a fault is, each time that there is an occasion."""
        self.trace: list[str] | None = [] if tracing else None
        self.faulty = False
        """Whether faults may happen at all; not while everything is set up or taken down."""
        self.happened: Counter[Fault] = Counter()
        """How many there were."""
        self.looks: list[Callable[[], None]] = []
        """Called whenever the process is about to wait."""
        self.count = 0
        """Of events."""
        self._pace = 6e-6 * slowness
        self._events: list[tuple[float, int, Callable[[], None]]] = []

    def chance(self, fault: Fault) -> bool:
        """Whether it happens now."""
        rate = self.rates.get(fault) if self.faulty else None
        if rate is None or self.random.random() >= rate:
            return False
        self.happened[fault] += 1
        if self.trace is not None:
            self.note("kernel", f"fault: {fault.value}")
        return True

    def note(self, who: str, what: str) -> None:
        """Add a line to the trace. Callers look first whether there is one."""
        if self.trace is not None:
            self.trace.append(f"{(self.now - 1000.0) * 1e3:12.3f} ms  {who:<12} {what}")

    def after(self, delay: float, callback: Callable[[], None]) -> None:
        """Call once in so many seconds."""
        self.count += 1
        heappush(self._events, (self.now + delay, self.count, callback))

    def soon(self, callback: Callable[[], None]) -> None:
        """Call once after an unforeseeable while, mostly a short one."""
        self.after(self.delay(), callback)

    def delay(self) -> float:
        """Seconds that something takes which depends on others."""
        die = self.random.random()
        if die < 0.5:
            return die * 40e-6
        return die * 400e-6 if die < 0.9 else die * 0.01

    def call(self) -> None:
        """The process makes a system call: time passes, and what is due happens."""
        self.now += self._pace * (0.2 + self.random.random())
        self._catch_up()

    def wait(self, ready: Callable[[], bool], until: float | None) -> bool:
        """Let time pass until something is ready, or until then. Whether it is ready."""
        for look in self.looks:
            look()
        self._catch_up()
        events = self._events
        while not ready():
            if until is not None and (not events or events[0][0] > until):
                self.now = max(self.now, until)
                return ready()
            if not events:
                raise Violation("the process waits for ever")
            self.now = max(self.now, events[0][0])
            self._catch_up()
        return True

    def _catch_up(self) -> None:
        events = self._events
        while events and events[0][0] <= self.now:
            heappop(events)[2]()
        if self.count > MOST_EVENTS:
            raise Violation("the simulation does not come to an end")
