"""Connected sockets, whose events a reactor reports to a test."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from uproxy.dataplane.engine import choose_engine
from uproxy.dataplane.kernel import LINUX, Kernel
from uproxy.dataplane.reactor import (
    Reactor,
)

EVENTS = select.EPOLLIN | select.EPOLLET


@asynccontextmanager
async def reactor(kernel: Kernel = LINUX) -> AsyncIterator[Reactor]:
    made = choose_engine(asyncio.get_running_loop(), kernel).reactor
    try:
        yield made
    finally:
        made.close()
        made.close()


class Link:
    """Two connected sockets; what is sent to the one is an event of the other."""

    def __init__(self) -> None:
        self.near, self.far = socket.socketpair()
        self.near.setblocking(False)
        self.events: list[int] = []
        self.aborted = False
        self.on_event: Callable[[], None] = lambda: None

    def ready(self, mask: int) -> None:
        self.events.append(mask)
        self.on_event()

    def abort(self) -> None:
        self.aborted = True

    def __repr__(self) -> str:
        return "<Link of the test>"

    def close(self) -> None:
        self.near.close()
        self.far.close()


@contextmanager
def linked() -> Iterator[list[Link]]:
    made = [Link() for _ in range(4)]
    yield made
    for link in made:
        link.close()
