"""UDP sockets that behave like those of Linux (net/ipv4/udp.c)."""

from __future__ import annotations

import errno
from collections import deque
from typing import TYPE_CHECKING

from tests.simulation.files import ANY, ERR, IN, OUT, File, fail
from tests.simulation.streams import NODE, NOWHERE, WILDCARD, Address
from tests.simulation.world import Fault, World

if TYPE_CHECKING:
    from tests.simulation.network import Network


class DatagramSocket(File):
    """It may be bound, or connected, or neither yet."""

    def __init__(self, world: World, network: Network, name: str, *, receives: int) -> None:
        """`receives` is how many bytes its queue has room for."""
        super().__init__(world, name)
        self.network = network
        self.local: Address = NOWHERE
        self.remote: Address | None = None
        self.inbox: deque[tuple[bytes, Address, Address]] = deque()
        """Each datagram with its source and its destination."""
        self.receives = receives
        self.held = 0
        """Bytes in the inbox, with 64 for each datagram besides, as the kernel counts its own
        memory."""
        self.error = 0
        self.taken = 0
        """Datagrams that the process has sent through it."""
        self.taken_bytes = 0
        self.read = 0

    def poll(self) -> int:
        return OUT | (IN if self.inbox or self.error else 0) | (ERR if self.error else 0)

    def arrive(self, data: bytes, source: Address, target: Address) -> bool:
        """A datagram comes from the network. Returns whether there was room for it."""
        if self.held + len(data) + 64 > self.receives:
            return False
        self.inbox.append((data, source, target))
        self.held += len(data) + 64
        self.wake(IN)
        return True

    def refused(self) -> None:
        """An ICMP message says that nothing listens there. Only a connected socket is told of it,
        with its next call."""
        if self.remote is not None and not self.released:
            self.error = errno.ECONNREFUSED
            self.wake(ANY)

    def receive(self) -> tuple[bytes, Address, Address]:
        """Raises OSError."""
        if self.error:
            raise self.failure()
        if not self.inbox:
            raise fail(errno.EAGAIN)
        data, source, target = self.inbox.popleft()
        self.held -= len(data) + 64
        self.read += 1
        return data, source, target

    def send(
        self, data: bytes, target: Address | None = None, source: Address | None = None
    ) -> int:
        """Raises OSError."""
        if self.error:
            raise self.failure()
        target = target or self.remote
        if target is None:
            raise fail(errno.EDESTADDRREQ)
        if len(data) > 65_507:
            raise fail(errno.EMSGSIZE)
        if self.world.chance(Fault.FULL_SEND):
            raise fail(errno.EAGAIN)
        if self.world.chance(Fault.NO_MEMORY_SEND):
            raise fail(errno.ENOBUFS)
        self.taken += 1
        self.taken_bytes += len(data)
        if source is None:
            source = (NODE, self.local[1]) if self.local[0] == WILDCARD else self.local
        self.network.carry(self, data, source, target)
        return len(data)

    def failure(self) -> OSError:
        """The pending error, which is reported once and then cleared."""
        code, self.error = self.error, 0
        return fail(code)

    def release(self) -> None:
        self.waiters.clear()
        self.network.forget(self)
