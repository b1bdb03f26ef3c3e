"""What datagrams by io_uring are received into."""

from __future__ import annotations

from typing import Final

from uproxy.uring.abi import OP_RECV_MULTISHOT, OP_RECVMSG_MULTISHOT
from uproxy.uring.ring import CompletionCallback, Ring

BUFFER_SIZE: Final = 65_536 + 1024
"""Bytes of a buffer: any datagram, with its name and control data."""

BUFFER_COUNT: Final = 256
"""Buffers of a worker. Their 16 MiB are touched as far as datagrams are long."""

_BGID: Final = 1


class Datagrams:
    """Buffers for datagrams of any length, and operations that fill them; one for a ring."""

    def __init__(self, ring: Ring, count: int = BUFFER_COUNT) -> None:
        self.ring = ring
        self.buffers = ring.add_buffers(count=count, size=BUFFER_SIZE)
        self._queue_sqe = ring.queue_sqe

    def add_callback(self, callback: CompletionCallback) -> int:
        """The user_data of operations."""
        return self.ring.add_callback(callback, _BGID)

    def recv(self, fd: int, user_data: int) -> None:
        """Call back for all that a connected socket receives, until a completion without
        CQE_F_MORE, as an empty datagram has."""
        self._queue_sqe(OP_RECV_MULTISHOT | fd << 32, 0, 0, 0, user_data, _BGID)

    def recvmsg(self, fd: int, user_data: int, header: int) -> None:
        """The same for a socket that is not connected. `header`: address of a struct msghdr that
        says how much room names and control data get in each buffer, which begins with 16 bytes, a
        name and control data."""
        self._queue_sqe(OP_RECVMSG_MULTISHOT | fd << 32, 0, header, 0, user_data, _BGID)
