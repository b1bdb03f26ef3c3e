"""Long answers, which are made one at a time: with 10,000 Services, each of them blocks the event
loop for up to half a second.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from uproxy.http.json_answer import JsonAnswer

Page = Callable[[web.Request], Awaitable[web.Response]]

_REST: Final = 1.0
"""The pause after each answer, as a multiple of the time that it took. A probe needs several
iterations of the event loop: with a long answer in each of them and 100 open pages it took 2 s."""


class LongAnswers:
    """Makes one answer at a time, and leaves the event loop to other tasks in between. It makes
    none for clients that have gone: they have given up, and may have asked again."""

    def __init__(
        self,
        *,
        busy: Callable[[], float] = time.thread_time,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`busy`: for how many seconds the event loop has worked so far. A page that waits for
        something else, as for a worker that hangs, does not make others wait."""
        self._semaphore = asyncio.Semaphore(1)
        self._busy = busy
        self._now = now
        self._sleep = sleep
        self._rest_until = 0.0

    def __call__(self, page: Page) -> Page:
        async def queued(request: web.Request) -> web.Response:
            async with self._semaphore:
                return await self._make(request, page)

        return queued

    def shared(self, make: Callable[[], bytes]) -> Page:
        """A page of which one answer goes to all clients that wait when it is made. `make` returns
        its JSON.

        Of 100 pages that ask every two seconds, most would never get an answer of their own."""
        return _Shared(make, self._semaphore, self._make).page

    async def _make(self, request: web.Request, page: Page) -> web.Response:
        await self._sleep(max(0.0, self._rest_until - self._now()))
        if request.transport is None:
            return web.Response(status=503, text="the client has gone\n")
        began = self._busy()
        try:
            return await page(request)
        finally:
            self._rest_until = self._now() + _REST * (self._busy() - began)


class _Shared:
    """One page, and the answer that goes to all clients that wait for it."""

    def __init__(
        self,
        make: Callable[[], bytes],
        semaphore: asyncio.Semaphore,
        queued: Callable[[web.Request, Page], Awaitable[web.Response]],
    ) -> None:
        self._make = make
        self._semaphore = semaphore
        self._queued = queued
        self._asked = 0
        """Requests so far."""
        self._made_for = 0
        """How many of them had come when the last answer was made."""
        self._waiting = 0
        self._answer: JsonAnswer | None = None

    async def page(self, request: web.Request) -> web.Response:
        self._asked += 1
        number = self._asked
        self._waiting += 1
        try:
            async with self._semaphore:
                if number <= self._made_for and self._answer is not None:
                    return self._answer.response(request)
                return await self._queued(request, self._fresh)
        finally:
            self._waiting -= 1
            if not self._waiting:
                # It may take several megabytes of memory.
                self._answer = None

    async def _fresh(self, request: web.Request) -> web.Response:
        self._answer = JsonAnswer(self._make())
        self._made_for = self._asked
        return self._answer.response(request)
