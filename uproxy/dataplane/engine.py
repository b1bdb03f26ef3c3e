"""What a worker moves bytes by: epoll alone, or an io_uring beside it.

This is the only place that asks which of them it is. Everything else is given its part of the
answer: a reactor, what TCP flows begin with, and what datagrams are received into.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Literal

from uproxy.dataplane.kernel import LINUX, Kernel
from uproxy.dataplane.reactor import Reactor, RingReactor
from uproxy.uring.datagrams import Datagrams
from uproxy.uring.loop import RingLoop

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Engine:
    """The parts of a data path that belong together."""

    name: Literal["epoll", "io_uring"]
    """As `uproxy status` shows it."""
    reactor: Reactor
    datagrams: Datagrams | None
    """What the ring receives datagrams into; None: epoll relays them."""


def choose_engine(loop: asyncio.AbstractEventLoop, kernel: Kernel = LINUX) -> Engine:
    """The engine that fits a loop: one that was made around a ring, or any other."""
    if isinstance(loop, RingLoop):
        reactor = RingReactor(loop, kernel)
        return Engine(name="io_uring", reactor=reactor, datagrams=_datagrams(reactor))
    return Engine(name="epoll", reactor=Reactor(loop, kernel), datagrams=None)


def _datagrams(reactor: RingReactor) -> Datagrams | None:
    try:
        return Datagrams(reactor.ring, reactor.kernel.datagram_buffers)
    except OSError as error:
        logger.warning("io_uring cannot be used for datagrams (%s); epoll is", error.strerror)
        return None
