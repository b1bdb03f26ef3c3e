"""A UDP flow whose datagrams are moved by io_uring: they leave from the ring's buffers in which
they arrived, together with the datagrams of all other flows.

Those of one flow that come in the same turn leave by one send, if they are of one size
(segments.py). When a turn has brought MANY, the socket that they came from is asked for several in
one message from then on.
"""

from __future__ import annotations

import errno
import os
from _socket import socket as Socket
from functools import partial
from typing import Final, cast

from uproxy.dataplane.udp.flow import Listening
from uproxy.dataplane.udp.keys import Address, Key
from uproxy.dataplane.udp.packing import (
    NAME_ROOM,
    NAME_V4,
    NAME_V6,
    RECVMSG_OUT,
    REPLY_BEGIN,
    packed_control,
)
from uproxy.dataplane.udp.ring_receive import RingReceive
from uproxy.dataplane.udp.ring_refusals import REPLY, RingRefusals
from uproxy.dataplane.udp.ring_socket import RingSocket
from uproxy.net import pktinfo
from uproxy.net.segments import merge_received
from uproxy.uring.abi import (
    CQE_BUFFER_SHIFT,
    CQE_F_BUFFER,
    CQE_F_MORE,
    CQE_RES,
    DATAGRAM_SEND_FLAGS,
    OP_SEND,
    SEND_INCOMPLETE,
    USER_DATA_BID_SHIFT,
    USER_DATA_SEND,
    errno_of,
)
from uproxy.uring.buffers import address_of

MANY: Final = 8
"""Datagrams of one flow in one turn which show that it is worth receiving several at a time. That
takes a system call for each socket, and a lookup for each packet that a network card receives."""


class RingUdpFlow(RingRefusals):
    """A flow of a listener with a RingIntake, which calls `forward` for what the client sends."""

    __slots__ = ("_back", "_fd", "_forth", "_merges", "_second_back", "_second_forth",
                 "_to_backend", "control_length", "memory", "name", "name_length")  # fmt: skip

    _receive: RingReceive

    def __init__(
        self,
        listener: Listening,
        shared: RingSocket,
        key: Key,
        name: bytes,
        client: Address,
        control: pktinfo.Control,
    ) -> None:
        """`shared` is the listener's socket, and `name` the client's struct sockaddr_in(6)."""
        super().__init__(listener, shared, key, client, control)
        self._to_backend = 0
        """How an SQE that sends on our socket begins."""
        self._forth = self._back = -1
        """Numbers of the SQEs that were queued last, for what the client has sent and for a reply.
        Until the kernel has taken such a send, another datagram may join in it."""
        self._second_forth = self._second_back = -1
        """The same for those before. Two of a turn leave by themselves, and from the third on, each
        joins in the send of the second: for a pair alone, the message takes Python as long as the
        kernel needs for a send."""
        self.name_length = NAME_V6 if len(client) == 4 else NAME_V4
        ancillary = packed_control(control) if control else b""
        self.control_length = len(ancillary)
        self.memory = bytearray(name.ljust(NAME_ROOM, b"\0") + ancillary)
        self.name = address_of(self.memory)

    def forward(self, buffer: int, begin: int, count: int) -> None:
        """Send a datagram of the client from a buffer of the ring."""
        shared = self._shared
        self.last = shared.now
        if self._forth >= self._ring.submitted:
            if self._second_forth >= self._ring.submitted and self._joins(buffer, begin, count):
                return
            self._second_forth = self._forth
        self._forth = shared.queue(
            self._to_backend, 0, shared.addresses[buffer] + begin,
            count | DATAGRAM_SEND_FLAGS, self._tag | buffer << USER_DATA_BID_SHIFT,
        )  # fmt: skip
        shared.use(buffer)
        self._turn = shared.turn
        self.client_bytes += count
        self.client_datagrams += 1
        if self._inspecting:
            self._inspect(shared.buffers.view(buffer, begin, begin + count))

    def forward_several(self, buffer: int, begin: int, count: int, size: int) -> None:
        """Send datagrams of `size` bytes, of which the last may be shorter, that a client has sent,
        and that have come as one message."""
        shared = self._shared
        shared.use(buffer)
        datagrams = shared.cut(buffer, begin, count, size)
        if size > self._most_forth:
            self._prove_segments(datagrams)
            return
        self.last = shared.now
        tag = self._tag | buffer << USER_DATA_BID_SHIFT
        self._forth = shared.segments.queue(self._fd, begin, count, size, tag, None)
        self._turn = shared.turn
        self.client_bytes += count
        self.client_datagrams += len(datagrams)
        if self._inspecting:
            for data in datagrams:
                self._inspect(data)

    def _start_receiving(self, sock: Socket) -> None:
        self._fd = sock.fileno()
        receive, self._taken = cast("RingReceive | None", self._taken), None
        if receive is None:
            user_data = self._shared.datagrams.add_callback(self._arrived)
            self._receive = RingReceive(self._shared.datagrams, sock, user_data)
            self._user_data = user_data
            self._arm()
        else:
            self._receive, self._user_data = receive, receive.user_data
            self._ring.replace_callback(receive.user_data, self._arrived)
        self._tag = self._user_data | USER_DATA_SEND
        self._to_backend = OP_SEND | self._fd << 32
        self._most_forth = 0
        self._merges = False

    def _may_be_idle(self) -> bool:
        # One that receives several datagrams at a time would go on with that. What was queued in
        # the previous turn may still turn out to have failed, as below.
        return not (self._merges or self._receive.over or self._turn >= self._ring.turn - 1)

    def _stop_receiving(self, sock: Socket) -> None:
        ring, user_data = self._ring, self._user_data
        # What was queued in the previous turn is among the completions that are being looked at
        # now, so its sends may still turn out to have failed (refused-after-the-move).
        if self._turn < ring.turn - 1:
            ring.remove_callback(user_data)
        else:
            ring.redirect(user_data, partial(self._too_late, tuple(self._kept), self._tally))
        # Ends the receive, which would otherwise keep the socket open in the kernel.
        ring.cancel(user_data)
        # The kernel looks up descriptors when it takes an operation. The socket is closed next, and
        # what is still queued would reach the next socket that gets its number.
        if self._turn == ring.turn:
            ring.submit()

    def _arm(self) -> None:
        self._turn = self._ring.turn
        self._receive.over = False
        header = address_of(self._shared.reply_header)
        self._shared.datagrams.recvmsg(self._fd, self._user_data, header)

    def _arrived(self, completion: int) -> None:
        """A reply has come, or something else has happened to an operation of this flow."""
        if not completion & CQE_F_MORE:
            self._unusual(completion)
            return
        shared, ring = self._shared, self._ring
        turn = self._turn = ring.turn
        self.last = shared.now if shared.turn == turn else shared.tick()
        if not self._confirmed:
            self._first_reply(self.last)
        buffer, count = completion >> CQE_BUFFER_SHIFT, (completion & CQE_RES) - REPLY_BEGIN
        if self._back >= ring.submitted:
            if self._second_back >= ring.submitted and self._reply_joins(buffer, count):
                return
            self._second_back = self._back
        tag = self._tag | (buffer | REPLY) << USER_DATA_BID_SHIFT
        if self.control_length:
            self._back = shared.queue(
                shared.reply_message, 0, shared.message(buffer, count, self),
                1 | DATAGRAM_SEND_FLAGS, tag,
            )  # fmt: skip
        else:
            self._back = shared.queue(
                shared.reply, self.name, shared.addresses[buffer] + REPLY_BEGIN,
                count | DATAGRAM_SEND_FLAGS, tag, self.name_length << 32,
            )  # fmt: skip
        shared.use(buffer)
        self.backend_bytes += count
        self.backend_datagrams += 1

    def _arrived_several(self, completion: int) -> None:
        """Like `_arrived`, for a socket that may receive several datagrams in one message."""
        shared, buffer = self._shared, completion >> CQE_BUFFER_SHIFT
        if not completion & CQE_F_BUFFER or not shared.control_length(buffer):
            self._arrived(completion)
            return
        if not completion & CQE_F_MORE:
            self._arm_after_turn(self._user_data)
        self._turn = self._ring.turn
        self.last = shared.now if shared.turn == self._turn else shared.tick()
        if not self._confirmed:
            self._first_reply(self.last)
        count = (completion & CQE_RES) - REPLY_BEGIN
        size = shared.segment_length(buffer, RECVMSG_OUT)
        shared.use(buffer)
        datagrams = shared.cut(buffer, REPLY_BEGIN, count, size)
        if size > self._most_back:
            self._prove_reply_segments(datagrams)
            return
        tag = self._tag | (buffer | REPLY) << USER_DATA_BID_SHIFT
        self._back = shared.segments.queue(shared.fd, REPLY_BEGIN, count, size, tag, self)
        self.backend_bytes += count
        self.backend_datagrams += len(datagrams)

    def _unusual(self, completion: int) -> None:
        """A send has failed, or the receive has ended: with a reply, an error, or for lack of a
        buffer."""
        if completion & SEND_INCOMPLETE:
            self._unsent(completion)
            return
        self._receive.over = True
        code, user_data = errno_of(completion), self._user_data
        if completion & CQE_F_BUFFER:
            # A multishot receive ends with a reply where completions have no room in their queue.
            self._arrived(completion | CQE_F_MORE)
        elif code and code != errno.ENOBUFS:
            self._recover(OSError(code, os.strerror(code)), None)
        self._arm_after_turn(user_data)

    def _arm_after_turn(self, user_data: int) -> None:
        # Not at once: buffers are free again only when the sends of this turn are decided.
        self._ring.call_after_turn(lambda: self._arm_again(user_data))

    def _arm_again(self, user_data: int) -> None:
        # A flow that has moved meanwhile is armed already, with another user_data. Two receives
        # with one would be one too many: cancelling it ends one of them, and the other keeps the
        # socket open (docs/decisions/0011-simulated-kernel.md).
        if self._sock is not None and self._user_data == user_data:
            self._arm()

    def _joins(self, buffer: int, begin: int, count: int) -> bool:
        """Whether a datagram of the client leaves together with the one before it, whose send the
        kernel has not taken yet. Otherwise it needs a send of its own."""
        if not self._confirmed:
            # A backend that is gone refuses every other send, and what it has refused goes to the
            # next one. By a single send, all would be lost
            # (test_many_datagrams_are_refused_in_one_turn).
            return False
        shared = self._shared
        address = shared.addresses[buffer] + begin
        joined = shared.segments.join(self._forth, begin, address, count, self._most_forth, None)
        if joined:
            self.client_bytes += count
            self.client_datagrams += 1
            if joined == MANY and not shared.merges:
                shared.merge()
        elif not 0 <= self._most_forth < count:
            return False
        shared.use(buffer)
        if not joined:
            self._prove_segments(shared.cut(buffer, begin, count, count))
        elif self._inspecting:
            self._inspect(shared.buffers.view(buffer, begin, begin + count))
        return True

    def _reply_joins(self, buffer: int, count: int) -> bool:
        """The same for a reply."""
        shared = self._shared
        address = shared.addresses[buffer] + REPLY_BEGIN
        joined = shared.segments.join(
            self._back, REPLY_BEGIN, address, count, self._most_back, self
        )
        if joined:
            self.backend_bytes += count
            self.backend_datagrams += 1
            if joined == MANY and not self._merges:
                self._merge()
        elif not 0 <= self._most_back < count:
            return False
        shared.use(buffer)
        if not joined:
            self._prove_reply_segments(shared.cut(buffer, REPLY_BEGIN, count, count))
        return True

    def _merge(self) -> None:
        """Receive several replies in one message from now on, if they come like that."""
        self._merges = True
        self._ring.replace_callback(self._user_data, self._arrived_several)
        assert self._sock is not None
        merge_received(self._sock)
