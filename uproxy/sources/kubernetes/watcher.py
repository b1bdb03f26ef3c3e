"""Lists one resource of the API and watches it, whatever happens to the server.

It asks for a watch that begins with all objects (WatchList, KEP-3157): the server sends each of
them as an ADDED event, then a bookmark with the annotation `k8s.io/initial-events-end`, then the
changes. A server without WatchList is asked for a list in pages, and then for a watch from its
resourceVersion. A watch that ends is resumed from the latest version that was seen, so nothing is
missed and nothing comes twice. If the server's history does not reach back that far (410 Gone),
everything is listed again, and objects that have not changed have no effect.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, TypeVar

from uproxy.apiserver.request import ApiServer, Request, Response
from uproxy.apiserver.unreachable import ApiUnreachable, ConnectionReplaced
from uproxy.core.cluster.objects import ApiObject
from uproxy.sources.kubernetes.delivery import Delivery, TimeSlice
from uproxy.sources.kubernetes.reachability import (
    ApiReachability,
    OptionalKinds,
    WatchListSupport,
)
from uproxy.sources.kubernetes.resources import Resource
from uproxy.sources.kubernetes.retry_schedule import RetryTimer
from uproxy.sources.kubernetes.suspicion import Suspicion
from uproxy.sources.kubernetes.timing import Timing
from uproxy.sources.kubernetes.verdict import FailureCounts, RequestFailed, Verdict, judge
from uproxy.sources.kubernetes.watch_format import (
    Event,
    MalformedAnswer,
    Page,
    read_failure,
    read_page,
    retry_after,
)
from uproxy.sources.kubernetes.watch_stream import WatchStream
from uproxy.sources.sink import SinkOf

T = TypeVar("T", bound=ApiObject)

log = logging.getLogger(__name__)

_PAGE: Final = 500
"""Objects in a page of a list, as in client-go."""
_MOST_PAGES: Final = 10_000
_MAX_ERROR: Final = 1024 * 1024
"""Bytes of a response that reports an error."""
_EXPECTED_IN_A_ROW: Final = 3
"""Failures that are part of normal operation are a trouble when more of them follow each other."""
_NO_SERVER: Final = (502, 503)
"""A load balancer answers so when there is no API server behind it, and one that starts does."""


class Watcher(Generic[T]):
    """Lists and watches one resource."""

    def __init__(
        self,
        resource: Resource[T],
        api: ApiServer,
        reachability: ApiReachability,
        watch_list: WatchListSupport,
        optional: OptionalKinds,
        retry_timer: RetryTimer,
        timing: Timing,
        random: Callable[[], float],
        after: Watcher[Any] | None,
    ) -> None:
        self.resource = resource
        self.listed = asyncio.Event()
        """Set for good when all objects were delivered once."""
        self._after = after
        """The watcher whose first list should be delivered before that of this one."""
        self._api = api
        self._reachability = reachability
        self._watch_list = watch_list
        self._optional = optional
        self._retry_timer = retry_timer
        self._timing = timing
        self._random = random
        self._delivery = Delivery(resource)
        self._relist = True
        self._just_listed = False
        """Whether no watch has begun since the latest list in pages."""
        self._suspicion = Suspicion()
        self._answered = False
        """Whether the server has begun to send what it was asked for last."""
        self._live_since: float | None = None
        """Since when the present watch brings changes."""
        self._missing = False
        """Whether the cluster does not have the kind, as far as the last answer says."""
        self._failures = FailureCounts()
        self._logged_error = ""
        """The unexpected error that was logged last."""

    @property
    def live(self) -> bool:
        """Whether a watch brings every change at present, as far as is known."""
        return self._live_since is not None

    async def run(self, sink: SinkOf[T]) -> None:
        """List and watch for ever."""
        while True:
            self._answered, self._live_since = False, None
            failed = await self._step(sink)
            self._forgive()
            self._live_since = None
            if failed is None:
                continue
            if failed.verdict.missing:
                await self._await_installation(sink)
            else:
                await self._recover(failed)

    async def _step(self, sink: SinkOf[T]) -> RequestFailed | None:
        """One step: a list, or a watch until the server ends it as agreed."""
        try:
            if self._relist and not self._watch_list.usable:
                await self._list(sink)
            else:
                await self._watch(sink, initial=self._relist)
        except RequestFailed as failed:
            return failed
        except MalformedAnswer as error:
            return RequestFailed(str(error), Verdict(relist=True))
        except ConnectionReplaced as error:
            return RequestFailed(str(error), Verdict(expected=True))
        except ApiUnreachable as error:
            return RequestFailed(str(error), Verdict(), unreachable=not error.refused)
        except Exception as error:
            # Whatever the error is, it must not stop the other resources. The objects are listed
            # again because it is not known which of them were taken in.
            reason = f"unexpected {type(error).__name__}"
            logged, self._logged_error = self._logged_error, reason
            level = logging.DEBUG if logged == reason else logging.ERROR
            log.log(level, "%s: unexpected error", self.resource.source, exc_info=error)
            self._answered = True
            return RequestFailed(reason, Verdict(relist=True))
        return None

    def _forgive(self) -> None:
        live = time.monotonic() - self._live_since if self._live_since is not None else 0.0
        self._failures.forgive(self._retry_timer.outages, lasted=live > self._timing.healthy_after)

    async def _recover(self, failed: RequestFailed) -> None:
        """Report the failure unless it is expected, and wait before the next attempt."""
        source, verdict = self.resource.source, failed.verdict
        self._relist = self._relist or verdict.relist
        if verdict.silent and self._suspicion.stayed_silent():
            self._relist = True
        if verdict.no_watch_list:
            self._watch_list.refused(str(failed))
        if verdict.expected:
            self._retry_timer.succeeded(source)
        attempts = self._failures.count(verdict) if self._answered or verdict.expected else 0
        if verdict.expected and attempts <= _EXPECTED_IN_A_ROW:
            log.debug("%s: %s", source, failed)
        else:
            self._reachability.failed(source, str(failed))
        if verdict.expected and attempts <= 1:
            return
        wait = verdict.retry_after or 0.0
        if attempts:
            delay = self._timing.backoff.delay(attempts, self._random())
            await asyncio.sleep(max(delay, wait * (1 + 0.25 * self._random())))
        else:
            alone = self._reachability.watching_any
            self._retry_timer.failed(source, refused=not failed.unreachable, alone=alone, wait=wait)
            await self._retry_timer.wait(source)

    async def _await_installation(self, sink: SinkOf[T]) -> None:
        """The cluster does not have this kind. That is no trouble; it is asked for now and then."""
        source, self._relist = self.resource.source, True
        self._retry_timer.succeeded(source)
        if self._delivery.empty or self._missing:
            log.debug("%s: not installed in the cluster", source)
            self._delivery.none_exists(sink)
            self.listed.set()
            self._reachability.watching(source)
            wait = self._timing.missing
        else:
            # A server that starts may not know yet what is installed.
            log.info("%s: no longer installed in the cluster", source)
            wait = self._timing.missing_again
        self._missing = True
        await self._optional.wait(wait * (1 - 0.25 * self._random()))

    async def _list(self, sink: SinkOf[T]) -> None:
        """List in pages. The pages are of one moment: the token of a page names its version."""
        limit, token, time_slice = _PAGE, "", TimeSlice()
        self._delivery.begin_list()
        for _ in range(_MOST_PAGES):
            query: dict[str, str | int] = {**self.resource.query, "limit": limit}
            if token:
                query["continue"] = token
            try:
                page = await self._page(query)
            except RequestFailed as failed:
                if not (failed.verdict.gone and token and limit == _PAGE):
                    raise
                # etcd has discarded that version (it does every 5 minutes) before all pages were
                # read. A second attempt with larger pages takes less time.
                limit, token = limit * 10, ""
                self._delivery.begin_list()
                continue
            for raw in page.items:
                self._delivery.add_listed(raw)
                await time_slice.yield_if_used_up()
            if not page.next:
                self._just_listed = True
                return await self._complete(sink, page.version)
            token = page.next
        raise MalformedAnswer(f"a list has more than {_MOST_PAGES:,} pages")

    async def _page(self, query: Mapping[str, str | int]) -> Page:
        request = Request("GET", self.resource.path, query=query)
        try:
            async with (
                asyncio.timeout(self._timing.initial_list),
                self._api.send(request) as response,
            ):
                await self._check(response)
                return read_page(await response.read())
        except TimeoutError:
            raise ApiUnreachable("no answer in time") from None

    async def _watch(self, sink: SinkOf[T], *, initial: bool) -> None:
        seconds = self._timing.watch_lifetime * (1 + self._random())
        query: dict[str, str | int] = {
            **self.resource.query,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": max(1, round(seconds)),
        }
        if initial:
            # Without a resourceVersion, NotOlderThan asks for the most recent state there is.
            query |= {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
            self._delivery.begin_list()
        else:
            query["resourceVersion"] = self._delivery.version
        self._delivery.initial = initial
        longest = seconds + self._timing.overtime
        request = Request(
            "GET",
            self.resource.path,
            query=query,
            answer_timeout=self._timing.response_start,
            read_timeout=longest,
        )
        async with self._api.send(request) as response:
            await self._check(response, initial=initial)
            response.keep_alive()
            resumed, self._just_listed = not (initial or self._just_listed), False
            stream = WatchStream(response, self._timing, longest, initial=initial, resumed=resumed)
            await self._read(stream, sink)

    async def _check(self, response: Response, *, initial: bool = False) -> None:
        if response.status == 404 and self.resource.optional:
            raise RequestFailed("not installed", Verdict(relist=True, missing=True))
        if response.status != 200:
            wait = retry_after(response.headers, time.time())
            failure = read_failure(await self._error_body(response), response.status)
            verdict = judge(failure, retry_after=wait, initial=initial)
            raise RequestFailed(str(failure), verdict, unreachable=response.status in _NO_SERVER)
        self._answered = True
        self._retry_timer.succeeded(self.resource.source)

    async def _error_body(self, response: Response) -> bytes:
        """The body of a response that reports an error; empty if it cannot be read, since the
        status alone says enough."""
        try:
            async with asyncio.timeout(self._timing.error_body):
                return await response.read(_MAX_ERROR)
        except (ApiUnreachable, TimeoutError):
            return b""

    async def _read(self, stream: WatchStream, sink: SinkOf[T]) -> None:
        """Take the events of a watch until its end."""
        time_slice = TimeSlice()
        if not self._delivery.initial:
            self._live()
        async for event in stream.events():
            if event.type == "BOOKMARK":
                await self._take_bookmark(event, stream, sink)
            else:
                self._delivery.take(event, sink)
            await time_slice.yield_if_used_up()

    async def _take_bookmark(self, event: Event, stream: WatchStream, sink: SinkOf[T]) -> None:
        end = self._delivery.take_bookmark(event)
        if end is not None:
            await self._complete(sink, end.resource_version)
            stream.list_complete()
            self._live()
        elif not self._delivery.initial:
            self._suspicion.bookmark_came()

    async def _complete(self, sink: SinkOf[T], version: str) -> None:
        """Deliver a complete list."""
        if self._after is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._timing.slices_first):
                    await self._after.listed.wait()
        await self._delivery.complete(sink, version)
        self._relist = False
        self.listed.set()
        if self._missing:
            self._missing = False
            self._optional.found()

    def _live(self) -> None:
        """From here on the watch brings every change."""
        self._live_since = time.monotonic()
        self._reachability.watching(self.resource.source)
