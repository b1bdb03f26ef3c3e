"""Receiving datagrams by io_uring, into buffers of their own.

Datagrams need buffers of their own: a stream goes on in the next buffer when one is full, but a
datagram that does not fit is cut off.
"""

from __future__ import annotations

from typing import Final

from uproxy.uring.abi import OP_RECVMSG_MULTISHOT
from uproxy.uring.ring import CompletionCallback, Ring

BUFFER_SIZE: Final = 65_536 + 1024
"""Bytes of a buffer: any datagram, with its name and control data."""

BUFFER_COUNT: Final = 256
"""Buffers of a ring. Their 16 MiB are touched as far as datagrams are long."""

_BGID: Final = 1
"""The group of `Ring.add_buffers`, which is called here only."""


class DatagramReceiver:
    """Buffers for datagrams of any length, and the operations that fill them; one for a ring."""

    def __init__(self, ring: Ring, count: int = BUFFER_COUNT) -> None:
        """Raises OSError."""
        self.ring = ring
        self.count = count
        self.buffers = ring.add_buffers(count=count, size=BUFFER_SIZE)
        self.addresses = [self.buffers.address(bid) for bid in range(count)]
        """Where each buffer begins. Looking it up takes less time than computing it."""
        self._queue_sqe = ring.queue_sqe

    def add_callback(self, callback: CompletionCallback) -> int:
        """A user_data for the operations of one socket."""
        return self.ring.add_callback(callback, _BGID)

    def recvmsg(self, fd: int, user_data: int, header: int) -> None:
        """Call back for all that a socket receives, until a completion without CQE_F_MORE.

        `header` is the address of a struct msghdr that says how much room names and control data
        get in each buffer, which begins with a struct io_uring_recvmsg_out of 16 bytes, the name
        and the control data (io_uring_prep_recvmsg_multishot(3)). So even an empty datagram has a
        result above 0; by IORING_OP_RECV the kernel would take it for the end of a stream.
        """
        self._queue_sqe(OP_RECVMSG_MULTISHOT | fd << 32, 0, header, 0, user_data, _BGID)
