"""Long answers, which are made one at a time: with 10,000 Services, each of them blocks the event
loop for up to half a second.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

Page = Callable[[web.Request], Awaitable[web.Response]]

_REST: Final = 1.0
"""After each of them there is a pause of so many times what it took. A probe needs several
iterations of the event loop; with a long answer in each of them and 100 open pages it took 2 s."""


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
                await self._sleep(max(0.0, self._rest_until - self._now()))
                if request.transport is None:
                    return web.Response(status=503, text="the client has gone\n")
                began = self._busy()
                try:
                    return await page(request)
                finally:
                    self._rest_until = self._now() + _REST * (self._busy() - began)

        return queued
