"""One epoll for all sockets of a worker, nested in the asyncio loop.

The loop has a single descriptor to wait for, the epoll's own, and calls back when any socket is
ready. An event costs a dictionary lookup and one call: no transport, future or task. (Measured
against asyncio protocols on uvloop: 15 % less CPU per request, and 1.7 times the connections a
second. Docs: decisions/0002.)

`RingReactor` is for a loop that waits for an io_uring. There, dials and small messages go by the
ring, and the ring polls the epoll in place of asyncio.
"""

from __future__ import annotations

import asyncio
import logging
import select
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol, runtime_checkable

from uproxy.dataplane.kernel import LINUX, Kernel
from uproxy.uring.abi import CQE_RES, CQE_RES_ERROR
from uproxy.uring.loop import RingLoop
from uproxy.uring.ring import Ring

Callback = Callable[[int], None]
"""Takes the event mask. If it is a method of an `Abortable` and raises, that object is aborted."""

BATCH: Final = 256
"""Events taken per poll. This is enough to share the cost of the poll among many flows, and little
enough that asyncio (control channel, timers) runs again within a few milliseconds."""

BESIDE_RING: Final = 32
"""The same where there is a ring: then only bulk and slow receivers have events, each of which may
move a megabyte, while small messages wait for the next turn of the ring."""

DEFERRED: Final = 16
"""Deferred callbacks that run before asyncio does again. Each may move a megabyte: a thousand of
them in one go would keep a small request waiting for a second."""

logger = logging.getLogger(__name__)


@runtime_checkable
class Abortable(Protocol):
    """An object that can be ended at once when one of its callbacks fails."""

    def abort(self) -> None: ...


class Reactor:
    """Calls back when descriptors become ready; owned by the worker, ended with `close`.

    Callbacks run one after the other in the loop's thread. Any of them may register and
    unregister any descriptor: an event that the kernel reported for a descriptor before it was
    closed never reaches the callback of a new one with the same number.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, kernel: Kernel = LINUX) -> None:
        self.kernel = kernel
        """Provides everything that only a kernel has."""
        self._monotonic = kernel.monotonic
        self.now = kernel.monotonic()
        """Monotonic seconds when the current batch began; read once per batch."""
        self.failures = 0
        """Callbacks that raised: bugs."""
        self._loop = loop
        self._epoll = kernel.epoll()
        self._poll = self._epoll.poll
        self._callbacks: dict[int, Callback] = {}
        self._fresh: set[int] = set()
        """Descriptors that were registered during the current batch."""
        self._deferred: list[Callable[[], None]] = []
        self._batch = BATCH
        self.is_registered: Final = self._callbacks.__contains__
        """Whether epoll reports events of a descriptor."""
        self.forget: Final = self._callbacks.pop
        """`forget(fd, None)` is `discard` for a descriptor that `await_writable` does not wait for
        any more. It is a builtin, and takes a third of the time: most flows end with two of
        them."""
        self._nest()

    def register(self, fd: int, callback: Callback, events: int) -> None:
        """Call back whenever `events` (select.EPOLL*) occur. Raises OSError.

        What is ready already is reported too, even with EPOLLET: EPOLL_CTL_ADD looks at the state
        of the descriptor. So nothing is missed that came before the registration.
        """
        # First, since it may fail: what has a callback counts as registered.
        self._epoll.register(fd, events)
        self._callbacks[fd] = callback
        self._fresh.add(fd)

    def replace(self, fd: int, callback: Callback) -> None:
        """Give the events of a registered descriptor to another callback; no system call.

        Events that were reported before are not reported again. If the new callback needs events
        that the old one got, the caller has to pass them on.
        """
        self._callbacks[fd] = callback

    def register_or_replace(self, fd: int, callback: Callback, events: int) -> None:
        """`replace` if `await_writable` has registered the descriptor, otherwise `register`."""
        if fd in self._callbacks:
            self._callbacks[fd] = callback
        else:
            self.register(fd, callback, events)

    def await_writable(self, fd: int, callback: Callback, events: int) -> None:
        """Call back once when a descriptor can be written or has failed, as after connect(2).

        The descriptor may be registered for `events` by this, and `is_registered` then.
        """
        # As `register`, without the call: it is done for each connection.
        self._epoll.register(fd, events)
        self._callbacks[fd] = callback
        self._fresh.add(fd)

    def modify(self, fd: int, events: int) -> None:
        """Change the events of a registered descriptor. A closed one is ignored."""
        with suppress(OSError, ValueError):
            self._epoll.modify(fd, events)

    def unregister(self, fd: int) -> None:
        """Report no more events of a descriptor. Unknown and closed ones are ignored.

        This is needed before closing a descriptor of which another process has a copy, such as a
        listening socket: the kernel drops a registration only with the last copy.
        """
        if self._callbacks.pop(fd, None) is not None:
            with suppress(OSError, ValueError):
                self._epoll.unregister(fd)

    def discard(self, fd: int) -> None:
        """Like `unregister`, without the system call: for the only copy, closed right after."""
        self._callbacks.pop(fd, None)

    def defer(self, callback: Callable[[], None]) -> None:
        """Call once in one of the loop's next iterations, after sockets and timers."""
        self._deferred.append(callback)
        if len(self._deferred) == 1:
            self._loop.call_soon(self._run_deferred)

    def tick(self) -> float:
        """Bring `now` up to date, for work that begins outside a batch, such as a timer."""
        self.now = self._monotonic()
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        """Call once in `delay` seconds, with `now` up to date."""
        return self._loop.call_later(delay, self._timed, callback)

    def guard(self, callback: Callable[[], None]) -> None:
        """Call; a failure is logged, counted, and aborts what the callback belongs to."""
        try:
            callback()
        except Exception as error:
            self._failed(callback, error)

    def let_go(self) -> None:
        """Have the kernel let go of sockets that were closed, and of their ports."""

    def allow_busy_poll(self, allowed: bool) -> None:
        """Whether the loop may stay awake between two messages. Only a ring's loop can."""

    def close(self) -> None:
        """Call back no more. The descriptors that were registered stay open."""
        if self._epoll.closed:
            return
        self._leave_loop()
        self._epoll.close()
        self._callbacks.clear()
        self._deferred.clear()

    def _nest(self) -> None:
        """Have the loop say when any descriptor is ready."""
        self._loop.add_reader(self._epoll.fileno(), self._dispatch)

    def _leave_loop(self) -> None:
        self._loop.remove_reader(self._epoll.fileno())

    def _dispatch(self) -> None:
        self.now = self._monotonic()
        find = self._callbacks.get
        fresh = self._fresh
        fresh.clear()
        for fd, mask in self._poll(0, self._batch):
            callback = find(fd)
            # Numbers of descriptors are reused at once: a callback of this batch may have closed
            # one and opened another with its number. What was reported belongs to the old one; the
            # events of the new one come with the next poll, as it was registered after this one
            # (missing-fresh-check).
            if callback is None or fd in fresh:
                continue
            try:
                callback(mask)
            except Exception as error:
                self._failed(callback, error)

    def _run_deferred(self) -> None:
        self.now = self._monotonic()
        callbacks, self._deferred = self._deferred[:DEFERRED], self._deferred[DEFERRED:]
        if self._deferred:
            # Before the callbacks run: one that defers something finds the list not empty, and
            # would not schedule this again.
            self._loop.call_soon(self._run_deferred)
        for callback in callbacks:
            self.guard(callback)

    def _timed(self, callback: Callable[[], None]) -> None:
        self.now = self._monotonic()
        self.guard(callback)

    def _failed(self, callback: Callable[..., None] | None, error: Exception) -> None:
        """Raises nothing, or the events that follow in the batch would be lost: they are
        edge-triggered, and the kernel does not report them again."""
        self.failures += 1
        owner = getattr(callback, "__self__", callback)
        with suppress(Exception):  # The log may go to a pipe that was closed.
            logger.error("%r failed", owner, exc_info=error)
        if isinstance(owner, Abortable):
            try:
                owner.abort()
            except Exception:
                with suppress(Exception):
                    logger.exception("%r could not be aborted", owner)


class RingReactor(Reactor):
    """The reactor of a loop that waits for an io_uring.

    The ring polls the epoll's descriptor, once for each batch of events, and completes dials: a
    poll by the ring costs no system call of its own, unlike a registration with epoll.
    """

    def __init__(self, loop: RingLoop, kernel: Kernel = LINUX) -> None:
        self.ring: Ring = loop.ring
        self._polls: dict[int, int] = {}
        """Descriptors to the user_data of their polls by the ring."""
        # It ends with `_nest`, which needs what was set above.
        super().__init__(loop, kernel)
        self._batch = BESIDE_RING
        self.ring.on_error = self._failed

    def await_writable(self, fd: int, callback: Callback, events: int) -> None:
        def ready(completion: int) -> None:
            self.now = self._monotonic()
            # Before the callback: it may close this socket and dial from another one with the same
            # number, whose poll would be taken for this one, which is over.
            self.ring.forget(self._polls.pop(fd), None)
            result = completion & CQE_RES
            try:
                callback(select.EPOLLERR if result & CQE_RES_ERROR else result)
            except Exception as error:
                self._failed(callback, error)

        self._polls[fd] = self.ring.poll_add(fd, select.EPOLLOUT, ready)

    def discard(self, fd: int) -> None:
        self._callbacks.pop(fd, None)
        if fd in self._polls:
            # The ring looks descriptors up when an operation is submitted: what is queued for this
            # number has to go to the kernel before the number can belong to another socket.
            user_data = self._polls.pop(fd)
            self.ring.remove_callback(user_data)
            self.ring.cancel(user_data)
            self.ring.submit()

    def let_go(self) -> None:
        # A receive that was cancelled keeps its socket until the task work is done.
        self.ring.submit_and_get_events()

    def allow_busy_poll(self, allowed: bool) -> None:
        self.ring.busy_poll.allowed = allowed

    def _nest(self) -> None:
        self._poll_epoll()

    def _leave_loop(self) -> None:
        self.ring.remove_callback(self._epoll_user_data)
        self.ring.cancel(self._epoll_user_data)
        self.ring.submit()

    def _poll_epoll(self) -> None:
        """Have the ring say once when any descriptor is ready."""
        epoll = self._epoll.fileno()
        self._epoll_user_data = self.ring.poll_add(epoll, select.EPOLLIN, self._epoll_ready)

    def _epoll_ready(self, completion: int) -> None:
        self.ring.remove_callback(self._epoll_user_data)
        try:
            self._dispatch()
        finally:
            # Even if epoll_wait has failed, or no socket would ever be heard of again
            # (test_events_go_on_after_they_could_not_be_asked_for). A poll looks before it waits:
            # events that did not fit into this batch complete it at once.
            if not self._epoll.closed:
                self._poll_epoll()
