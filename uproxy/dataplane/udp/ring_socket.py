"""The socket of a UDP listener as io_uring uses it: what its intake and all of its flows share."""

from __future__ import annotations

import socket
from typing import Final, Protocol

from uproxy.dataplane.reactor import Reactor
from uproxy.dataplane.udp.packing import (
    CONTROL_V4,
    CONTROL_V6,
    HEADER,
    MESSAGE,
    NAME_V4,
    NAME_V6,
    PAYLOAD_LENGTH,
    RECVMSG_OUT,
)
from uproxy.uring.abi import OP_SEND, OP_SENDMSG
from uproxy.uring.buffers import address_of
from uproxy.uring.datagrams import BUFFER_COUNT, DatagramReceiver

_IOVEC: Final = HEADER.size
"""Where in a MESSAGE its struct iovec is."""


class Replying(Protocol):
    """What a message header needs of a flow. The memory stays where it is as long as the flow."""

    name: int
    """Address of the struct sockaddr_in(6) of its client."""
    name_length: int
    control: int
    """Address of the control data, which names the local address that replies leave from."""
    control_length: int


class RingSocket:
    """Where datagrams of clients lie in the ring's buffers, and how replies leave from there.

    The attributes are read for each datagram, so they are plain values and bound methods.
    """

    def __init__(
        self, datagrams: DatagramReceiver, reactor: Reactor, sock: socket.socket, *, wildcard: bool
    ) -> None:
        self.datagrams = datagrams
        self.ring = datagrams.ring
        self.buffers = datagrams.buffers
        self.fd = sock.fileno()
        self.is_ipv6 = sock.family == socket.AF_INET6
        name, control = (NAME_V6, CONTROL_V6) if self.is_ipv6 else (NAME_V4, CONTROL_V4)
        control = control if wildcard else 0
        self.name_end = RECVMSG_OUT + name
        self.begin = self.name_end + control
        """Where in a buffer the client's datagram begins."""
        self.header = bytearray(HEADER.pack(0, name, 0, 0, 0, control, 0))
        """The struct msghdr of the multishot receive. The kernel reads the room for name and
        control data from it whenever the operation is submitted, so it is kept."""
        self._messages = bytearray(BUFFER_COUNT * MESSAGE.size)
        """A message header for each buffer, for replies of wildcard listeners. The kernel reads it
        when the send is submitted. By then the buffer has no other reply, while one header for the
        listener, or for each flow, would have been overwritten by the next reply
        (reply-to-somebody-else)."""
        self._messages_at = address_of(self._messages)
        self.counts = [0] * BUFFER_COUNT
        """Of each buffer, the bytes of the last reply that was sent from it. A send that fails
        comes back with the number of its buffer only, and was counted already."""
        self.turn = -1
        """The turn of the ring in which `tick` was called last."""
        self.now = 0.0
        """Monotonic seconds, as of then."""
        self.queue = self.ring.queue_sqe
        self.use = self.buffers.sending.append
        """Says that a send was queued, which frees its buffer when it is decided."""
        self.base = self.buffers.base
        self.reply, self.reply_message = OP_SEND | self.fd << 32, OP_SENDMSG | self.fd << 32
        self._reactor = reactor

    def tick(self) -> float:
        """Monotonic seconds. It is called once in a turn of the ring: the clock takes as long as
        a lookup, and a turn has up to hundreds of datagrams."""
        self.turn = self.ring.turn
        self.now = self._reactor.tick()
        return self.now

    def payload(self, buffer: int) -> memoryview:
        """The datagram in a buffer that came from a client."""
        (count,) = PAYLOAD_LENGTH.unpack(self.buffers.view(buffer, 0, PAYLOAD_LENGTH.size))
        return self.buffers.view(buffer, self.begin, self.begin + count)

    def message(self, buffer: int, count: int, flow: Replying) -> int:
        """The address of a message header, with which the first bytes of a buffer are sent to the
        client of a flow, from the local address that it has sent to."""
        at = buffer * MESSAGE.size
        address = self._messages_at + at
        MESSAGE.pack_into(
            self._messages, at, flow.name, flow.name_length, address + _IOVEC, 1,
            flow.control, flow.control_length, 0, self.buffers.address(buffer), count,
        )  # fmt: skip
        return address
