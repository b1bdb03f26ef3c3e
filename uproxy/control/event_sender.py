"""Tells the cluster what goes wrong here, as Events: best effort, and never in anybody's way."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, NamedTuple

from uproxy.apiserver.unreachable import ApiUnreachable
from uproxy.core.backoff import Backoff
from uproxy.core.report.event_log import EventLog, EventRequest
from uproxy.core.report.problems import Event, Problems, Reference, new_events

log = logging.getLogger(__name__)

Send = Callable[[EventRequest], Awaitable[int]]
"""Sends a request and returns the status of the answer. Raises ApiUnreachable."""

_PERIOD: Final = 1.0
"""Seconds between two looks at what is wrong: a problem that is over sooner need not be told."""
_RETRY: Final = Backoff(initial=1.0, maximum=60.0, jitter=0.5)
_ATTEMPTS: Final = 12
"""As in client-go; then the Event is dropped."""
_WAITING: Final = 256
"""Events that wait to be sent; more, and the oldest are dropped."""
_OVERLOADED: Final = 429


class Pace(NamedTuple):
    """Times; others than the default are for tests."""

    period: float = _PERIOD
    retry: Backoff = _RETRY


_PACE: Final = Pace()


class EventSender:
    """Looks at what is wrong whenever something may have changed, and sends what is new.

    `problems` says what is wrong now, None as long as it is too early to say; `uid` gives the uid
    of an object, None for one that does not exist.
    """

    def __init__(
        self,
        send: Send,
        *,
        node: str,
        problems: Callable[[], Problems | None],
        uid: Callable[[Reference], str | None],
        pace: Pace = _PACE,
    ) -> None:
        self._send = send
        self._node = node
        self._problems = problems
        self._uid = uid
        self._pace = pace
        self._log = EventLog(node)
        self._known: Problems = {}
        self._waiting: deque[Event] = deque(maxlen=_WAITING)
        self._wake = asyncio.Event()
        self._forbidden = False

    def changed(self) -> None:
        """Something may have gone wrong, or be well again."""
        self._wake.set()

    def send(self, events: Iterable[Event]) -> None:
        """Send these too."""
        self._waiting.extend(events)
        self._wake.set()

    async def run(self) -> None:
        """Look and send, until cancelled."""
        self._wake.set()  # It may begin again, after it has ended in the middle of something.
        while True:
            await self._wake.wait()
            self._wake.clear()
            self._look()
            while self._waiting:
                await self._deliver(self._waiting.popleft())
            await asyncio.sleep(self._pace.period)

    def _look(self) -> None:
        now = self._problems()
        if now is not None:
            before, self._known = self._known, now
            self._waiting.extend(new_events(before, now, exists=self._exists, node=self._node))

    def _exists(self, regarding: Reference) -> bool:
        return self._uid(regarding) is not None

    async def _deliver(self, event: Event) -> None:
        request = self._request(event)
        if request is not None and await self._answered(request) == 404:
            # The API server keeps Events for an hour only; or their namespace is gone.
            self._log.forget(event)
            if request.method == "PATCH" and (request := self._request(event)) is not None:
                await self._answered(request)

    def _request(self, event: Event) -> EventRequest | None:
        uid = self._uid(event.regarding) or ""
        return self._log.request(event, uid=uid, now=time.monotonic(), wall=time.time())

    async def _answered(self, request: EventRequest) -> int:
        """Send until there is an answer that counts; returns its status, 0 if there is none."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                status = await self._send(request)
            except ApiUnreachable as error:
                log.debug("an Event could not be sent: %s", error)
            else:
                if status != _OVERLOADED and status < 500:
                    self._note(status, request)
                    return status
            await asyncio.sleep(self._pace.retry.delay(attempt, random.random()))
        self._log.forget(request.event)
        return 0

    def _note(self, status: int, request: EventRequest) -> None:
        if status < 400:
            self._forbidden = False
        elif status in (401, 403):
            level = logging.DEBUG if self._forbidden else logging.WARNING
            self._forbidden = True
            log.log(level, "Events cannot be written: the API server forbids it (%d)", status)
            self._log.forget(request.event)
        elif status != 404:
            log.debug("the API server refused an Event: %d", status)
            self._log.forget(request.event)
