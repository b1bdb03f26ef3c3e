"""Logs what a slow start is waiting for."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Final

log = logging.getLogger(__name__)

PAUSES: Final = (2.0, 8.0, 20.0)
"""Seconds before each line of the log; the last pause is repeated."""


WaitingFor = Callable[[], Sequence[str]]
"""What the start is waiting for now; nothing once it has finished."""


@asynccontextmanager
async def log_while_waiting(
    waiting_for: WaitingFor, pauses: Sequence[float] = PAUSES
) -> AsyncIterator[None]:
    """While the context is open, log from time to time what the start is waiting for."""
    async with asyncio.TaskGroup() as tasks:
        logger = tasks.create_task(_log(waiting_for, pauses), name="startup-progress")
        try:
            yield
        finally:
            logger.cancel()


async def _log(waiting_for: WaitingFor, pauses: Sequence[float]) -> None:
    number = 0
    while True:
        await asyncio.sleep(pauses[min(number, len(pauses) - 1)])
        missing = waiting_for()
        if not missing:
            return
        log.info("waiting for %s", " and ".join(missing))
        number += 1


@contextmanager
def log_while_busy(what: str, pause: float = PAUSES[0]) -> Iterator[None]:
    """Log once what a blocking call in this thread is doing, if it takes longer than `pause`."""
    timer = threading.Timer(pause, log.info, ("waiting for %s", what))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
