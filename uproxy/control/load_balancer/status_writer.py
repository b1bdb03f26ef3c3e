"""Writes what was decided about Services into their statuses, as far as the API server lets it.

A Service that cannot be written is tried again by itself, and holds up no other.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from uproxy.apiserver.request import Request
from uproxy.apiserver.unreachable import ApiUnreachable
from uproxy.control.load_balancer.ask import MERGE_PATCH, Ask
from uproxy.control.time_slices import TimeSlices
from uproxy.core.allocation.decisions import Decision, ServiceEvent
from uproxy.core.allocation.status_patch import status_patch, without_times
from uproxy.core.backoff import Backoff
from uproxy.core.cluster.load_balancer import status_addresses
from uproxy.core.cluster.objects import ObjectName, Service
from uproxy.core.errors import unexpected
from uproxy.core.retry import RetrySchedule
from uproxy.core.timestamps import time_text
from uproxy.sources.kubernetes.watch_format import read_failure

log = logging.getLogger(__name__)

_AT_ONCE: Final = 8
"""Requests that are under way at a time. One takes 2 to 5 ms, so 10,000 Services take seconds."""
_RETRY: Final = Backoff(initial=0.2, maximum=300.0, jitter=0.5)
"""The delays between attempts to write one Service."""
_OUTAGE: Final = Backoff(initial=0.2, maximum=10.0, jitter=0.5)
"""The delays between attempts to write anything while no API server answers."""
_OUTAGES: Final = (429, 502, 503, 504)
"""Answers that have nothing to do with the Service."""
_LOST: Final = 1.0
"""Seconds until another attempt where this process may not write. Either it may again by then, or
it has been told to write nothing any more."""
_FORGOTTEN: Final = 60.0
"""Seconds after which something that was accepted is written again without waiting."""
_FORBIDDEN: Final = "grant patch on services/status, and see that no admission webhook refuses it"
_NOT_KEPT: Final = "the cluster does not keep what is written into the status"
_MOST_EVENTS: Final = 8

SendEvents = Callable[[ObjectName, tuple[ServiceEvent, ...]], None]


class Pace(NamedTuple):
    """Times; others than the default are for tests."""

    retry: Backoff = _RETRY
    outage: Backoff = _OUTAGE


_PACE: Final = Pace()


class _Status:
    """What is to be written about one Service, and what has become of it so far."""

    def __init__(self, decision: Decision, retry: Backoff) -> None:
        self.decision = decision
        self.events: deque[ServiceEvent] = deque(maxlen=_MOST_EVENTS)
        """Those that are sent once it is written."""
        self.retry = RetrySchedule(retry)
        self.reason = ""
        """Why it is not written."""
        self.tried = ""
        """The version of the Service at the latest attempt. Until a newer one is known, another
        attempt would do the same."""
        self.accepted: Mapping[str, Any] | None = None
        """What the server has accepted last."""
        self.accepted_at = 0.0
        self.timer: asyncio.TimerHandle | None = None
        self.busy = False
        """Whether a request is under way."""
        self.again = False
        """Whether there is more to do when it is over."""


class StatusWriter:
    """Writes several Services at a time."""

    name = "writer of Service statuses"

    def __init__(
        self,
        ask: Ask,
        *,
        service: Callable[[ObjectName], Service | None],
        may_write: Callable[[], bool],
        ip_mode: Callable[[], str],
        send_events: SendEvents,
        pace: Pace = _PACE,
    ) -> None:
        """`service` returns a Service as it is in the cluster, as far as that is known. `may_write`
        is asked before each request."""
        self._ask = ask
        self._service = service
        self._may_write = may_write
        self._ip_mode = ip_mode
        self._send_events = send_events
        self._pace = pace
        self._statuses: dict[ObjectName, _Status] = {}
        self._queue: asyncio.Queue[ObjectName] = asyncio.Queue()
        self._queued: set[ObjectName] = set()
        self._outage = RetrySchedule(pace.outage)
        self._logged: set[int] = set()
        """Refusals that were logged: one line for each kind is enough, as it concerns all."""

    @property
    def reasons(self) -> Mapping[ObjectName, str]:
        """Why the statuses of some Services are not written."""
        return {name: each.reason for name, each in self._statuses.items() if each.reason}

    def put(self, decision: Decision) -> None:
        """Write what was decided about a Service. What was decided earlier is given up."""
        name, service = decision.service, self._service(decision.service)
        status = self._statuses.get(name)
        if status is None:
            status = self._statuses[name] = _Status(decision, self._pace.retry)
        known = service is not None and service.metadata.resource_version == status.tried
        if decision != status.decision or decision.events or not known:
            status.decision = decision
            status.events.extend(decision.events)
            self._enqueue(name)

    def remove(self, name: ObjectName) -> None:
        """A Service has been deleted, or is not to be written any more."""
        status = self._statuses.pop(name, None)
        if status is not None and status.timer is not None:
            status.timer.cancel()

    def clear(self) -> None:
        """Write nothing any more: that is the task of another process now."""
        for name in list(self._statuses):
            self.remove(name)

    def look_again(self) -> None:
        """Something that is written besides the decisions has changed."""
        for name in self._statuses:
            self._enqueue(name)

    async def run(self) -> None:
        """Until cancelled."""
        for name, status in self._statuses.items():  # An unexpected error may have ended it.
            status.busy = status.again = False
            self._enqueue(name)
        async with asyncio.TaskGroup() as tasks:
            for number in range(_AT_ONCE):
                tasks.create_task(self._write_all(), name=f"status writer {number}")

    async def _write_all(self) -> None:
        slices = TimeSlices()
        while True:
            # After a change of the leader most statuses are as they should be, so that nothing
            # is waited for.
            await slices.pause_if_due()
            name = await self._queue.get()
            self._queued.discard(name)
            await self._wait_for_server()
            status = self._statuses.get(name)
            if status is not None and status.busy:
                status.again = True
            elif status is not None:
                await self._attempt(name, status)

    async def _attempt(self, name: ObjectName, status: _Status) -> None:
        status.busy, status.again = True, False
        try:
            await self._write(name, status)
        except Exception as error:
            log.exception("cannot write the status of the Service %s; retrying", name)
            self._failed(name, status, unexpected(error))
        finally:
            status.busy = False
        if status.again:
            self._enqueue(name)

    async def _wait_for_server(self) -> None:
        if self._outage.at is not None:
            await asyncio.sleep(max(0.0, self._outage.at - time.monotonic()))

    def _enqueue(self, name: ObjectName) -> None:
        status = self._statuses.get(name)
        if status is not None and status.timer is not None:
            status.timer.cancel()
            status.timer = None
        if name not in self._queued:
            self._queued.add(name)
            self._queue.put_nowait(name)

    def _later(self, name: ObjectName, status: _Status, delay: float) -> None:
        if status.timer is not None:
            status.timer.cancel()
        loop = asyncio.get_running_loop()
        status.timer = loop.call_later(max(0.0, delay), self._enqueue, name)

    async def _write(self, name: ObjectName, status: _Status) -> None:
        service, decision = self._service(name), status.decision
        if service is None:
            return
        patch = status_patch(service, decision, ip_mode=self._ip_mode(), now=time_text(time.time()))
        if patch is None:
            status.reason = ""
            self._send(name, status)
            return
        content, now = without_times(patch), time.monotonic()
        if content == status.accepted and not self._may_repeat(status, now):
            status.reason = _NOT_KEPT
            self._later(name, status, (status.retry.at or now) - now)
            return
        if not self._may_write():
            self._later(name, status, _LOST)
            return
        status.tried = service.metadata.resource_version
        try:
            code, body = await self._ask(_request(name, patch))
        except ApiUnreachable as error:
            self._unreachable(name, status, str(error))
            return
        if code in _OUTAGES:
            self._unreachable(name, status, str(read_failure(body, code)))
            return
        self._outage.succeeded()
        if code < 300:
            _log_change(service, decision)
            self._accepted(name, status, decision, content)
        elif code in (404, 409):
            # It was deleted, or written by others meanwhile, and the watch will say that.
            self._failed(name, status, "")
        else:
            self._refused(name, status, code, str(read_failure(body, code)))

    def _may_repeat(self, status: _Status, now: float) -> bool:
        """Whether to write once more what was accepted, and then was changed or dropped."""
        if now - status.accepted_at > _FORGOTTEN:
            status.retry.succeeded()
            return True
        if status.retry.at is None:
            status.retry.failed(now, random.random())
        return status.retry.due(now)

    def _accepted(
        self, name: ObjectName, status: _Status, decision: Decision, content: Mapping[str, Any]
    ) -> None:
        now = time.monotonic()
        if content == status.accepted:
            status.retry.failed(now, random.random())
        else:
            status.retry.succeeded()
        status.accepted, status.accepted_at, status.reason = content, now, ""
        if status.decision is decision:
            self._send(name, status)

    def _send(self, name: ObjectName, status: _Status) -> None:
        if status.events:
            events = tuple(status.events)
            status.events.clear()
            self._send_events(name, events)

    def _unreachable(self, name: ObjectName, status: _Status, reason: str) -> None:
        """No server answers, whatever is asked: all wait."""
        status.reason, status.tried = reason, ""
        if self._outage.at is None or self._outage.due(time.monotonic()):
            self._outage.failed(time.monotonic(), random.random())
        self._enqueue(name)

    def _failed(self, name: ObjectName, status: _Status, reason: str) -> None:
        status.reason = reason
        self._later(name, status, status.retry.failed(time.monotonic(), random.random()))

    def _refused(self, name: ObjectName, status: _Status, code: int, reason: str) -> None:
        reason = f"{reason}; {_FORBIDDEN}" if code in (401, 403) else reason
        level = logging.DEBUG if code in self._logged else logging.WARNING
        self._logged.add(code)
        log.log(level, "cannot write the status of the Service %s: %s", name, reason)
        self._failed(name, status, reason)


def _log_change(service: Service, decision: Decision) -> None:
    """Say which addresses a Service has got or lost. Events say why, but are kept for an hour."""
    before, after = set(status_addresses(service)), set(decision.addresses)
    for verb, found in (("loses", before - after), ("gets", after - before)):
        if found:
            log.info("Service %s %s %s", decision.service, verb, ", ".join(sorted(found)))


def _request(name: ObjectName, patch: Mapping[str, Any]) -> Request:
    path = f"/api/v1/namespaces/{name.namespace}/services/{name.name}/status"
    return Request("PATCH", path, body=patch, content_type=MERGE_PATCH)
