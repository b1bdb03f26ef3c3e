"""An asyncio event loop that waits for an io_uring.

One system call submits what was queued, waits, and brings what has completed. As long as this
concerns nobody but the ring's own callbacks, the loop stays in it; only when a timer is due, a
callback was scheduled, or one of asyncio's own descriptors is ready does asyncio get its turn.
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
    """Use it as any other; `new_ring_loop` makes one."""

    def __init__(self, selector: RingSelector) -> None:
        self._waiting = selector
        super().__init__(selector)

    @property
    def ring(self) -> Ring:
        """Valid until the loop is closed; to be used in its thread only."""
        return self._waiting.ring

    def call_soon(
        self,
        callback: Callable[[*_Ts], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> asyncio.Handle:
        self._waiting.wanted = True
        return super().call_soon(callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*_Ts], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        self._waiting.wanted = True
        return super().call_at(when, callback, *args, context=context)


class RingSelector(selectors.EpollSelector):
    """The descriptors of asyncio are in an epoll, which the ring polls."""

    def __init__(
        self,
        queues: Callable[[], RingQueues] = Queues,
        monotonic: Callable[[], float] = time.monotonic,
        *,
        buffers: int = BUFFER_COUNT,
    ) -> None:
        """`buffers`: how many the ring receives streams into."""
        self.ring = Ring(queues, monotonic, buffers=buffers)
        self._monotonic = monotonic
        self.wanted = False
        """Whether asyncio has something to do that it did not know of when it began to wait."""
        self._polled = False
        self._user_data = 0
        self._alarm: float | None = None
        """When the kernel will wake us, at the latest."""
        super().__init__()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ring = self.ring
        if not self._polled:
            self._polled = True
            self._user_data = ring.poll_add(self.fileno(), select.EPOLLIN, self._ready)
        self.wanted = timeout is not None and timeout <= 0
        if self.wanted:
            ring.submit_and_wait(0)
        elif timeout is not None:
            self._set_alarm(self._monotonic() + timeout)
        submit_and_wait = ring.submit_and_wait
        while self._polled and not self.wanted:
            submit_and_wait(1)
        return [] if self._polled else super().select(0)

    def close(self) -> None:
        self.ring.close()
        super().close()

    def _ready(self, completion: int) -> None:
        self._polled = False
        self.ring.remove_callback(self._user_data)

    def _set_alarm(self, when: float) -> None:
        """Return at that time. What was set before stays set: to be early is no harm, and a timer
        for each wait would cost more than it."""
        if self._alarm is None or when < self._alarm:
            self._alarm = when
            self.ring.timeout_at(when, self._wake)

    def _wake(self, completion: int) -> None:
        self.wanted = True
        self._alarm = None


def new_ring_loop() -> RingLoop:
    """Raises OSError where the kernel grants no io_uring."""
    return RingLoop(RingSelector())
