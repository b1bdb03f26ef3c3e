"""What the TCP flows of a worker share for moving bytes."""

from __future__ import annotations

import sys
from typing import Final, Literal, Protocol

from uproxy.dataplane.reactor import Reactor, RingReactor
from uproxy.dataplane.tcp.half_closed import HalfClosed
from uproxy.dataplane.tcp.pipes import PipePool
from uproxy.uring.ring import Ring

BUFFER: Final = 64 * 1024
"""Bytes of the receive buffer, one for the whole worker, and so the most that a direction keeps
whose receiver is slow. Measured without splice, per byte: 256 KiB takes 18 % less CPU. But bulk is
spliced, and a thousand slow receivers would take four times the memory."""

ROUNDS: Final = 4
"""Full reads, or pipes, that a direction may do before all other flows get their turn."""

SPLICE_AFTER: Final = 4
"""Reads in a row that fill the buffer before a direction changes to splice. Measured: 10 MB bodies
take half the CPU of copying; for bodies of 0.1 to 1 MB there is no difference."""

SpliceMode = Literal["adaptive", "never", "always"]
_THRESHOLDS: Final[dict[SpliceMode, int]] = {
    "adaptive": SPLICE_AFTER,
    "never": sys.maxsize,
    "always": 0,
}


class Relay:
    """What the flows of a worker share for moving bytes."""

    def __init__(self, reactor: Reactor, splice: SpliceMode = "adaptive") -> None:
        self.reactor = reactor
        self.buffer = bytearray(BUFFER)
        self.view = memoryview(self.buffer)
        self.pipes = PipePool(reactor.kernel)
        self.half_closed = HalfClosed(reactor)
        self.splice_after = _THRESHOLDS[splice]
        """Full reads in a row before splicing."""
        self.ring: Ring | None = None
        if isinstance(reactor, RingReactor) and self.splice_after:
            self.ring = reactor.ring
        """What flows begin with; None: they are relayed by epoll alone."""


class Ends(Protocol):
    """What a flow decides about itself when its bytes have come to an end."""

    def finish(self) -> None:
        """Both directions ended, and all was delivered."""

    def abort(self) -> None:
        """One of the sockets is broken: reset both."""
