"""The fake API server beside tests that do not run on an event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeVar

import uvloop

from tests.fake_api.server import FakeApi

T = TypeVar("T")


class ThreadedApi:
    """A server in a thread of its own. Touch `server` only in `call`, but for its `url`."""

    def __init__(self, server: FakeApi, loop: asyncio.AbstractEventLoop) -> None:
        self.server = server
        self.url = server.url
        self._loop = loop

    def call(self, function: Callable[[FakeApi], T]) -> T:
        """Run a function on the server's thread, and return what it returns."""

        async def run() -> T:
            return function(self.server)

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(20)

    @contextmanager
    def beside(self, server: FakeApi) -> Iterator[ThreadedApi]:
        """Run another server on the same thread until the context ends."""
        asyncio.run_coroutine_threadsafe(server.__aenter__(), self._loop).result(20)
        other = ThreadedApi(server, self._loop)
        try:
            yield other
        finally:
            other.stop()

    def stop(self) -> None:
        """Be unreachable."""
        asyncio.run_coroutine_threadsafe(self.server.stop(), self._loop).result(20)

    def start(self) -> None:
        """Be there again, on the same port, with the same objects."""
        asyncio.run_coroutine_threadsafe(self.server.__aenter__(), self._loop).result(20)


@contextmanager
def in_thread(
    server: FakeApi, inside: Callable[[], AbstractContextManager[None]] = nullcontext
) -> Iterator[ThreadedApi]:
    """Run a server until the context ends. Its thread stays in the context that `inside` makes: in
    a network namespace, for example."""
    # When a server closes, asyncio's own event loop leaves a connection open that it is just making
    # (AssertionError in Server._attach).
    loop = uvloop.new_event_loop()

    def run() -> None:
        with inside():
            loop.run_forever()

    thread = threading.Thread(target=run, name="fake API server")
    thread.start()
    asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result(20)
    try:
        yield ThreadedApi(server, loop)
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(20)
        asyncio.run_coroutine_threadsafe(loop.shutdown_default_executor(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
