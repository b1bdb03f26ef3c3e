"""Callbacks and system calls that fail: what a reactor does about it."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import select
from collections.abc import Iterator
from typing import Any, cast

import pytest

from tests.dataplane.links import EVENTS, Link, linked, reactor
from tests.dataplane.peers import eventually
from uproxy.dataplane import reactor as reactor_module
from uproxy.dataplane.kernel import Kernel
from uproxy.dataplane.reactor import (
    Abortable,
    Callback,
)


@pytest.fixture
def links() -> Iterator[list[Link]]:
    with linked() as made:
        yield made


async def test_a_failure_ends_its_owner_only(
    links: list[Link], caplog: pytest.LogCaptureFixture
) -> None:
    bad, good = links[:2]
    assert isinstance(bad, Abortable)

    def fail() -> None:
        raise ValueError("a bug")

    bad.on_event = fail
    async with reactor() as r:
        for link in (bad, good):
            r.register(link.near.fileno(), link.ready, EVENTS)
            link.far.send(b"x")
        with caplog.at_level(logging.ERROR):
            await eventually(lambda: bool(good.events))
        assert bad.aborted
        assert not good.aborted
        assert r.failures == 1
        assert "<Link of the test> failed" in caplog.text
        assert "a bug" in caplog.text


class Moody:
    """An epoll that fails when it is asked for the first time."""

    def __init__(self) -> None:
        self._real = select.epoll()
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def poll(self, timeout: float, most: int) -> list[tuple[int, int]]:
        self.asked += 1
        if self.asked == 1:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        return self._real.poll(timeout, most)


async def test_events_go_on_after_they_could_not_be_asked_for(links: list[Link]) -> None:
    kernel = Kernel(epoll=cast("type[select.epoll]", Moody))
    async with reactor(kernel) as r:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        r.register(links[0].near.fileno(), links[0].ready, EVENTS)
        links[0].far.send(b"x")
        await eventually(lambda: links[0].events == [select.EPOLLIN])


async def test_a_log_that_fails_stops_no_callback(
    links: list[Link], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("this log was closed")

    for name in ("error", "exception"):
        monkeypatch.setattr(logging.getLogger(reactor_module.__name__), name, fail)
    async with reactor() as r:
        for link in links:
            link.on_event = fail
            r.register(link.near.fileno(), link.ready, EVENTS)
            link.far.send(b"x")
        await eventually(lambda: all(link.events for link in links))
        assert all(link.aborted for link in links)
        assert r.failures == len(links)


async def test_a_failing_function_and_a_failing_end(
    links: list[Link], caplog: pytest.LogCaptureFixture
) -> None:
    class Hopeless:
        def ready(self, mask: int) -> None:
            raise ValueError("first")

        def abort(self) -> None:
            raise ValueError("second")

    def plain(mask: int) -> None:
        raise ValueError("third")

    callbacks: list[Callback] = [Hopeless().ready, plain]
    async with reactor() as r:
        for link, callback in zip(links, callbacks, strict=False):
            r.register(link.near.fileno(), callback, EVENTS)
            link.far.send(b"x")
        await eventually(lambda: r.failures == 2)
    assert all(word in caplog.text for word in ("first", "second", "third"))
