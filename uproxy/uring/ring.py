"""io_uring(7): sockets that report what they have received, and sends that leave in batches.

An event of epoll says only that a socket can be read. Reading it, and sending what was read, are
two more system calls for each socket. A completion of io_uring carries the bytes along, and one
call sends the answers to all of them. (Measured, requests over 64 connections: 25 % less CPU than
recv and send, see docs/decisions/0007-io-uring.md.)

What a turn (`submit_and_wait`) guarantees, and why:

* When it is over, all sends that were queued before it are decided, and their buffers are free:
  sends never wait in the kernel (MSG_DONTWAIT). Sends that have not sent everything have a CQE,
  and their owners are called back with it.
* Failed sends are reported when the batch is submitted, which is before any task work. So the owner
  of a stream hears of its failed send before the next message comes from a receive that was armed
  before, or with `poll_first`; then bytes cannot overtake each other if it queues one send in each
  turn. A receive that finds a message at once, when it is submitted, reports it earlier
  (test_a_failed_send_is_told_before_what_a_later_look_receives).
* Nothing else is promised about the order of completions. So a decision that needs the outcome of
  two operations, such as whether a flow has nothing on its way any more, is made by
  `call_after_turn`. (Simulation: leaves-within-a-turn. Sends of both directions of a flow have to
  fail in one turn, which takes 729 seeds.)
* What a callback queues belongs to the next turn, and `turn` is its number.
"""

from __future__ import annotations

import itertools
import logging
import struct
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Final, Literal

from uproxy.uring.abi import (
    CQE_BUFFER_SHIFT,
    CQE_F_BUFFER,
    OP_POLL_ADD,
    OP_RECV,
    OP_RECV_MULTISHOT,
    OP_TIMEOUT,
    RECV_SQE,
    RECVSEND_POLL_FIRST,
    SEND_INCOMPLETE,
    SQ_CQ_OVERFLOW,
    TIMEOUT_ABS,
    U32,
    USER_DATA_BID,
    USER_DATA_BID_TO_CQE,
    USER_DATA_OWNER,
    USER_DATA_SEND,
)
from uproxy.uring.buffers import BufferRing, address_of
from uproxy.uring.busy_poll import BusyPoll
from uproxy.uring.queues import Queues, RingQueues
from uproxy.uring.submission_queue import SubmissionQueue

CompletionCallback = Callable[[int], None]
"""Takes a completion, which is drawn in abi.py."""

BUFFER_SIZE: Final = 16 * 1024
"""Bytes of a receive buffer. Nearly all requests and most answers fit."""

BUFFER_COUNT: Final = 512
"""Receive buffers of a ring. They only hold bytes between two calls of the kernel; a socket that
finds none free is received from again. Their 8 MiB are touched as far as messages are long."""

RECV_LIMIT: Final = 4 * BUFFER_SIZE - 1
"""Bytes that a stream socket receives at most before it is armed again, which is what a slow peer
can make us hold. The kernel stops behind the message that reaches what it was told, so it is told a
buffer less. (Simulation: holds-what-has-come. Without a limit, a thousand slow receivers took
0.38 MiB each: decision 0007.)"""

_LIMITED: Final = OP_RECV_MULTISHOT, RECV_LIMIT + 1 - BUFFER_SIZE
_UNLIMITED: Final = OP_RECV, 0
"""Head and optlen of a receive."""
_pack_recv: Final = RECV_SQE.pack_into

logger = logging.getLogger(__name__)


class Ring(SubmissionQueue):
    """A submission queue, a completion queue, and buffers for what is received.

    It is used in one thread, the one that has made it: the kernel refuses others.
    """

    def __init__(
        self,
        queues: Callable[[], RingQueues] = Queues,
        clock: Callable[[], float] = monotonic,
        *,
        buffers: int = BUFFER_COUNT,
    ) -> None:
        """Raises OSError."""
        made = queues()
        try:
            register = made.register_buf_ring
            streams = BufferRing(register, bgid=0, count=buffers, size=BUFFER_SIZE)
        except BaseException:
            made.close()
            raise
        super().__init__(made, streams)
        self.turn = 0
        """Number of the turn that will submit what is queued now."""
        self.on_error: Callable[[Callable[..., None] | None, Exception], None] = _log_error
        """Called with a callback that has raised; must not raise itself."""
        self.recv_limit_supported = True
        """Whether the kernel ends a multishot receive behind a limit (Linux 6.17). Where it does
        not, its user finds out by an EINVAL. Then each message is received by an operation of its
        own, as a multishot would bring all that has arrived, which could be any amount."""
        self.busy_poll = BusyPoll(made, clock)
        """How a turn waits."""
        self._user_data = itertools.count(2, 2)
        """The lowest bit is that of the bgid, so numbers are even."""
        self._callbacks: dict[int, CompletionCallback] = {}
        self.forget: Final = self._callbacks.pop
        """`forget(user_data, None)` is `remove_callback`. It is a builtin, and takes a third of the
        time: each flow has three."""
        self._after_turn: list[Callable[[], None]] = []
        self.call_after_turn: Final = self._after_turn.append
        """Call once at the end of the turn that decides the sends which are queued by now."""
        self._cqes, self._cq_mask = made.cqes, made.cq_mask
        self._cq_end = len(made.cqes)
        self._cq_head = 0
        self._time = bytearray(16)
        self._buffer_rings = [streams]

    def add_buffers(self, *, count: int, size: int) -> BufferRing:
        """A second group of buffers, with bgid 1. The user_data of operations that use it comes
        from `add_callback` with that bgid, so that the buffers of messages that are dropped are
        given back to the right group. Raises OSError."""
        register, bgid = self._queues.register_buf_ring, len(self._buffer_rings)
        made = BufferRing(register, bgid=bgid, count=count, size=size)
        self._buffer_rings.append(made)
        return made

    def recv(self, fd: int, user_data: int, poll_first: bool = False) -> None:
        """Call back for what a stream socket receives, up to RECV_LIMIT, until a completion without
        CQE_F_MORE. `poll_first` is for a socket that is expected to be empty."""
        head, limit = _LIMITED if self.recv_limit_supported else _UNLIMITED
        if poll_first:
            head |= RECVSEND_POLL_FIRST
        # As `queue_sqe`, without the call: each flow has two, or one for each message.
        tail = self._sq_tail
        if tail - self.submitted > self.sq_mask:
            self.submit()
        _pack_recv(self.sqes, (tail & self.sq_mask) << 6, head, fd, user_data, 0, limit)
        self._sq_tail = tail + 1

    def poll_add(self, fd: int, events: int, callback: CompletionCallback) -> int:
        """Call back once when a descriptor is ready, or at once if it is already. Returns the
        user_data. The callback removes itself (`remove_callback`)."""
        user_data = next(self._user_data)
        self._callbacks[user_data] = callback
        self.queue_sqe(OP_POLL_ADD | fd << 32, 0, 0, events << 32, user_data)
        return user_data

    def timeout_at(self, when: float, callback: CompletionCallback) -> None:
        """Call back once when the monotonic clock says so. Raises OSError."""

        def due(completion: int) -> None:
            self.remove_callback(user_data)
            callback(completion)

        struct.pack_into("=qq", self._time, 0, int(when), int(when % 1 * 1e9))
        user_data = self.add_callback(due)
        self.queue_sqe(OP_TIMEOUT, 0, address_of(self._time), 1 | TIMEOUT_ABS, user_data)
        self.submit()  # The kernel has copied the time now, so the next timeout can overwrite it.

    def add_callback(self, callback: CompletionCallback, bgid: int = 0) -> int:
        """A user_data for operations, which may receive into buffers of that group."""
        user_data = next(self._user_data) | bgid
        self._callbacks[user_data] = callback
        return user_data

    def remove_callback(self, user_data: int) -> None:
        """Stop calling back. Unknown user_data is ignored, and what still arrives is dropped."""
        self._callbacks.pop(user_data, None)

    def replace_callback(self, user_data: int, callback: CompletionCallback) -> None:
        """Give the completions of a user_data to another callback from now on."""
        self._callbacks[user_data] = callback

    def redirect(self, user_data: int, callback: CompletionCallback) -> None:
        """Give the completions of a user_data to another callback, until the sends that are queued
        by now are decided, and to none after that."""
        self._callbacks[user_data] = callback
        self.call_after_turn(partial(self.remove_callback, user_data))

    def submit_and_wait(self, wait_nr: Literal[0, 1]) -> None:
        """One turn: submit what is queued, wait for `wait_nr` completions, and call back for all
        that are there. Raises OSError."""
        if self._lost is not None:
            raise self._lost
        self._fields[self._sq_tail_at] = self._sq_tail & U32
        to_submit = self._sq_tail - self.submitted
        # Callbacks that wait for the end of this turn must not wait for a message to come.
        if wait_nr and not self._after_turn:
            waiting = self.busy_poll if self.busy_poll.streak else self._queues
            taken = waiting.enter_and_wait(to_submit)
        else:
            taken = self._queues.enter(to_submit, get_events=True)
        if taken == to_submit:
            self.submitted = self._sq_tail
        else:
            # A turn decides all sends that were queued, so it goes on until all are submitted
            # (test_a_turn_decides_all_sends).
            self._took(taken)
            self.submit()
        # These come before the callbacks. What they queue belongs to the next turn: its number, its
        # buffers in `sending`, and what they want to be called after.
        self.turn += 1
        for each in self._buffer_rings:
            each.mark_submitted()
        after_turn = self._after_turn[:]
        self._after_turn.clear()
        self._reap()
        # After the callbacks: the owner of a failed send takes what is left of it from its buffer
        # (early-reuse, 94 seeds).
        for each in self._buffer_rings:
            each.give_back_sent()
        # After that: a receive that has ended for lack of a buffer is armed again here, and finds
        # one. Armed at once, it would fail again.
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
            # Does the task work of what was cancelled, so that the kernel lets go of sockets that
            # were closed. Closing the ring does so, too, but later and in a kernel thread.
            self.submit_and_wait(0)
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
        last = first + ((tail - head & U32) << 1)
        completions = self._cqes[first:last].tolist()
        if last - first > 2:
            self.busy_poll.streak = 0
        elif self.busy_poll.allowed:
            self.busy_poll.streak += 1
        if last > self._cq_end:
            completions += self._cqes[: last - self._cq_end].tolist()
        # Before the callbacks, one of which may submit: the kernel needs room for what completes.
        self._cq_head = self._fields[self._queues.cq_head_at] = tail
        # Only a full queue can have overflowed, so its flag is not looked at otherwise.
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
        """The callback of a send that has failed, if it is one. Any other user_data that is not
        known belongs to an operation that was cancelled: a message that has come for it
        nevertheless is dropped, but the buffer is given back, or the group would run dry."""
        if completion & CQE_F_BUFFER:
            self._buffer_rings[user_data & 1].give_back(completion >> CQE_BUFFER_SHIFT)
        if user_data & USER_DATA_SEND:
            return self._callbacks.get(user_data & USER_DATA_OWNER)
        return None

    def _overflowed(self) -> list[int]:
        """Completions for which the queue had no room: the kernel moves them there when it is asked
        for events. Failed sends may be among them, and all sends are decided when this turn ends,
        so it has to be now."""
        queues, fields, more = self._queues, self._fields, []
        while fields[queues.sq_flags_at] & SQ_CQ_OVERFLOW:
            self._took(queues.enter(0, get_events=True))
            tail = fields[queues.cq_tail_at]
            while self._cq_head != tail:
                at = (self._cq_head & self._cq_mask) << 1
                more += self._cqes[at : at + 2].tolist()
                self._cq_head = self._cq_head + 1 & U32
            fields[queues.cq_head_at] = tail
        return more


def _log_error(callback: Callable[..., None] | None, error: Exception) -> None:
    logger.error("%r failed", callback, exc_info=error)
