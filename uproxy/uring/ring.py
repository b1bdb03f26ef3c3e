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
from typing import Final, Literal, NoReturn

from uproxy.uring.abi import (
    CQE_BUFFER_SHIFT,
    CQE_F_BUFFER,
    CQE_RES,
    MSG_MORE,
    OP_ASYNC_CANCEL,
    OP_POLL_ADD,
    OP_RECV,
    OP_RECV_MULTISHOT,
    OP_SEND,
    OP_TIMEOUT,
    RECVSEND_POLL_FIRST,
    SEND_INCOMPLETE,
    SQ_CQ_OVERFLOW,
    SQE,
    STREAM_SEND_FLAGS,
    TIMEOUT_ABS,
    USER_DATA_BID,
    USER_DATA_BID_TO_CQE,
    USER_DATA_IGNORED,
    USER_DATA_OWNER,
    USER_DATA_SEND,
)
from uproxy.uring.buffers import BufferRing, address_of
from uproxy.uring.busy_poll import BusyPoll
from uproxy.uring.queues import Queues, RingQueues

CompletionCallback = Callable[[int], None]
"""Takes a completion: see abi."""

BUFFER_SIZE: Final = 16 * 1024
"""Bytes of a receive buffer. Nearly all requests and most answers fit."""

BUFFER_COUNT: Final = 512
"""Receive buffers of a worker. They only hold bytes between two calls of the kernel; a socket that
finds none free is asked again. Their 8 MiB are touched as far as messages are long."""

RECV_LIMIT: Final = 4 * BUFFER_SIZE - 1
"""Bytes that a stream socket receives at most before it is armed again: what a slow peer can make
us hold. The kernel stops behind the message that reaches what it was told, a buffer less."""

REFUSALS: Final = 2000
"""How often in a row the kernel may take nothing, for want of memory, a millisecond or more apart.
A worker that has waited that long is better replaced."""

logger = logging.getLogger(__name__)


class Ring:
    """A submission queue, a completion queue, and buffers for what is received.

    A send is either complete when `submit_and_wait` calls back for the first time after it was
    queued, or its owner is told what is left of it: sends never wait in the kernel. So the buffer
    that it sends from is free again, and bytes of a stream cannot overtake each other as long as
    its owner queues one send in each `turn`. In which order two owners are told is not said: what
    concerns several is to be looked at when a turn is over, by `call_after_turn`.

    Descriptors and memory are looked up when an operation is submitted: `submit` before closing or
    forgetting one that was named by an operation of this `turn`. When it raises they must stay:
    the ring is lost then, and so is everything that waits for it.
    """

    def __init__(
        self,
        queues: Callable[[], RingQueues] = Queues,
        clock: Callable[[], float] = monotonic,
        *,
        buffers: int = BUFFER_COUNT,
    ) -> None:
        """Raises OSError."""
        self.turn = 0
        """Number of the batch of submissions that is being put together."""
        self.on_error: Callable[[Callable[..., None] | None, Exception], None] = _log
        """Told what a callback raised."""
        self.pause: Callable[[], None] = _pause
        """Gives the kernel a moment, after it has taken nothing."""
        self._lost: OSError | None = None
        """Why nothing can be submitted any more."""
        self._user_data = itertools.count(2, 2)
        self._callbacks: dict[int, CompletionCallback] = {}
        self._after_turn: list[Callable[[], None]] = []
        self._queues = made = queues()
        self.busy_poll = BusyPoll(made, clock)
        """How we wait."""
        self._fields, self._sq_tail_at = made.fields, made.sq_tail_at
        self._sqes, self._sqe_words, self._sq_mask = made.sqes, made.sqe_words, made.sq_mask
        self._sq_tail = self._submitted = 0
        self._cqes, self._cq_mask = made.cqes, made.cq_mask
        self._cq_end = len(made.cqes)
        self._cq_head = 0
        self._time = bytearray(16)
        self.recv_limit_supported = True
        """Whether the kernel heeds a limit (Linux 6.17). Otherwise each message is received by an
        operation of its own: all that has arrived could be any amount."""
        try:
            register = made.register_buf_ring
            self.buffers = BufferRing(register, bgid=0, count=buffers, size=BUFFER_SIZE)
            """For streams."""
        except BaseException:
            made.close()
            raise
        self._base, self._use = self.buffers.base, self.buffers.sending.append
        self._buffer_rings = [self.buffers]

    def add_buffers(self, *, count: int, size: int) -> BufferRing:
        """Another buffer group. Operations that use it have its bgid in the lowest bit of their
        user_data."""
        register, bgid = self._queues.register_buf_ring, len(self._buffer_rings)
        made = BufferRing(register, bgid=bgid, count=count, size=size)
        self._buffer_rings.append(made)
        return made

    def recv(self, fd: int, user_data: int, *, poll_first: bool = False) -> None:
        """Call back for what a stream socket receives, up to RECV_LIMIT, until a completion without
        CQE_F_MORE. `poll_first`: nothing is expected to be there yet."""
        if self.recv_limit_supported:
            head, limit = OP_RECV_MULTISHOT, RECV_LIMIT + 1 - BUFFER_SIZE << 32
        else:
            head, limit = OP_RECV, 0
        head |= RECVSEND_POLL_FIRST * poll_first | fd << 32
        self.queue_sqe(head, 0, 0, 0, user_data, limit)

    def send(self, sqe: bytes, bid: int, count: int) -> int:
        """Queue a `send_sqe` for the first bytes of a receive buffer, which it gives back.
        Returns the number of the SQE, for `set_msg_more`."""
        tail = self._sq_tail
        if tail - self._submitted > self._sq_mask:
            self.submit()
        at = (tail & self._sq_mask) << 6
        self._sqes[at : at + 64] = sqe
        at >>= 3
        self._sqe_words[at + 2] = self._base + bid * BUFFER_SIZE
        self._sqe_words[at + 3] = count | STREAM_SEND_FLAGS
        self._sq_tail = tail + 1
        self._use(bid)
        return tail

    def set_msg_more(self, sqe_number: int) -> None:
        """Have a send wait for what is written next, as a FIN; unless it was submitted already,
        and its place may be another's."""
        if sqe_number >= self._submitted:
            self._sqe_words[((sqe_number & self._sq_mask) << 3) + 3] |= MSG_MORE

    def poll_add(self, fd: int, events: int, callback: CompletionCallback) -> int:
        """Call back once when a descriptor is ready. Returns the user_data."""
        user_data = self.add_callback(callback)
        self.queue_sqe(OP_POLL_ADD | fd << 32, 0, 0, events << 32, user_data)
        return user_data

    def timeout_at(self, when: float, callback: CompletionCallback) -> None:
        """Call back once when the monotonic clock says so."""

        def due(completion: int) -> None:
            self.remove_callback(user_data)
            callback(completion)

        struct.pack_into("=qq", self._time, 0, int(when), int(when % 1 * 1e9))
        user_data = self.add_callback(due)
        self.queue_sqe(OP_TIMEOUT, 0, address_of(self._time), 1 | TIMEOUT_ABS, user_data)
        self.submit()

    def cancel(self, user_data: int) -> None:
        """End an operation early; it completes with ECANCELED if it had not completed before."""
        self.queue_sqe(OP_ASYNC_CANCEL, 0, user_data, 0, USER_DATA_IGNORED)

    def queue_sqe(
        self, head: int, offset: int, address: int, length: int, user_data: int, rest: int = 0
    ) -> None:
        """Queue an operation; see abi.SQE."""
        if self._sq_tail - self._submitted > self._sq_mask:
            self.submit()
        at = (self._sq_tail & self._sq_mask) << 6
        SQE.pack_into(self._sqes, at, head, offset, address, length, user_data, rest)
        self._sq_tail += 1

    def add_callback(self, callback: CompletionCallback, bgid: int = 0) -> int:
        """A user_data for operations, which may receive into buffers of that each."""
        user_data = next(self._user_data) | bgid
        self._callbacks[user_data] = callback
        return user_data

    def remove_callback(self, user_data: int) -> None:
        """Call back for a user_data no more. Unknown ones are fine."""
        self._callbacks.pop(user_data, None)

    def redirect(self, user_data: int, callback: CompletionCallback) -> None:
        """Call somebody else back for a user_data, until the sends queued so far are decided."""
        self._callbacks[user_data] = callback
        self.call_after_turn(partial(self.remove_callback, user_data))

    def call_after_turn(self, callback: Callable[[], None]) -> None:
        """Call once when the sends queued so far are decided."""
        self._after_turn.append(callback)

    def submit(self) -> None:
        """Submit what is queued; nobody is called back. Raises OSError."""
        refusals = 0
        while self._sq_tail != self._submitted:
            if self._enter() > 0:
                refusals = 0
            elif refusals < REFUSALS:
                refusals += 1
                self.pause()
            else:
                self._lose(OSError(errno.EAGAIN, "the kernel keeps refusing what is queued"))

    def submit_and_get_events(self) -> None:
        """Have the kernel let go of what was cancelled; nobody is called back. Raises OSError."""
        self.submit()
        self._took(self._queues.enter(0, get_events=True))

    def submit_and_wait(self, wait_nr: Literal[0, 1]) -> None:
        """Submit what is queued, wait for a completion if that is wanted, and call back for all
        there are. Raises OSError."""
        if self._lost is not None:
            raise self._lost
        self._fields[self._sq_tail_at] = self._sq_tail & CQE_RES
        to_submit = self._sq_tail - self._submitted
        if wait_nr and not self._after_turn:
            waiting = self.busy_poll if self.busy_poll.alone else self._queues
            taken = waiting.enter_and_wait(to_submit)
        else:
            taken = self._queues.enter(to_submit, get_events=True)
        if taken == to_submit:
            self._submitted = self._sq_tail
        else:
            self._took(taken)
            self.submit()
        self.turn += 1
        for each in self._buffer_rings:
            each.mark_submitted()
        after_turn: list[Callable[[], None]] = []
        if self._after_turn:
            after_turn, self._after_turn = self._after_turn, after_turn
        self._reap()
        # Not before: owners of failed sends have looked at what is left.
        for each in self._buffer_rings:
            each.give_back_sent()
        for callback in after_turn:
            try:
                callback()
            except Exception as error:
                self.on_error(callback, error)

    def close(self) -> None:
        """Give everything back. Operations end, their sockets stay open."""
        if self._queues.fd < 0:
            return
        with suppress(OSError):
            self.submit_and_wait(0)  # Lets go of sockets that were closed.
        self._callbacks.clear()
        self._after_turn.clear()
        self._queues.close()
        for each in self._buffer_rings:
            each.close()

    def _reap(self) -> None:
        """Call back for the completions that are there."""
        head, tail = self._cq_head, self._fields[self._queues.cq_tail_at]
        if head == tail:
            return
        # Copied in one go: an index into shared memory takes longer than a step in a list.
        first = (head & self._cq_mask) << 1
        last = first + ((tail - head & CQE_RES) << 1)
        completions = self._cqes[first:last].tolist()
        if last - first > 2:
            self.busy_poll.alone = 0
        elif self.busy_poll.allowed:
            self.busy_poll.alone += 1
        if last > self._cq_end:
            completions += self._cqes[: last - self._cq_end].tolist()
        self._cq_head = self._fields[self._queues.cq_head_at] = tail
        if last - first == self._cq_end:
            completions += self._overflowed()
        find = self._callbacks.get
        rest = iter(completions)
        for user_data, completion in zip(rest, rest, strict=True):
            callback = find(user_data)
            try:
                if callback is not None:
                    callback(completion)
                elif (callback := self._owner(user_data, completion)) is not None:
                    bid = (user_data & USER_DATA_BID) << USER_DATA_BID_TO_CQE
                    callback(completion | SEND_INCOMPLETE | bid)
            except Exception as error:
                self.on_error(callback, error)

    def _owner(self, user_data: int, completion: int) -> CompletionCallback | None:
        """The owner of a send that has failed. Other user_data that is unknown is that of
        operations whose owner is gone."""
        if completion & CQE_F_BUFFER:
            self._buffer_rings[user_data & 1].give_back(completion >> CQE_BUFFER_SHIFT)
        if user_data & USER_DATA_SEND:
            return self._callbacks.get(user_data & USER_DATA_OWNER)
        return None

    def _overflowed(self) -> list[int]:
        """Completions for which the queue had no room. What has become of a send may be among
        them, so they belong to the turn as well."""
        queues, fields, more = self._queues, self._fields, []
        while fields[queues.sq_flags_at] & SQ_CQ_OVERFLOW:
            self._took(queues.enter(0, get_events=True))
            tail = fields[queues.cq_tail_at]
            while self._cq_head != tail:
                at = (self._cq_head & self._cq_mask) << 1
                more += self._cqes[at : at + 2].tolist()
                self._cq_head = self._cq_head + 1 & CQE_RES
            fields[queues.cq_head_at] = tail
        return more

    def _enter(self) -> int:
        if self._lost is not None:
            raise self._lost
        self._fields[self._sq_tail_at] = self._sq_tail & CQE_RES
        return self._took(self._queues.enter(self._sq_tail - self._submitted, get_events=False))

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
        and in each `submit_and_wait`, which ends the loop and with it the worker."""
        self._lost = error
        logger.critical("io_uring cannot be used any more: %s", error.strerror)
        raise error


def send_sqe(fd: int, user_data: int) -> bytes:
    """What `Ring.send` needs to send to a socket on behalf of a user_data."""
    return SQE.pack(OP_SEND | fd << 32, 0, 0, 0, user_data | USER_DATA_SEND, 0)


def _log(callback: Callable[..., None] | None, error: Exception) -> None:
    logger.error("%r failed", callback, exc_info=error)


def _pause() -> None:
    sleep(0.001)
