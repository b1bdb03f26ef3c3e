"""io_uring(7): sockets that report what they have received, and sends that leave in batches.

An event of epoll says that a socket can be read; then it has to be, and what was read has to be
sent: two system calls for each of many sockets. A completion of io_uring carries the bytes along,
and one call sends the answers to all of them. (Measured, requests over 64 connections: 25 % less
CPU than recv and send, see docs/decisions/0007-io-uring.md.)

What the kernel has to offer differs: Linux 6.1 is needed, and the seccomp profiles of container
runtimes often refuse the calls. Then `Ring` raises OSError, and epoll does all the work.
"""

from __future__ import annotations

import errno
import itertools
import logging
import struct
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from time import monotonic, sleep
from typing import Final, NoReturn

from uproxy.uring.abi import (
    ABSOLUTE_TIME,
    BUFFER_OF_KEY,
    BUFFER_SHIFT,
    BUFFER_TO_COMPLETION,
    CANCEL,
    ENTRY,
    HAS_BUFFER,
    IGNORED,
    KEY,
    MORE_FOLLOWS,
    OVERFLOW,
    POLL,
    POLL_FIRST,
    RECEIVE,
    RECEIVE_ONCE,
    RESULT,
    SEND,
    SEND_FAILED,
    STREAM_FLAGS,
    TIMEOUT,
    UNSENT,
)
from uproxy.uring.buffers import Buffers, address_of
from uproxy.uring.busy_poll import Watch
from uproxy.uring.queues import Queues, RingQueues

Completed = Callable[[int], None]
"""Takes a completion: see ring_abi."""

SIZE: Final = 16 * 1024
"""Bytes of a receive buffer. Nearly all requests and most answers fit."""

BUFFERS: Final = 512
"""Receive buffers of a worker. They only hold bytes between two calls of the kernel; a socket that
finds none free is asked again. Their 8 MiB are touched as far as messages are long."""

LIMIT: Final = 4 * SIZE - 1
"""Bytes that a stream socket receives at most before it is armed again: what a slow peer can make
us hold. The kernel stops behind the message that reaches what it was told, a buffer less."""

REFUSALS: Final = 2000
"""How often in a row the kernel may take nothing, for want of memory, a millisecond or more apart.
A worker that has waited that long is better replaced."""

logger = logging.getLogger(__name__)


class Ring:
    """A submission queue, a completion queue, and buffers for what is received.

    A send is either complete when `turn` calls back for the first time after it was queued, or its
    owner is told what is left of it: sends never wait in the kernel. So the buffer that it sends
    from is free again, and bytes of a stream cannot overtake each other as long as its owner
    queues one send in each `round`. In which order two owners are told is not said: what concerns
    several is to be looked at when a turn is over, by `again`.

    Descriptors and memory are looked up when an operation is submitted: `flush` before closing or
    forgetting one that was named by an operation of this `round`. When it raises they must stay:
    the ring is lost then, and so is everything that waits for it.
    """

    def __init__(
        self,
        queues: Callable[[], RingQueues] = Queues,
        clock: Callable[[], float] = monotonic,
        *,
        buffers: int = BUFFERS,
    ) -> None:
        """Raises OSError."""
        self.round = 0
        """Number of the batch of submissions that is being put together."""
        self.failed: Callable[[Callable[..., None] | None, Exception], None] = _log
        """Told what a callback raised."""
        self.pause: Callable[[], None] = _pause
        """Gives the kernel a moment, after it has taken nothing."""
        self._lost: OSError | None = None
        """Why nothing can be submitted any more."""
        self._keys = itertools.count(2, 2)
        self._callbacks: dict[int, Completed] = {}
        self._again: list[Callable[[], None]] = []
        self._queues = made = queues()
        self.watch = Watch(made, clock)
        """How we wait."""
        self._numbers, self._tail_at = made.numbers, made.tail_at
        self._entries, self._words, self._mask = made.entries, made.words, made.mask
        self._tail = self._submitted = 0
        self._completions, self._done_mask = made.completions, made.done_mask
        self._done_end = len(made.completions)
        self._done = 0
        self._time = bytearray(16)
        self.limited = True
        """Whether the kernel heeds a limit (Linux 6.17). Otherwise each message is received by an
        operation of its own: all that has arrived could be any amount."""
        try:
            self.buffers = Buffers(made.register, group=0, count=buffers, size=SIZE)
            """For streams."""
        except BaseException:
            made.close()
            raise
        self._base, self._use = self.buffers.base, self.buffers.used.append
        self._groups = [self.buffers]

    def add_buffers(self, *, count: int, size: int) -> Buffers:
        """Another group. Operations that use it have keys with the group in the lowest bit."""
        made = Buffers(self._queues.register, group=len(self._groups), count=count, size=size)
        self._groups.append(made)
        return made

    def receive(self, fd: int, key: int, *, empty: bool = False) -> None:
        """Call back for what a stream socket receives, up to LIMIT, until a completion without
        MORE. `empty`: nothing is expected to be there yet."""
        kind, limit = (RECEIVE, LIMIT + 1 - SIZE << 32) if self.limited else (RECEIVE_ONCE, 0)
        self.queue(kind | POLL_FIRST * empty | fd << 32, 0, 0, 0, key, limit)

    def send(self, entry: bytes, buffer: int, count: int) -> int:
        """Queue a `send_entry` for the first bytes of a receive buffer, which it frees. Returns
        its number, for `more_follows`."""
        tail = self._tail
        if tail - self._submitted > self._mask:
            self.flush()
        at = (tail & self._mask) << 6
        self._entries[at : at + 64] = entry
        at >>= 3
        self._words[at + 2] = self._base + buffer * SIZE
        self._words[at + 3] = count | STREAM_FLAGS
        self._tail = tail + 1
        self._use(buffer)
        return tail

    def more_follows(self, number: int) -> None:
        """Have a send wait for what is written next, as a FIN; unless it was submitted already,
        and its place may be another's."""
        if number >= self._submitted:
            self._words[((number & self._mask) << 3) + 3] |= MORE_FOLLOWS

    def poll(self, fd: int, events: int, callback: Completed) -> int:
        """Call back once when a descriptor is ready. Returns the key."""
        key = self.add(callback)
        self.queue(POLL | fd << 32, 0, 0, events << 32, key)
        return key

    def wake_at(self, when: float, callback: Completed) -> None:
        """Call back once when the monotonic clock says so."""

        def due(completion: int) -> None:
            self.remove(key)
            callback(completion)

        struct.pack_into("=qq", self._time, 0, int(when), int(when % 1 * 1e9))
        key = self.add(due)
        self.queue(TIMEOUT, 0, address_of(self._time), 1 | ABSOLUTE_TIME, key)
        self.flush()

    def cancel(self, key: int) -> None:
        """End an operation early; it completes with ECANCELED if it had not completed before."""
        self.queue(CANCEL, 0, key, 0, IGNORED)

    def queue(
        self, head: int, offset: int, address: int, length: int, key: int, rest: int = 0
    ) -> None:
        """Queue an operation; see ring_abi.ENTRY."""
        if self._tail - self._submitted > self._mask:
            self.flush()
        at = (self._tail & self._mask) << 6
        ENTRY.pack_into(self._entries, at, head, offset, address, length, key, rest)
        self._tail += 1

    def add(self, callback: Completed, group: int = 0) -> int:
        """A key for operations, which may receive into buffers of that group."""
        key = next(self._keys) | group
        self._callbacks[key] = callback
        return key

    def remove(self, key: int) -> None:
        """Call back for a key no more. Unknown ones are fine."""
        self._callbacks.pop(key, None)

    def bequeath(self, key: int, callback: Completed) -> None:
        """Call somebody else back for a key, until the sends queued so far are decided."""
        self._callbacks[key] = callback
        self.again(partial(self.remove, key))

    def again(self, callback: Callable[[], None]) -> None:
        """Call once when the sends queued so far are decided."""
        self._again.append(callback)

    def flush(self) -> None:
        """Submit what is queued; nobody is called back. Raises OSError."""
        refusals = 0
        while self._tail != self._submitted:
            if self._submit() > 0:
                refusals = 0
            elif refusals < REFUSALS:
                refusals += 1
                self.pause()
            else:
                self._lose(OSError(errno.EAGAIN, "the kernel keeps refusing what is queued"))

    def finish_cancelled(self) -> None:
        """Have the kernel let go of what was cancelled; nobody is called back. Raises OSError."""
        self.flush()
        self._took(self._queues.enter(0, events=True))

    def turn(self, *, wait: bool) -> None:
        """Submit what is queued, wait for a completion if that is wanted, and call back for all
        there are. Raises OSError."""
        if self._lost is not None:
            raise self._lost
        self._numbers[self._tail_at] = self._tail & RESULT
        queued = self._tail - self._submitted
        if wait and not self._again:
            taken = (self.watch if self.watch.alone else self._queues).wait(queued)
        else:
            taken = self._queues.enter(queued, events=True)
        if taken == queued:
            self._submitted = self._tail
        else:
            self._took(taken)
            self.flush()
        self.round += 1
        for group in self._groups:
            group.decide()
        again: list[Callable[[], None]] = []
        if self._again:
            again, self._again = self._again, again
        self._reap()
        # Not before: owners of failed sends have looked at what is left.
        for group in self._groups:
            group.free_decided()
        for callback in again:
            try:
                callback()
            except Exception as error:
                self.failed(callback, error)

    def close(self) -> None:
        """Give everything back. Operations end, their sockets stay open."""
        if self._queues.fd < 0:
            return
        with suppress(OSError):
            self.turn(wait=False)  # Lets go of sockets that were closed.
        self._callbacks.clear()
        self._again.clear()
        self._queues.close()
        for group in self._groups:
            group.close()

    def _reap(self) -> None:
        """Call back for the completions that are there."""
        head, tail = self._done, self._numbers[self._queues.done_tail_at]
        if head == tail:
            return
        # Copied in one go: an index into shared memory takes longer than a step in a list.
        first = (head & self._done_mask) << 1
        last = first + ((tail - head & RESULT) << 1)
        completions = self._completions[first:last].tolist()
        if last - first > 2:
            self.watch.alone = 0
        elif self.watch.allowed:
            self.watch.alone += 1
        if last > self._done_end:
            completions += self._completions[: last - self._done_end].tolist()
        self._done = self._numbers[self._queues.done_head_at] = tail
        if last - first == self._done_end:
            completions += self._overflown()
        find = self._callbacks.get
        rest = iter(completions)
        for key, completion in zip(rest, rest, strict=True):
            callback = find(key)
            try:
                if callback is not None:
                    callback(completion)
                elif (callback := self._owner(key, completion)) is not None:
                    callback(completion | UNSENT | (key & BUFFER_OF_KEY) << BUFFER_TO_COMPLETION)
            except Exception as error:
                self.failed(callback, error)

    def _owner(self, key: int, completion: int) -> Completed | None:
        """The owner of a send that has failed. Other keys that are unknown are those of
        operations whose owner is gone."""
        if completion & HAS_BUFFER:
            self._groups[key & 1].free(completion >> BUFFER_SHIFT)
        return self._callbacks.get(key & KEY) if key & SEND_FAILED else None

    def _overflown(self) -> list[int]:
        """Completions for which the queue had no room. What has become of a send may be among
        them, so they belong to the turn as well."""
        queues, numbers, more = self._queues, self._numbers, []
        while numbers[queues.flags_at] & OVERFLOW:
            self._took(queues.enter(0, events=True))
            tail = numbers[queues.done_tail_at]
            while self._done != tail:
                at = (self._done & self._done_mask) << 1
                more += self._completions[at : at + 2].tolist()
                self._done = self._done + 1 & RESULT
            numbers[queues.done_head_at] = tail
        return more

    def _submit(self) -> int:
        if self._lost is not None:
            raise self._lost
        self._numbers[self._tail_at] = self._tail & RESULT
        return self._took(self._queues.enter(self._tail - self._submitted, events=False))

    def _took(self, taken: int) -> int:
        if taken < 0:
            try:
                self._queues.raise_unless_temporary()
            except OSError as error:
                self._lose(error)
            return 0
        self._submitted += taken
        return taken

    def _lose(self, error: OSError) -> NoReturn:
        """Nobody knows what becomes of what is queued, so nothing of it may be reused: raise now
        and in each `turn`, which ends the loop and with it the worker."""
        self._lost = error
        logger.critical("io_uring cannot be used any more: %s", error.strerror)
        raise error


def send_entry(fd: int, key: int) -> bytes:
    """What `Ring.send` needs to send to a socket on behalf of a key."""
    return ENTRY.pack(SEND | fd << 32, 0, 0, 0, key | SEND_FAILED, 0)


def _log(callback: Callable[..., None] | None, error: Exception) -> None:
    logger.error("%r failed", callback, exc_info=error)


def _pause() -> None:
    sleep(0.001)
