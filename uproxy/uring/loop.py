"""An asyncio event loop that waits for an io_uring.

One system call submits what was queued, waits, and brings what has completed. As long as only
callbacks of the ring are concerned, the loop stays in it. asyncio runs when a timer is due, a
callback was scheduled, or one of its own descriptors is ready.

The ring has to be what the loop waits for. The other way round was tried: with DEFER_TASKRUN a
ring's descriptor does not become readable in an epoll, and an eventfd costs a read for each wake-up
(docs/decisions/0007-io-uring.md).
"""

from __future__ import annotations

import asyncio
import select
import selectors
import time
from collections.abc import Callable
from contextvars import Context
from typing import TypeVarTuple

from uproxy.uring.queues import Queues, RingQueues
from uproxy.uring.ring import BUFFER_COUNT, Ring

_Ts = TypeVarTuple("_Ts")


class RingLoop(asyncio.SelectorEventLoop):
    """Use it like any other loop; `new_ring_loop` makes one."""

    def __init__(self, selector: RingSelector) -> None:
        self._ring_selector = selector
        super().__init__(selector)

    @property
    def ring(self) -> Ring:
        """Valid until the loop is closed; to be used in its thread only."""
        return self._ring_selector.ring

    # Callbacks of the ring run inside `select`, where asyncio does not expect any. What they
    # schedule would wait until something else ends the wait, so these two end it
    # (test_a_timer_that_a_completion_sets_is_heeded). Threads wake the loop by its self-pipe.

    def call_soon(
        self,
        callback: Callable[[*_Ts], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> asyncio.Handle:
        self._ring_selector.asyncio_has_work = True
        return super().call_soon(callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*_Ts], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        self._ring_selector.asyncio_has_work = True
        return super().call_at(when, callback, *args, context=context)


class RingSelector(selectors.EpollSelector):
    """Has asyncio's descriptors in an epoll, as usual, and the ring poll this epoll."""

    def __init__(
        self,
        queues: Callable[[], RingQueues] = Queues,
        monotonic: Callable[[], float] = time.monotonic,
        *,
        buffers: int = BUFFER_COUNT,
    ) -> None:
        """`buffers` is how many the ring receives streams into. Raises OSError."""
        self.ring = Ring(queues, monotonic, buffers=buffers)
        self._monotonic = monotonic
        self.asyncio_has_work = False
        """Whether `select` is to return although no descriptor is ready."""
        self._polled = False
        """Whether the ring's poll of the epoll is under way."""
        self._user_data = 0
        """Of that poll."""
        self._alarm: float | None = None
        """When the kernel will wake us, at the latest."""
        super().__init__()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ring = self.ring
        if not self._polled:
            # A poll is over once it has completed. The kernel looks before it waits, so events that
            # asyncio has not consumed complete the new one at once, and none is missed.
            self._polled = True
            self._user_data = ring.poll_add(self.fileno(), select.EPOLLIN, self._epoll_ready)
        self.asyncio_has_work = timeout is not None and timeout <= 0
        if self.asyncio_has_work:
            # One turn all the same, or busy callbacks of asyncio would hold up the ring.
            ring.submit_and_wait(0)
        elif timeout is not None:
            self._set_alarm(self._monotonic() + timeout)
        submit_and_wait = ring.submit_and_wait
        while self._polled and not self.asyncio_has_work:
            submit_and_wait(1)
        return [] if self._polled else super().select(0)

    def close(self) -> None:
        self.ring.close()
        super().close()

    def _epoll_ready(self, completion: int) -> None:
        self._polled = False
        self.ring.remove_callback(self._user_data)

    def _set_alarm(self, when: float) -> None:
        """Return at that time, or earlier. A timer for each wait would cost more than the wait
        (decision 0007), so an alarm that was set before stays set. It may be too early, and then
        asyncio finds nothing to do and waits again."""
        if self._alarm is None or when < self._alarm:
            self._alarm = when
            self.ring.timeout_at(when, self._wake)

    def _wake(self, completion: int) -> None:
        self.asyncio_has_work = True
        self._alarm = None


def new_ring_loop(queues: Callable[[], RingQueues] = Queues) -> RingLoop:
    """Raises OSError where the kernel refuses an io_uring."""
    return RingLoop(RingSelector(queues))
