"""What datagrams by io_uring are received into."""

from __future__ import annotations

from typing import Final

from uproxy.uring.abi import RECEIVE, RECEIVE_MESSAGE
from uproxy.uring.ring import Completed, Ring

SIZE: Final = 65_536 + 1024
"""Bytes of a buffer: any datagram, with its name and control data."""

COUNT: Final = 256
"""Buffers of a worker. Their 16 MiB are touched as far as datagrams are long."""

REPLY: Final = 0x8000
"""Set in the number of the buffer where a send is a reply, for when it fails."""

_GROUP: Final = 1


class Datagrams:
    """Buffers for datagrams of any length, and operations that fill them; one for a ring."""

    def __init__(self, ring: Ring, count: int = COUNT) -> None:
        self.ring = ring
        self.buffers = ring.add_buffers(count=count, size=SIZE)
        self._queue = ring.queue

    def add(self, callback: Completed) -> int:
        """A key for operations."""
        return self.ring.add(callback, _GROUP)

    def receive(self, fd: int, key: int) -> None:
        """Call back for all that a connected socket receives, until a completion without MORE, as
        an empty datagram has."""
        self._queue(RECEIVE | fd << 32, 0, 0, 0, key, _GROUP)

    def receive_messages(self, fd: int, key: int, header: int) -> None:
        """The same for a socket that is not connected. `header`: address of a struct msghdr that
        says how much room names and control data get in each buffer, which begins with 16 bytes, a
        name and control data."""
        self._queue(RECEIVE_MESSAGE | fd << 32, 0, header, 0, key, _GROUP)
