"""Tasks that are to last as long as the program does.

Only an unexpected error ends one of them. That is no reason to end the others: the error is logged,
and the task is restarted.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from uproxy.core.backoff import Backoff
from uproxy.core.errors import unexpected
from uproxy.core.retry import RetrySchedule

log = logging.getLogger(__name__)

_RETRY: Final = Backoff(initial=1.0, maximum=30.0, jitter=0.2)
_WELL: Final = 5.0
"""Seconds after which nothing is said of its last failure any more."""
_STABLE: Final = 60.0
"""Seconds after which a task may fail again without being to blame for the time before."""


class TaskSupervisor:
    """Runs such tasks, and knows what is wrong with them."""

    def __init__(self, retry: Backoff = _RETRY) -> None:
        self._retry = retry
        self._troubles: dict[str, str] = {}

    @property
    def reasons(self) -> Sequence[str]:
        """Of tasks that have ended, until they have run for a while again."""
        return tuple(f"{name} has failed ({why})" for name, why in self._troubles.items())

    async def run(
        self,
        name: str,
        task: Callable[[], Awaitable[None]],
        *,
        refusal: type[Exception] | tuple[type[Exception], ...] = (),
    ) -> None:
        """Run a task again and again, until cancelled.

        `refusal`: with that it may say, when it has just begun for the first time, that it cannot.
        """
        again = RetrySchedule(self._retry)
        loop = asyncio.get_running_loop()
        first = True
        while True:
            began = time.monotonic()
            well = loop.call_later(_WELL, self._troubles.pop, name, None)
            try:
                await task()
                why = "it has ended"
            except Exception as error:
                if first and _is_refusal(error, refusal):
                    raise
                why = unexpected(error)
                log.exception("%s has failed and is restarted", name)
            finally:
                well.cancel()
            if time.monotonic() - began >= _STABLE:
                again.succeeded()
            first = False
            self._troubles[name] = why
            await asyncio.sleep(again.failed(time.monotonic(), random.random()))


def _is_refusal(error: Exception, refusal: type[Exception] | tuple[type[Exception], ...]) -> bool:
    """Whether an exception, or one of a group, is of that kind."""
    if isinstance(error, ExceptionGroup):
        return any(_is_refusal(each, refusal) for each in error.exceptions)
    return isinstance(error, refusal)
