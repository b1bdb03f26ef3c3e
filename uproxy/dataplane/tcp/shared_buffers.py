"""The memory that all flows relayed by epoll share: one receive buffer, and pipes for splice."""

from __future__ import annotations

import sys
from typing import Final, Literal

from uproxy.dataplane.reactor import Reactor
from uproxy.dataplane.tcp.pipes import PipePool

BUFFER: Final = 64 * 1024
"""Bytes of the receive buffer, one for the whole worker, and so the most that a direction keeps
whose receiver is slow. Measured without splice, per byte: 256 KiB takes 18 % less CPU. But bulk is
spliced, and a thousand slow receivers would take four times the memory."""

SPLICE_AFTER: Final = 4
"""Reads in a row that fill the buffer before a direction changes to splice. Measured: 10 MB bodies
take half the CPU of copying; for bodies of 0.1 to 1 MB there is no difference."""

SpliceMode = Literal["adaptive", "never", "always"]
_THRESHOLDS: Final[dict[SpliceMode, int]] = {
    "adaptive": SPLICE_AFTER,
    "never": sys.maxsize,
    "always": 0,
}


class SharedBuffers:
    """One for a worker. The buffer's content is valid only within one call of a direction: what a
    receiver does not take at once is copied out of it."""

    def __init__(self, reactor: Reactor, splice: SpliceMode = "adaptive") -> None:
        self.reactor = reactor
        """Whose events the directions get, and which defers what is left of a long read."""
        self.buffer = bytearray(BUFFER)
        self.view = memoryview(self.buffer)
        self.pipes = PipePool(reactor.kernel)
        self.splice_after = _THRESHOLDS[splice]
        """Full reads in a row before splicing."""
