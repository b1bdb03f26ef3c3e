"""What the TCP flows of a worker share for moving bytes."""

from __future__ import annotations

import sys
from typing import Final, Literal

from uproxy.dataplane.pipes import PipePool
from uproxy.dataplane.reactor import Reactor

BUFFER: Final = 256 * 1024
"""Bytes of the receive buffer, one for the whole worker. (Measured on bulk: 64 KiB takes a fifth
more CPU; beyond 256 KiB nothing is gained and the CPU's cache overflows.)"""

ROUNDS: Final = 4
"""Full reads that a direction may do before all other flows get their turn: 1 MiB, about 0.3 ms."""

SPLICE_AFTER: Final = 3
"""Reads in a row that fill the buffer before a direction changes to splice."""

LEAN: Final = 64 * 1024
"""A splice that moves fewer bytes than this would have been a cheap copy; after `SPLICE_AFTER` of
them in a row the direction goes back to copying."""

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
        self.pipes = PipePool()
        self.splice_after = _THRESHOLDS[splice]
        """Full reads in a row before splicing."""
