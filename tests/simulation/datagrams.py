"""UDP sockets that behave like those of Linux (net/ipv4/udp.c)."""

from __future__ import annotations

import errno
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.simulation.files import ANY, ERR, IN, OUT, File, fail
from tests.simulation.streams import NODE, NOWHERE, WILDCARD, Address
from tests.simulation.world import Fault, Violation, World

if TYPE_CHECKING:
    from tests.simulation.network import Network


MOST_SEGMENTS: Final = 64
MOST_BYTES: Final = 65_507


@dataclass(frozen=True, slots=True)
class Message:
    """What one call receives: a datagram, or several of one sender."""

    data: bytes
    source: Address
    target: Address
    size: int = 0
    """How long each of several datagrams is, but for the last."""

    def followed_by(self, data: bytes) -> Message | None:
        """The same with one datagram more, where that can be (net/ipv4/udp_offload.c)."""
        size = self.size or len(self.data)
        whole = self.data + data
        if not 0 < len(data) <= size or len(self.data) % size:
            return None
        if len(whole) > min(MOST_BYTES, size * MOST_SEGMENTS):
            return None
        return Message(whole, self.source, self.target, size)


class DatagramSocket(File):
    """It may be bound, or connected, or neither yet."""

    def __init__(self, world: World, network: Network, name: str, *, receives: int) -> None:
        """`receives` is how many bytes its queue has room for."""
        super().__init__(world, name)
        self.network = network
        self.local: Address = NOWHERE
        self.remote: Address | None = None
        self.inbox: deque[Message] = deque()
        self.dialed = False
        """Whether it was ever connected."""
        self.merges = False
        """Whether several datagrams may be received in one message (UDP_GRO)."""
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
        self.network.came.append((self, source, data))
        self.held += len(data) + 64
        last = self.inbox[-1] if self.merges and self.inbox else None
        if last is not None and (last.source, last.target) == (source, target):
            several = last.followed_by(data)
            if several is not None:
                self.inbox[-1] = several
                return True
        self.inbox.append(Message(data, source, target))
        self.wake(IN)
        return True

    def refused(self, source: Address, target: Address) -> None:
        """An ICMP message says that nothing listens there. Only a socket that is still connected
        from that source to that target is told of it, with its next call."""
        if (self.local, self.remote) == (source, target) and not self.released:
            self.error = errno.ECONNREFUSED
            self.wake(ANY)

    def receive(self, *, several: bool = False) -> Message:
        """`several`: whether the call can tell several datagrams from one. Raises OSError."""
        if self.error:
            raise self.failure()
        if not self.inbox:
            raise fail(errno.EAGAIN)
        message = self.inbox.popleft()
        if message.size and not several:
            raise Violation("several datagrams are received as if they were one")
        count = -(-len(message.data) // message.size) if message.size else 1
        self.held -= len(message.data) + 64 * count
        self.read += count
        return message

    def send(
        self,
        data: bytes,
        target: Address | None = None,
        source: Address | None = None,
        segment: int = 0,
    ) -> int:
        """`segment`: how long each of several datagrams is. Raises OSError."""
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
        if segment and (code := self._refuses(data, segment)):
            raise fail(code)
        if source is None:
            source = (NODE, self.local[1]) if self.local[0] == WILDCARD else self.local
        for at in range(0, max(1, len(data)), segment or MOST_BYTES):
            each = data[at : at + (segment or MOST_BYTES)]
            self.taken += 1
            self.taken_bytes += len(each)
            self.network.carry(self, each, source, target)
        return len(data)

    def _refuses(self, data: bytes, segment: int) -> int:
        """The errno with which segments are refused (udp_send_skb)."""
        if len(data) > segment * MOST_SEGMENTS:
            return errno.EINVAL
        if not self.network.segments:
            return errno.EIO
        return errno.EMSGSIZE if min(segment, len(data)) + 28 > self.network.mtu else 0

    def failure(self) -> OSError:
        """The pending error, which is reported once and then cleared."""
        code, self.error = self.error, 0
        return fail(code)

    def disconnect(self) -> None:
        """It loses its peer and its port, but not what has arrived (__udp_disconnect)."""
        self.network.forget(self)
        self.local, self.remote = NOWHERE, None

    def release(self) -> None:
        self.waiters.clear()
        self.network.forget(self)
