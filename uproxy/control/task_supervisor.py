"""Restarts tasks that are to run as long as the program does.

Only an unexpected error ends such a task. It does not end the others: it is logged, and the task is
restarted with back-off.
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
"""Seconds that a restarted task has to run until its last failure is no longer reported."""
_STABLE: Final = 60.0
"""Seconds that a task has to run until its back-off begins anew."""


class TaskSupervisor:
    """Runs tasks, restarts them, and reports the ones that have failed."""

    def __init__(self, retry: Backoff = _RETRY) -> None:
        self._retry = retry
        self._troubles: dict[str, str] = {}

    @property
    def reasons(self) -> Sequence[str]:
        """Why tasks have ended, until they have run for a while again."""
        return tuple(
            f"the {name} task failed ({why}); it is being restarted"
            for name, why in self._troubles.items()
        )

    async def run(
        self,
        name: str,
        task: Callable[[], Awaitable[None]],
        *,
        refusal: type[Exception] | tuple[type[Exception], ...] = (),
    ) -> None:
        """Run a task, and run it again whenever it ends, until cancelled.

        `refusal`: exceptions by which the task says, the first time it runs, that it cannot run
        here. Those are raised.
        """
        again = RetrySchedule(self._retry)
        loop = asyncio.get_running_loop()
        first = True
        while True:
            began = time.monotonic()
            well = loop.call_later(_WELL, self._troubles.pop, name, None)
            try:
                await task()
                why = "it ended"
            except Exception as error:
                if first and _is_refusal(error, refusal):
                    raise
                why = unexpected(error)
                log.exception("the %s task failed; restarting it", name)
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
