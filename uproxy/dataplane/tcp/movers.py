"""Which mover a TCP flow begins with, which one takes over, and what all movers of a worker share.

dataplane/engine.py chooses one of the two classes for a worker.
"""

from __future__ import annotations

from _socket import socket as Socket
from typing import Final, Protocol

from uproxy.dataplane.reactor import Reactor, RingReactor
from uproxy.dataplane.tcp.epoll_mover import EpollMover
from uproxy.dataplane.tcp.half_closed import HalfCloseTimer
from uproxy.dataplane.tcp.mover import Mover, Owner
from uproxy.dataplane.tcp.ring_mover import RingMover
from uproxy.dataplane.tcp.shared_buffers import SharedBuffers, SpliceMode


class Movers(Protocol):
    """Makes movers, and has what they share."""

    shared: SharedBuffers

    def new(self, owner: Owner, backend: Socket) -> Mover:
        """A mover for a flow that has just got its backend."""

    def successor(self, owner: Owner) -> EpollMover:
        """A mover for a flow whose mover has been detached."""

    def close(self) -> None:
        """Call it when all movers are closed."""


class EpollMovers:
    """Movers that use epoll only."""

    def __init__(self, reactor: Reactor, splice: SpliceMode = "adaptive") -> None:
        self.shared = SharedBuffers(reactor, splice)

    def new(self, owner: Owner, backend: Socket) -> Mover:
        return EpollMover(self.shared, owner)

    def successor(self, owner: Owner) -> EpollMover:
        return EpollMover(self.shared, owner)

    def close(self) -> None:
        self.shared.pipes.close()


class RingMovers(EpollMovers):
    """Movers that use the ring as long as things are simple; their successors use epoll."""

    def __init__(self, reactor: RingReactor, splice: SpliceMode = "adaptive") -> None:
        super().__init__(reactor, splice)
        self._ring: Final = reactor.ring
        self._half_closed = HalfCloseTimer(reactor)

    def new(self, owner: Owner, backend: Socket) -> Mover:
        if self.shared.reactor.is_registered(backend.fileno()):
            # It had to wait for room for a PROXY header: its events belong to epoll already.
            return EpollMover(self.shared, owner)
        return RingMover(self._ring, self._half_closed, owner)

    def close(self) -> None:
        self._half_closed.close()
        super().close()
