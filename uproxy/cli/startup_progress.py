"""Says what a start waits for, when it takes longer than it should."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Final, Protocol

log = logging.getLogger(__name__)

PAUSES: Final = (2.0, 8.0, 20.0)
"""Seconds before each line; the last one is repeated."""


class Waiting(Protocol):
    """Something that may take long."""

    @property
    def waiting_for(self) -> Callable[[], Sequence[str]]:
        """What it waits for now; empty when it is over."""


@asynccontextmanager
async def tell_while_waiting(
    what: Waiting, pauses: Sequence[float] = PAUSES
) -> AsyncIterator[None]:
    """Log what it waits for, while the context is open."""
    async with asyncio.TaskGroup() as tasks:
        teller = tasks.create_task(_tell(what, pauses), name="waiting")
        try:
            yield
        finally:
            teller.cancel()


async def _tell(what: Waiting, pauses: Sequence[float]) -> None:
    number = 0
    while True:
        await asyncio.sleep(pauses[min(number, len(pauses) - 1)])
        missing = what.waiting_for()
        if not missing:
            return
        log.info("waiting for %s", " and ".join(missing))
        number += 1


@contextmanager
def tell_while_busy(what: str, pause: float = PAUSES[0]) -> Iterator[None]:
    """Log once what a blocking call in this thread is doing, if it takes longer than `pause`."""
    timer = threading.Timer(pause, log.info, ("waiting for %s", what))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
