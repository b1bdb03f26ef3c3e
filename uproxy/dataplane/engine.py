"""What a worker moves bytes with: epoll alone, or io_uring and epoll.

This is the only place that chooses between them. Everything else is given its part of the choice:
a reactor, the movers of TCP flows, and the intakes of UDP listeners.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from functools import partial
from typing import Literal

from uproxy.dataplane.kernel import LINUX, Kernel
from uproxy.dataplane.reactor import Reactor, RingReactor
from uproxy.dataplane.tcp.movers import EpollMovers, Movers, RingMovers
from uproxy.dataplane.tcp.shared_buffers import SpliceMode
from uproxy.dataplane.udp.epoll_intake import BUFFER, EpollIntake
from uproxy.dataplane.udp.intake import NewIntake
from uproxy.dataplane.udp.ring_intake import RingIntake
from uproxy.dataplane.udp.segments import SegmentedSends
from uproxy.uring.datagrams import DatagramReceiver
from uproxy.uring.loop import RingLoop

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Engine:
    """The parts of a data path that belong together."""

    name: Literal["epoll", "io_uring"]
    """As `uproxy status` shows it."""
    reactor: Reactor
    movers: Movers
    """What makes the movers of TCP flows."""
    new_intake: NewIntake
    """What makes the intake of a UDP listener, which decides the kind of its flows."""


def choose_engine(
    loop: asyncio.AbstractEventLoop, kernel: Kernel = LINUX, *, splice: SpliceMode = "adaptive"
) -> Engine:
    """The engine that fits a loop: one that was made around a ring, or any other. `splice`: when
    TCP flows splice; with "always", they are never moved by the ring."""
    if isinstance(loop, RingLoop):
        ring_reactor = RingReactor(loop, kernel)
        movers = EpollMovers if splice == "always" else RingMovers
        return Engine(
            name="io_uring",
            reactor=ring_reactor,
            movers=movers(ring_reactor, splice),
            new_intake=_ring_intakes(ring_reactor),
        )
    reactor = Reactor(loop, kernel)
    return Engine(
        name="epoll",
        reactor=reactor,
        movers=EpollMovers(reactor, splice),
        new_intake=_epoll_intakes(),
    )


def _ring_intakes(reactor: RingReactor) -> NewIntake:
    try:
        datagrams = DatagramReceiver(reactor.ring, reactor.kernel.datagram_buffers)
    except OSError as error:
        # No memory, for example. Streams still go by the ring.
        logger.warning(
            "cannot use io_uring for datagrams (%s); using epoll for them", error.strerror
        )
        return _epoll_intakes()
    return partial(RingIntake, datagrams, SegmentedSends(datagrams))


def _epoll_intakes() -> NewIntake:
    return partial(EpollIntake, memoryview(bytearray(BUFFER)))
