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
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from uproxy.apiserver.client import ApiServer
from uproxy.apiserver.response import Response
from uproxy.apiserver.unreachable import ApiUnreachable
from uproxy.sources.kubernetes.delivery import Delivery, TimeSlice
from uproxy.sources.kubernetes.mirror import Resource, Verdict, judge
from uproxy.sources.kubernetes.reachability import ApiReachability, WatchListSupport
from uproxy.sources.kubernetes.retry_schedule import FailureCounts, RetryTimer
from uproxy.sources.kubernetes.timing import Timing
from uproxy.sources.kubernetes.watch_format import (
    Lines,
    MalformedAnswer,
    Page,
    read_event,
    read_failure,
    read_page,
    retry_after,
)
from uproxy.sources.sink import Sink

log = logging.getLogger(__name__)

_PAGE: Final = 500
"""Objects in a part of a list, as client-go has it."""
_MOST_PAGES: Final = 10_000
_MAX_ERROR: Final = 1024 * 1024
"""Bytes of an answer that says why there is no other one."""
_ERROR: Final = 10.0
"""Seconds for it."""
_EXPECTED_IN_A_ROW: Final = 3
"""What is part of normal operation is trouble when it comes again and again."""
_AWAY: Final = (502, 503)
"""What stands in front of API servers says so when there is none, and one that starts."""
_NO_WATCH_LIST: Final = Verdict(relist=True, expected=True, no_watch_list=True)


class _Trouble(Exception):
    """A list or a watch has failed."""

    def __init__(self, reason: str, verdict: Verdict, *, away: bool = False) -> None:
        super().__init__(reason)
        self.verdict = verdict
        self.away = away
        """Whether no server is there that could answer."""


class Watcher:
    """Follows one resource."""

    def __init__(
        self,
        resource: Resource,
        api: ApiServer,
        reachability: ApiReachability,
        watch_list: WatchListSupport,
        retry_timer: RetryTimer,
        timing: Timing,
        random: Callable[[], float],
        after: Watcher | None,
    ) -> None:
        self.resource = resource
        self.listed = asyncio.Event()
        """Set for good when all was delivered once."""
        self._after = after
        self._api = api
        self._reachability = reachability
        self._watch_list = watch_list
        self._retry_timer = retry_timer
        self._timing = timing
        self._random = random
        self._delivery = Delivery(resource)
        self._relist = True
        self._answered = False
        """Whether the server has begun what it was asked for last."""
        self._live_since: float | None = None
        """Since when the present watch brings changes."""
        self._failures = FailureCounts()
        self._surprise = ""
        """The unexpected error that was reported last."""

    async def run(self, sink: Sink) -> None:
        """List and watch for ever."""
        while True:
            self._answered, self._live_since = False, None
            trouble = await self._step(sink)
            self._forgive()
            if trouble is not None:
                await self._recover(trouble)

    async def _step(self, sink: Sink) -> _Trouble | None:
        """One step: a list, or a watch until the server ends it as agreed."""
        try:
            if self._relist and not self._watch_list.usable:
                await self._list(sink)
            else:
                await self._watch(sink, initial=self._relist)
        except _Trouble as trouble:
            return trouble
        except MalformedAnswer as error:
            return _Trouble(str(error), Verdict(relist=True))
        except ApiUnreachable as error:
            return _Trouble(str(error), Verdict(), away=not error.refused)
        except Exception as error:
            # Whatever it is, it concerns one object: the rest of the cluster is followed.
            reason = f"unexpected: {type(error).__name__}"
            told, self._surprise = self._surprise, reason
            level = logging.DEBUG if told == reason else logging.ERROR
            log.log(level, "%s: unexpected", self.resource.source, exc_info=error)
            self._answered = True
            return _Trouble(reason, Verdict(relist=True))
        return None

    def _forgive(self) -> None:
        live = time.monotonic() - self._live_since if self._live_since is not None else 0.0
        self._failures.forgive(self._retry_timer.outages, lasted=live > self._timing.healthy)

    async def _recover(self, trouble: _Trouble) -> None:
        """Note what has gone wrong, and wait as long as is right."""
        source, verdict = self.resource.source, trouble.verdict
        self._relist = self._relist or verdict.relist
        if verdict.no_watch_list:
            self._watch_list.refused(str(trouble))
        if verdict.expected:
            self._retry_timer.succeeded(source)
        attempts = self._failures.count(verdict) if self._answered or verdict.expected else 0
        if verdict.expected and attempts <= _EXPECTED_IN_A_ROW:
            log.debug("%s: %s", source, trouble)
        else:
            self._reachability.failed(source, str(trouble))
        if verdict.expected and attempts <= 1:
            return
        wait = verdict.retry_after or 0.0
        if attempts:
            delay = self._timing.backoff.delay(attempts, self._random())
            await asyncio.sleep(max(delay, wait * (1 + 0.25 * self._random())))
        else:
            alone = self._reachability.watching_any
            self._retry_timer.failed(source, there=not trouble.away, alone=alone, wait=wait)
            await self._retry_timer.wait(source)

    async def _list(self, sink: Sink) -> None:
        limit, token, time_slice = _PAGE, "", TimeSlice()
        self._delivery.begin()
        for _ in range(_MOST_PAGES):
            query: dict[str, str | int] = {**self.resource.query, "limit": limit}
            if token:
                query["continue"] = token
            try:
                page = await self._page(query)
            except _Trouble as trouble:
                if not (trouble.verdict.gone and token and limit == _PAGE):
                    raise
                # The list has become too old while it was read. Larger parts are faster.
                limit, token = limit * 10, ""
                self._delivery.begin()
                continue
            for raw in page.items:
                self._delivery.list(raw)
                await time_slice.yield_if_used_up()
            if not page.next:
                return await self._complete(sink, page.version)
            token = page.next
        raise MalformedAnswer(f"a list has more than {_MOST_PAGES:,} parts")

    async def _page(self, query: Mapping[str, str | int]) -> Page:
        try:
            async with (
                asyncio.timeout(self._timing.initial),
                self._api.request("GET", self.resource.path, query=query) as answer,
            ):
                await self._check(answer)
                return read_page(await answer.read())
        except TimeoutError:
            raise ApiUnreachable("no answer in time") from None

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
            self._delivery.begin()
        else:
            query["resourceVersion"] = self._delivery.version
        self._delivery.initial = initial
        most = seconds + self._timing.grace
        async with self._api.request(
            "GET",
            self.resource.path,
            query=query,
            answer_timeout=self._timing.answer,
            read_timeout=most,
        ) as answer:
            await self._check(answer, initial=initial)
            answer.keep_alive()
            await self._read(answer, sink, most)

    async def _check(self, answer: Response, *, initial: bool = False) -> None:
        if answer.status != 200:
            wait = retry_after(answer.headers, time.time())
            failure = read_failure(await _some(answer), answer.status)
            verdict = judge(failure, retry_after=wait, initial=initial)
            raise _Trouble(str(failure), verdict, away=answer.status in _AWAY)
        self._answered = True
        self._retry_timer.succeeded(self.resource.source)

    async def _read(self, answer: Response, sink: Sink, most: float) -> None:
        """Take the events of a watch until its end."""
        loop, lines, time_slice = asyncio.get_running_loop(), Lines(), TimeSlice()
        began = heard = loop.time()
        if not self._delivery.initial:
            self._live()
        while chunk := await self._chunk(answer, self._limit(began, heard, loop.time(), most)):
            for line in self._lines(lines, chunk):
                await self._take(line, sink)
                await time_slice.yield_if_used_up()
                heard = loop.time()
        if self._delivery.initial and lines.cut:
            await self._take(lines.rest, sink)  # A list need not end with a line feed.
        if self._delivery.initial:
            raise _Trouble("the server ended a watch before all was listed", _NO_WATCH_LIST)
        if lines.cut:
            raise _Trouble("a watch ended in the middle of an event", Verdict())
        if loop.time() - began < self._timing.short:
            raise _Trouble("the server ended a watch at once", Verdict(expected=True))

    def _limit(self, began: float, heard: float, now: float, most: float) -> tuple[float, _Trouble]:
        """When to give a watch up unless more of it comes, and why. Only whole events count:
        bytes may go on coming for ever."""
        timing = self._timing
        if self._delivery.initial:
            reason = "a watch has not said that its list is complete"
            return min(now + timing.quiet, began + timing.initial), _Trouble(reason, _NO_WATCH_LIST)
        if began + most < heard + timing.silence:
            reason = "the server has not ended a watch when it should"
            return began + most, _Trouble(reason, Verdict())
        reason = f"nothing has come over a watch for {timing.silence:g} s"
        return heard + timing.silence, _Trouble(reason, Verdict(expected=True))

    async def _chunk(self, answer: Response, limit: tuple[float, _Trouble]) -> bytes:
        at, trouble = limit
        try:
            async with asyncio.timeout_at(at):
                return await answer.chunk()
        except TimeoutError:
            raise trouble from None

    def _lines(self, lines: Lines, chunk: bytes) -> Sequence[bytes]:
        try:
            return lines.feed(chunk)
        except MalformedAnswer as error:
            if not self._delivery.initial:
                raise
            # A list in one line, perhaps, from a server that has more to say than fits in one.
            raise _Trouble(str(error), _NO_WATCH_LIST) from None

    async def _take(self, line: bytes, sink: Sink) -> None:
        event = read_event(line)
        if event is None:
            raise _Trouble("a list was sent instead of a watch", _NO_WATCH_LIST)
        if event.type == "ERROR":
            failure = read_failure(event.obj)
            raise _Trouble(str(failure), judge(failure, initial=self._delivery.initial))
        if event.type != "BOOKMARK":
            self._delivery.take(event, sink)
        elif (end := self._delivery.bookmark(event)) is not None:
            await self._complete(sink, end.resource_version)
            self._live()

    async def _complete(self, sink: Sink, version: str) -> None:
        """Hand a complete list on."""
        if self._after is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._timing.order):
                    await self._after.listed.wait()
        await self._delivery.complete(sink, version)
        self._relist = False
        self.listed.set()

    def _live(self) -> None:
        """From here on a watch brings every change."""
        self._live_since = time.monotonic()
        self._reachability.watching(self.resource.source)


async def _some(answer: Response) -> bytes:
    """What an answer says about an error, if it can be had: its status says enough."""
    try:
        async with asyncio.timeout(_ERROR):
            return await answer.read(_MAX_ERROR)
    except (ApiUnreachable, TimeoutError):
        return b""
