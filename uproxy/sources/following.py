"""One resource of the API, listed once, then watched, whatever happens to the server.

It asks for a watch that begins with all objects (WatchList, KEP-3157), from servers that do not
have that for a list in pages and then a watch. A watch that ends goes on where it was. Where the
server's history does not reach that far back (410) all is listed again, and what has not changed
causes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from uproxy.core.backoff import Backoff
from uproxy.core.status import ObjectStatus
from uproxy.sources.answer import Answer
from uproxy.sources.api import ApiServer
from uproxy.sources.connection import Connection, WatchList
from uproxy.sources.reflector import Mirror, Resource, Verdict, judge
from uproxy.sources.sink import Sink
from uproxy.sources.unreachable import ApiUnreachable
from uproxy.sources.watchstream import (
    INITIAL_EVENTS_END,
    Event,
    Lines,
    MalformedAnswer,
    read_event,
    read_failure,
    read_page,
    retry_after,
)

log = logging.getLogger(__name__)

_SLICE: Final = 0.005
"""Seconds of decoding before the event loop gets its turn."""
_PAGE: Final = 500
"""Objects in a part of a list, as client-go has it."""
_BACKOFF: Final = Backoff(initial=1.6, maximum=30.0, jitter=0.5)
"""0.8 to 1.6 s at first, as client-go has it."""
_MAX_ERROR: Final = 1024 * 1024
"""Bytes of an answer that says why there is no other one."""
_EXPECTED_IN_A_ROW: Final = 3
"""What is part of normal operation is trouble when it comes again and again."""
_NO_WATCH_LIST: Final = Verdict(relist=True, expected=True, no_watch_list=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long things take. Seconds."""

    watch: float = 300.0
    """A watch is asked for anew after between this and twice as long (client-go's rule), so that
    many clients do not come at once."""
    grace: float = 30.0
    """The server gets so much longer to end it before it is taken for dead."""
    quiet: float = 10.0
    """Nothing for so long before the initial events are complete: the server does not know that
    it should say when they are."""
    initial: float = 120.0
    """The initial events together may take so long."""
    healthy: float = 10.0
    """A watch that has lasted so long makes earlier failures forgotten."""
    short: float = 1.0
    """One that the server ends sooner counts as failed: it would be asked for again a thousand
    times a second."""
    order: float = 5.0
    """So long Services wait for EndpointSlices to be listed first: without them they would be
    opened only to refuse."""
    backoff: Backoff = _BACKOFF
    """0.8 to 1.6 s at first, as client-go has it."""


class _Trouble(Exception):
    """A list or a watch has failed."""

    def __init__(self, reason: str, verdict: Verdict) -> None:
        super().__init__(reason)
        self.verdict = verdict


class Follower:
    """Follows one resource."""

    def __init__(
        self,
        resource: Resource,
        api: ApiServer,
        connection: Connection,
        watch_list: WatchList,
        timing: Timing,
        random: Callable[[], float],
        after: Follower | None,
    ) -> None:
        self.resource = resource
        self.listed = asyncio.Event()
        """Set for good when all was delivered once."""
        self._after = after
        self._api = api
        self._connection = connection
        self._watch_list = watch_list
        self._timing = timing
        self._random = random
        self._mirror = Mirror(resource.kind, resource.reduced)
        self._complaints: tuple[ObjectStatus, ...] = ()
        self._relist = True
        self._initial = False
        """Whether initial events are arriving."""
        self._unknown: set[str] = set()

    async def run(self, sink: Sink) -> None:
        """List and watch for ever."""
        attempts = 0
        while True:
            began = time.monotonic()
            trouble = await self._step(sink)
            if time.monotonic() - began > self._timing.healthy:
                attempts = 0
            if trouble is None:
                continue
            attempts += 1
            self._note(trouble, attempts)
            if not (trouble.verdict.expected and attempts == 1):
                await asyncio.sleep(self._delay(trouble.verdict, attempts))

    async def _step(self, sink: Sink) -> _Trouble | None:
        try:
            await self._follow(sink)
        except _Trouble as trouble:
            return trouble
        except MalformedAnswer as error:
            return _Trouble(str(error), Verdict(relist=True))
        except ApiUnreachable as error:
            return _Trouble(str(error), Verdict())
        except Exception as error:
            # Whatever it is, it concerns one object: the rest of the cluster is followed.
            log.exception("%s: unexpected", self.resource.source)
            return _Trouble(f"unexpected: {type(error).__name__}", Verdict(relist=True))
        return None

    def _note(self, trouble: _Trouble, attempts: int) -> None:
        reason, verdict = str(trouble), trouble.verdict
        self._relist = self._relist or verdict.relist
        if verdict.no_watch_list:
            self._watch_list.refused(reason)
        if verdict.expected and attempts <= _EXPECTED_IN_A_ROW:
            log.debug("%s: %s", self.resource.source, reason)
        else:
            self._connection.failed(self.resource.source, reason)

    def _delay(self, verdict: Verdict, attempts: int) -> float:
        delay = self._timing.backoff.delay(attempts, self._random())
        if verdict.retry_after is not None:
            delay = max(delay, verdict.retry_after * (1 + 0.25 * self._random()))
        return delay

    async def _follow(self, sink: Sink) -> None:
        """One step: a list, or a watch until the server ends it as agreed.

        Only time makes failures forgotten: a list may succeed again and again, and each watch
        after it fail.
        """
        if not self._relist:
            await self._watch(sink, initial=False)
        elif self._watch_list.usable:
            await self._watch(sink, initial=True)
        else:
            await self._list(sink)

    async def _list(self, sink: Sink) -> None:
        limit, token, turn = _PAGE, "", _Turn()
        self._mirror.begin()
        while True:
            query: dict[str, str | int] = {**self.resource.query, "limit": limit}
            if token:
                query["continue"] = token
            async with self._api.request("GET", self.resource.path, query=query) as answer:
                if answer.status == 410 and token:
                    # The list has become too old while it was read. Larger parts are faster.
                    limit, token = limit * 10, ""
                    self._mirror.begin()
                    continue
                await self._check(answer)
                page = read_page(await answer.read())
            for raw in page.items:
                self._mirror.list(raw)
                await turn.over()
            if not page.next:
                break
            token = page.next
        await self._deliver(sink, page.version)

    async def _watch(self, sink: Sink, *, initial: bool) -> None:
        seconds = self._timing.watch * (1 + self._random())
        query: dict[str, str | int] = {
            **self.resource.query,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": max(1, round(seconds)),
        }
        if initial:
            query |= {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
            self._mirror.begin()
        else:
            query["resourceVersion"] = self._mirror.version
        self._initial = initial
        limit = seconds + self._timing.grace
        try:
            async with (
                asyncio.timeout(limit),
                self._api.request(
                    "GET", self.resource.path, query=query, read_timeout=limit
                ) as answer,
            ):
                await self._check(answer, initial=initial)
                answer.keep_alive()
                await self._read(answer, sink)
        except TimeoutError:
            raise _Trouble("the server has not ended a watch when it should", Verdict()) from None

    async def _check(self, answer: Answer, *, initial: bool = False) -> None:
        if answer.status != 200:
            wait = retry_after(answer.headers, time.time())
            failure = read_failure(await _some(answer), answer.status)
            verdict = judge(failure, retry_after=wait, initial=initial)
            raise _Trouble(str(failure), verdict)

    async def _read(self, answer: Answer, sink: Sink) -> None:
        """Take the events of a watch until its end."""
        lines, turn, began = Lines(), _Turn(), time.monotonic()
        if not self._initial:
            self._connection.following(self.resource.source)
        while chunk := await self._chunk(answer, began):
            for line in self._lines(lines, chunk):
                await self._take(line, sink)
                await turn.over()
        if self._initial and lines.cut:
            await self._take(lines.rest, sink)  # A list need not end with a line feed.
        if self._initial:
            raise _Trouble("the server ended a watch before all was listed", _NO_WATCH_LIST)
        if lines.cut:
            raise _Trouble("a watch ended in the middle of an event", Verdict())
        if time.monotonic() - began < self._timing.short:
            raise _Trouble("the server ended a watch at once", Verdict(expected=True))

    def _lines(self, lines: Lines, chunk: bytes) -> Sequence[bytes]:
        try:
            return lines.feed(chunk)
        except MalformedAnswer as error:
            if not self._initial:
                raise
            # A list in one line, perhaps, from a server that has more to say than fits in one.
            raise _Trouble(str(error), _NO_WATCH_LIST) from None

    async def _chunk(self, answer: Answer, began: float) -> bytes:
        if not self._initial:
            return await answer.chunk()
        left = began + self._timing.initial - time.monotonic()
        try:
            async with asyncio.timeout(min(self._timing.quiet, left)):
                return await answer.chunk()
        except TimeoutError:
            reason = "a watch has not said that its list is complete"
            raise _Trouble(reason, _NO_WATCH_LIST) from None

    async def _take(self, line: bytes, sink: Sink) -> None:
        event = read_event(line)
        if event is None:
            raise _Trouble("a list was sent instead of a watch", _NO_WATCH_LIST)
        if event.type == "ERROR":
            failure = read_failure(event.obj)
            raise _Trouble(str(failure), judge(failure, initial=self._initial))
        if event.type == "BOOKMARK":
            await self._take_bookmark(event, sink)
        elif event.type not in ("ADDED", "MODIFIED", "DELETED"):
            if event.type not in self._unknown:
                self._unknown.add(event.type)
                log.warning("%s: unknown event type %r", self.resource.source, event.type)
        elif self._initial:
            (self._mirror.unlist if event.type == "DELETED" else self._mirror.list)(event.obj)
        else:
            self._take_change(event, sink)

    async def _take_bookmark(self, event: Event, sink: Sink) -> None:
        metadata = self._mirror.bookmark(event.obj)
        if not self._initial or metadata is None:
            return
        if (metadata.annotations or {}).get(INITIAL_EVENTS_END) == "true":
            self._initial = False
            await self._deliver(sink, metadata.resource_version)
            self._connection.following(self.resource.source)

    def _take_change(self, event: Event, sink: Sink) -> None:
        if event.type == "DELETED":
            gone = self._mirror.delete(event.obj)
            if gone is not None:
                sink.remove(self.resource.source, self.resource.kind, gone.name)
        else:
            obj = self._mirror.change(event.obj)
            if obj is not None:
                sink.apply(self.resource.source, obj)
        self._complain(sink)

    async def _deliver(self, sink: Sink, version: str) -> None:
        """Hand a complete list on: first what is new in it, in small portions, as the list of a
        large cluster would hold up the event loop for 0.2 s."""
        if self._after is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._timing.order):
                    await self._after.listed.wait()
        objects, changed = self._mirror.finish(version)
        turn = _Turn()
        for obj in changed:
            sink.apply(self.resource.source, obj)
            await turn.over()
        sink.replace(self.resource.source, objects)
        self._complain(sink)
        self._relist = False
        self.listed.set()
        if self.resource.wanted not in ("", *(each.metadata.name for each in objects)):
            log.warning("%s", self.resource.none)
        log.debug("%s: %d listed, version %s", self.resource.source, len(objects), version)

    def _complain(self, sink: Sink) -> None:
        complaints = self._mirror.complaints
        if complaints != self._complaints:
            self._complaints = complaints
            sink.complain(self.resource.source, complaints)


class _Turn:
    """Gives the event loop its turn now and then in a long run of short steps."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    async def over(self) -> None:
        if time.monotonic() - self._began > _SLICE:
            await asyncio.sleep(0)
            self._began = time.monotonic()


async def _some(answer: Answer) -> bytes:
    """What an answer says about an error, if it can be had: its status says enough."""
    try:
        return await answer.read(_MAX_ERROR)
    except ApiUnreachable:
        return b""
