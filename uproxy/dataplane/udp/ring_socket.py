"""The socket of a UDP listener as io_uring uses it: what its intake and all of its flows share."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Final

from uproxy.dataplane.reactor import Reactor
from uproxy.dataplane.udp.packing import (
    CONTROL_V4,
    CONTROL_V6,
    HEADER,
    MERGED,
    MESSAGE,
    NAME_ROOM,
    NAME_V4,
    NAME_V6,
    PAYLOAD_LENGTH,
    RECVMSG_OUT,
    REPLY_BEGIN,
    SEGMENT_LENGTH,
)
from uproxy.dataplane.udp.segments import BID, SEVERAL, Replying, SegmentedSends
from uproxy.uring.abi import OP_SEND, OP_SENDMSG
from uproxy.uring.buffers import address_of
from uproxy.uring.datagrams import BUFFER_COUNT, BUFFER_SIZE, DatagramReceiver

_IOVEC: Final = HEADER.size
"""Where in a MESSAGE its struct iovec is."""


class RingSocket:
    """Where datagrams of clients lie in the ring's buffers, and how replies leave from there.

    The attributes are read for each datagram, so they are plain values and bound methods.
    """

    def __init__(
        self,
        datagrams: DatagramReceiver,
        segments: SegmentedSends,
        reactor: Reactor,
        sock: socket.socket,
        *,
        wildcard: bool,
    ) -> None:
        self.datagrams = datagrams
        self.segments = segments
        self.ring = datagrams.ring
        self.buffers = datagrams.buffers
        self.fd = sock.fileno()
        self.is_ipv6 = sock.family == socket.AF_INET6
        name, control = (NAME_V6, CONTROL_V6) if self.is_ipv6 else (NAME_V4, CONTROL_V4)
        self.control = control if wildcard else 0
        """Bytes of control data with each message that is a single datagram."""
        self.name_end = RECVMSG_OUT + name
        self.begin = self.name_end + self.control + MERGED
        """Where in a buffer the client's datagram begins."""
        self.header = bytearray(HEADER.pack(0, name, 0, 0, 0, self.control + MERGED, 0))
        """The struct msghdr of the multishot receive. The kernel reads the room for name and
        control data from it whenever the operation is submitted, so it is kept."""
        self.reply_header = bytearray(HEADER.pack(0, 0, 0, 0, 0, MERGED, 0))
        """The same for the sockets of flows."""
        self.merges = False
        """Whether several datagrams of a client may come in one message."""
        self.merge: Callable[[], None] = _nothing
        """Lets them do so from now on."""
        self._messages = bytearray(BUFFER_COUNT * MESSAGE.size)
        """A message header for each buffer, for replies of wildcard listeners. The kernel reads it
        when the send is submitted. By then the buffer has no other reply, while one header for the
        listener, or for each flow, would have been overwritten by the next reply
        (reply-to-somebody-else)."""
        self._messages_at = address_of(self._messages)
        self.turn = -1
        """The turn of the ring in which `tick` was called last."""
        self.now = 0.0
        """Monotonic seconds, as of then."""
        self.queue = self.ring.queue_sqe
        self.use = self.buffers.sending.append
        """Says that a send was queued, which frees its buffer when it is decided."""
        self.addresses = datagrams.addresses
        self.reply, self.reply_message = OP_SEND | self.fd << 32, OP_SENDMSG | self.fd << 32
        self._reactor = reactor

    def tick(self) -> float:
        """Monotonic seconds. It is called once in a turn of the ring: the clock takes as long as
        a lookup, and a turn has up to hundreds of datagrams."""
        self.turn = self.ring.turn
        self.now = self._reactor.tick()
        return self.now

    def control_length(self, buffer: int) -> int:
        """Bytes of control data in a buffer."""
        return self.buffers.quads[buffer * (BUFFER_SIZE // 8)] >> 32

    def segment_length(self, buffer: int, control: int) -> int:
        """How long the datagrams are that have come in one message. `control` is where its control
        data begins."""
        end = control + SEGMENT_LENGTH.size
        (length,) = SEGMENT_LENGTH.unpack(self.buffers.view(buffer, control, end))
        return int(length)

    def cut(self, buffer: int, begin: int, count: int, size: int) -> list[memoryview]:
        """The datagrams of a message, each of `size` bytes except the last."""
        end = begin + count
        return [
            self.buffers.view(buffer, first, min(first + size, end))
            for first in range(begin, end, size)
        ]

    def datagrams_in(self, number: int, begin: int) -> list[memoryview]:
        """What a send that has failed was to send: `number` has its buffer id, and `begin` is where
        a single datagram begins there."""
        bid = number & BID
        if number & SEVERAL:
            return list(self.segments.datagrams(bid))
        (count,) = PAYLOAD_LENGTH.unpack(self.buffers.view(bid, 0, PAYLOAD_LENGTH.size))
        return [self.buffers.view(bid, begin, begin + count)]

    def message(self, buffer: int, count: int, flow: Replying) -> int:
        """The address of a message header, with which the reply in a buffer is sent to the client
        of a flow, from the local address that it has sent to."""
        at = buffer * MESSAGE.size
        address = self._messages_at + at
        MESSAGE.pack_into(
            self._messages, at, flow.name, flow.name_length, address + _IOVEC, 1,
            flow.name + NAME_ROOM, len(flow.memory) - NAME_ROOM, 0,
            self.buffers.address(buffer) + REPLY_BEGIN, count,
        )  # fmt: skip
        return address


def _nothing() -> None:
    pass
