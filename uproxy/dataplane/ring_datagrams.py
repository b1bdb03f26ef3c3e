"""Datagrams by io_uring."""

from __future__ import annotations

from typing import Final

from uproxy.dataplane.ring import Completed, Ring
from uproxy.dataplane.ring_abi import (
    BUFFER_IN_KEY,
    DATAGRAM_FLAGS,
    RECEIVE,
    RECEIVE_MESSAGE,
    SEND,
    SEND_FAILED,
    SEND_MESSAGE,
)

SIZE: Final = 65_536 + 1024
"""Bytes of a buffer: any datagram, with its name and control data."""

COUNT: Final = 256
"""Buffers of a worker. Their 16 MiB are touched as far as datagrams are long."""

REPLY: Final = 0x8000
"""Set in the number of the buffer of a send that has failed, as it was marked."""

_GROUP: Final = 1


class Datagrams:
    """Buffers for datagrams of any length, and operations that use them; one for a ring."""

    def __init__(self, ring: Ring) -> None:
        self.ring = ring
        self.buffers = ring.add_buffers(count=COUNT, size=SIZE)
        self._base = self.buffers.base
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

    def send(
        self, fd: int, key: int, buffer: int, begin: int, count: int, name: int = 0, length: int = 0
    ) -> None:
        """Queue bytes of a buffer, which it frees. `name`: address of a struct sockaddr of `length`
        bytes, which must stay until the next turn; such are marked as REPLY. None for a connected
        socket."""
        tag = (buffer | REPLY if name else buffer) << BUFFER_IN_KEY
        self._queue(
            SEND | fd << 32, name, self._base + buffer * SIZE + begin, count | DATAGRAM_FLAGS,
            key | SEND_FAILED | tag, length << 32,
        )  # fmt: skip
        self.buffers.used.append(buffer)

    def reply(self, fd: int, key: int, buffer: int, header: int) -> None:
        """Queue what the struct msghdr at an address describes, of a buffer, which it frees."""
        tag = (buffer | REPLY) << BUFFER_IN_KEY
        self._queue(SEND_MESSAGE | fd << 32, 0, header, 1 | DATAGRAM_FLAGS, key | SEND_FAILED | tag)
        self.buffers.used.append(buffer)
