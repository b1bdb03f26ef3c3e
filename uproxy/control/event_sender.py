"""Sends Events to the cluster about what goes wrong here: best effort, and nothing waits for it."""

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
"""Seconds between two checks of what is wrong: a problem that is over sooner gets no Event."""
_RETRY: Final = Backoff(initial=1.0, maximum=60.0, jitter=0.5)
_ATTEMPTS: Final = 12
"""As in client-go; then the Event is dropped."""
_QUEUE: Final = 256
"""Events that may wait to be sent; if there are more, the oldest are dropped."""
_OVERLOADED: Final = 429
_REFUSALS: Final = {
    401: "the API server does not accept the credentials, and so no Events (401)",
    403: "the API server forbids writing Events (403); grant create and patch on events.k8s.io",
}


class Pace(NamedTuple):
    """Times; others than the default are for tests."""

    period: float = _PERIOD
    retry: Backoff = _RETRY


_PACE: Final = Pace()


class EventSender:
    """Finds out what is wrong whenever something may have changed, and sends what is new.

    `problems` returns what is wrong now, or None as long as it is too early to say. `uid` returns
    the uid of an object, or None if it does not exist.
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
        self._queue: deque[Event] = deque(maxlen=_QUEUE)
        self._wake = asyncio.Event()
        self._forbidden = False

    def changed(self) -> None:
        """Something may have gone wrong, or may be in order again."""
        self._wake.set()

    def send(self, events: Iterable[Event]) -> None:
        """Send these too."""
        self._queue.extend(events)
        self._wake.set()

    async def run(self) -> None:
        """Send Events, until cancelled."""
        self._wake.set()  # An unexpected error may have ended it before all Events were sent.
        while True:
            await self._wake.wait()
            self._wake.clear()
            self._compare()
            while self._queue:
                await self._deliver(self._queue.popleft())
            await asyncio.sleep(self._pace.period)

    def _compare(self) -> None:
        now = self._problems()
        if now is not None:
            before, self._known = self._known, now
            self._queue.extend(new_events(before, now, exists=self._exists, node=self._node))

    def _exists(self, regarding: Reference) -> bool:
        return self._uid(regarding) is not None

    async def _deliver(self, event: Event) -> None:
        request = self._request(event)
        if request is not None and await self._send_until_answered(request) == 404:
            # The API server keeps Events for an hour only; or their namespace is gone.
            self._log.forget(request)
            if request.method == "PATCH" and (request := self._request(event)) is not None:
                await self._send_until_answered(request)

    def _request(self, event: Event) -> EventRequest | None:
        uid = self._uid(event.regarding) or ""
        return self._log.request(event, uid=uid, now=time.monotonic(), wall=time.time())

    async def _send_until_answered(self, request: EventRequest) -> int:
        """Send a request until the server has answered and is not overloaded; returns the status of
        the answer, or 0 if there was none."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                status = await self._send(request)
            except ApiUnreachable as error:
                log.debug("cannot send an Event: %s", error)
            else:
                if status != _OVERLOADED and status < 500:
                    self._note(status, request)
                    return status
            await asyncio.sleep(self._pace.retry.delay(attempt, random.random()))
        self._log.forget(request)
        return 0

    def _note(self, status: int, request: EventRequest) -> None:
        if status < 400:
            self._forbidden = False
        elif status in _REFUSALS:
            level = logging.DEBUG if self._forbidden else logging.WARNING
            self._forbidden = True
            log.log(level, "%s", _REFUSALS[status])
            self._log.forget(request)
        elif status != 404:
            log.debug("the API server refused an Event (%d)", status)
            self._log.forget(request)
