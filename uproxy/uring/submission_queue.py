"""The submission queue of a ring: SQEs are written here, and leave with one system call.

Until then nothing has happened. The kernel looks up descriptors when it takes an SQE, and reads
what the SQE points to (the bytes to send, names, message headers, a timespec). So `submit` is
needed before a descriptor is closed, or memory is reused, that a queued SQE names: otherwise the
SQE would reach whatever socket gets the number next. (Simulation: udp-closed-without-a-submit.)
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from time import sleep
from typing import Final, NoReturn

from uproxy.uring.abi import (
    MSG_MORE,
    OP_ASYNC_CANCEL,
    OP_SEND,
    SEND_SQE,
    SQ_TASKRUN,
    SQE,
    STREAM_SEND_FLAGS,
    U32,
    USER_DATA_IGNORED,
)
from uproxy.uring.buffers import BufferRing
from uproxy.uring.queues import RingQueues

REFUSALS: Final = 2000
"""How often in a row the kernel may take nothing, for lack of memory, a millisecond or more apart.
A worker that has waited that long is better replaced."""

_pack_send: Final = SEND_SQE.pack_into

logger = logging.getLogger(__name__)


class SubmissionQueue:
    """What is queued, and how the kernel is made to take it.

    SQEs are numbered from 0 and the numbers never wrap around, so one that is less than
    `submitted` is known to be the kernel's, and its place to be free for another.

    Once `submit` or a turn has raised, the ring is lost, and so is everything that waits for it.
    """

    def __init__(self, queues: RingQueues, buffers: BufferRing) -> None:
        self.buffers = buffers
        """Streams are received into these, and sent from there."""
        self.pause: Callable[[], None] = _pause
        """Gives the kernel a moment, after it has taken nothing."""
        self._lost: OSError | None = None
        """Why nothing can be submitted any more."""
        self._queues = queues
        self._fields, self._sq_tail_at = queues.fields, queues.sq_tail_at
        self.sqes, self.sqe_words, self.sq_mask = queues.sqes, queues.sqe_words, queues.sq_mask
        self._sq_tail = self.submitted = 0
        """Numbers of the next SQE, and of the first that the kernel has not taken. Until it takes
        an SQE, the operation in it may still be changed."""
        self._base, self._size = buffers.base, buffers.size
        self._use = buffers.sending.append

    def queue_sqe(
        self, head: int, offset: int, address: int, length: int, user_data: int, rest: int = 0
    ) -> int:
        """Queue any operation; the arguments are the words that are drawn in abi.py. Returns the
        number of the SQE."""
        # A full queue is submitted in the middle of a turn. Its users do not notice: until the turn
        # ends there are no callbacks, and no buffer is given back.
        tail = self._sq_tail
        if tail - self.submitted > self.sq_mask:
            self.submit()
        at = (tail & self.sq_mask) << 6
        SQE.pack_into(self.sqes, at, head, offset, address, length, user_data, rest)
        self._sq_tail = tail + 1
        return tail

    def send(self, fd: int, user_data: int, bid: int, count: int) -> int:
        """Queue a send of the first bytes of a buffer, which is given back when the send is
        decided. `user_data` is marked by USER_DATA_SEND, and its callback is told if the send has
        failed. Returns the number of the SQE, for `set_msg_more`."""
        tail = self._sq_tail
        if tail - self.submitted > self.sq_mask:
            self.submit()
        _pack_send(
            self.sqes, (tail & self.sq_mask) << 6, OP_SEND, fd,
            self._base + bid * self._size, count, STREAM_SEND_FLAGS, user_data,
        )  # fmt: skip
        self._sq_tail = tail + 1
        self._use(bid)
        return tail

    def set_msg_more(self, sqe_number: int) -> None:
        """Have a queued send wait for what is written to its socket next, such as a FIN.

        One that is submitted already is left alone: its place may be that of another socket's send,
        which would be held back then (more-follows-anywhere, 374 seeds).
        """
        if sqe_number >= self.submitted:
            self.sqe_words[((sqe_number & self.sq_mask) << 3) + 3] |= MSG_MORE

    def cancel(self, user_data: int) -> None:
        """End an operation early. It completes with ECANCELED, unless it has completed before, so
        its completion may be on its way already.

        The kernel lets go of the socket when it does the task work of the cancelled operation: with
        the next turn, or `submit_and_get_events`.
        """
        self.queue_sqe(OP_ASYNC_CANCEL, 0, user_data, 0, USER_DATA_IGNORED)

    def submit(self) -> None:
        """Submit what is queued, to the last SQE, without any callbacks. Raises OSError.

        What a refused SQE names may be closed right after this, so to return earlier would be as
        bad as not to submit at all (refused-enter-goes-on, 7 seeds).
        """
        refusals = 0
        while self._sq_tail != self.submitted:
            if self._enter() > 0:
                refusals = 0
            elif refusals < REFUSALS:
                refusals += 1
                self.pause()
            else:
                self._lose(OSError(errno.EAGAIN, "the kernel keeps refusing what is queued"))

    def submit_and_get_events(self) -> None:
        """Submit what is queued, and have the task work done, without any callbacks. After this the
        kernel has let go of what was cancelled. Raises OSError."""
        self.submit()
        for _ in range(REFUSALS):
            self._took(self._queues.enter(0, get_events=True))
            # Linux 6.18 does the task work of 20 operations in a call (IO_LOCAL_TW_DEFAULT_MAX). It
            # leaves this flag set if there is more; so does what arrives, until no buffer is free.
            if not self._fields[self._queues.sq_flags_at] & SQ_TASKRUN:
                break

    def _enter(self) -> int:
        if self._lost is not None:
            raise self._lost
        self._fields[self._sq_tail_at] = self._sq_tail & U32
        return self._took(self._queues.enter(self._sq_tail - self.submitted, get_events=False))

    def _took(self, taken: int) -> int:
        """Note the result of a call of the kernel. Returns how many SQEs it has taken."""
        if taken < 0:
            try:
                self._queues.raise_unless_temporary()
            except OSError as error:
                self._lose(error)
            return 0
        self.submitted += taken
        return taken

    def _lose(self, error: OSError) -> NoReturn:
        """It is not known what becomes of what is queued, so nothing that it names may be reused.
        Raise now and in every turn to come, which ends the loop and with it the worker: code
        that catches this error would go on with sockets that are never served."""
        self._lost = error
        logger.critical("io_uring cannot be used any more: %s", error.strerror)
        raise error


def _pause() -> None:
    sleep(0.001)
