"""The epoll that all sockets of a worker share."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import select
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from tests.dataplane.peers import eventually
from tests.io_uring import on_ring_loops
from uproxy.dataplane import reactor as reactor_module
from uproxy.dataplane.engine import choose_engine
from uproxy.dataplane.kernel import LINUX, Kernel
from uproxy.dataplane.reactor import (
    BATCH,
    BESIDE_RING,
    Abortable,
    Callback,
    Reactor,
    RingReactor,
)

EVENTS = select.EPOLLIN | select.EPOLLET


@asynccontextmanager
async def reactor(kernel: Kernel = LINUX) -> AsyncIterator[Reactor]:
    made = choose_engine(asyncio.get_running_loop(), kernel).reactor
    try:
        yield made
    finally:
        made.close()
        made.close()


class Link:
    """Two connected sockets; what is sent to the one is an event of the other."""

    def __init__(self) -> None:
        self.near, self.far = socket.socketpair()
        self.near.setblocking(False)
        self.events: list[int] = []
        self.aborted = False
        self.on_event: Callable[[], None] = lambda: None

    def ready(self, mask: int) -> None:
        self.events.append(mask)
        self.on_event()

    def abort(self) -> None:
        self.aborted = True

    def __repr__(self) -> str:
        return "<Link of the test>"

    def close(self) -> None:
        self.near.close()
        self.far.close()


@pytest.fixture
def links() -> Iterator[list[Link]]:
    made = [Link() for _ in range(4)]
    yield made
    for link in made:
        link.close()


async def test_calls_back_with_the_mask(links: list[Link]) -> None:
    async with reactor() as r:
        r.register(links[0].near.fileno(), links[0].ready, EVENTS)
        links[0].far.send(b"x")
        await eventually(lambda: links[0].events == [select.EPOLLIN])


async def test_edge_triggered_events_come_once(links: list[Link]) -> None:
    async with reactor() as r:
        r.register(links[0].near.fileno(), links[0].ready, EVENTS)
        r.register(links[1].near.fileno(), links[1].ready, EVENTS)
        links[0].far.send(b"x")
        await eventually(lambda: len(links[0].events) == 1)
        links[1].far.send(b"x")
        await eventually(lambda: len(links[1].events) == 1)
        assert len(links[0].events) == 1


async def test_modified_and_replaced(links: list[Link]) -> None:
    async with reactor() as r:
        fd = links[0].near.fileno()
        r.register(fd, links[0].ready, EVENTS)
        r.modify(fd, select.EPOLLOUT | select.EPOLLET)
        await eventually(lambda: links[0].events == [select.EPOLLOUT])
        r.replace(fd, links[1].ready)
        r.modify(fd, EVENTS)
        links[0].far.send(b"x")
        await eventually(lambda: links[1].events == [select.EPOLLIN])
        assert len(links[0].events) == 1


async def test_unregistered_descriptors_are_silent(links: list[Link]) -> None:
    async with reactor() as r:
        for link in links[:2]:
            r.register(link.near.fileno(), link.ready, EVENTS)
        r.unregister(links[0].near.fileno())
        r.unregister(links[0].near.fileno())
        for link in links[:2]:
            link.far.send(b"x")
        await eventually(lambda: bool(links[1].events))
        assert not links[0].events


async def test_closed_descriptors_are_tolerated(links: list[Link]) -> None:
    async with reactor() as r:
        fd = links[0].near.fileno()
        r.register(fd, links[0].ready, EVENTS)
        links[0].near.close()
        r.modify(fd, EVENTS)
        r.unregister(fd)
        r.register(links[1].near.fileno(), links[1].ready, EVENTS)
        links[1].far.send(b"x")
        await eventually(lambda: bool(links[1].events))
        assert not links[0].events
        assert r.failures == 0


async def test_registration_ends_although_a_copy_stays_open(links: list[Link]) -> None:
    """As with listening sockets, of which the control process has a copy."""
    async with reactor() as r:
        with links[0].near.dup():
            r.register(links[0].near.fileno(), links[0].ready, select.EPOLLIN)
            r.register(links[1].near.fileno(), links[1].ready, EVENTS)
            r.unregister(links[0].near.fileno())
            links[0].near.close()
            links[0].far.send(b"x")
            links[1].far.send(b"x")
            await eventually(lambda: bool(links[1].events))
            assert not links[0].events


async def test_events_of_a_closed_descriptor_miss_its_successor(links: list[Link]) -> None:
    """The first of two callbacks of a batch closes the other's descriptor, and opens another one
    that gets the same number."""
    first, second, successor = links[:3]
    async with reactor() as r:
        number = second.near.fileno()

        def reuse() -> None:
            r.discard(number)
            second.near.close()
            os.dup2(successor.near.fileno(), number)
            r.register(number, successor.ready, EVENTS)

        first.on_event = reuse
        r.register(first.near.fileno(), first.ready, EVENTS)
        r.register(number, second.ready, EVENTS)
        first.far.send(b"x")
        second.far.send(b"x")
        try:
            await eventually(lambda: bool(first.events))
            assert not second.events
            assert not successor.events
            successor.far.send(b"x")
            await eventually(lambda: successor.events == [select.EPOLLIN])
        finally:
            r.unregister(number)
            os.close(number)


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


async def test_a_log_that_fails_stops_nobody(
    links: list[Link], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("nobody reads this log any more")

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


async def test_deferred_calls_wait_for_a_round_of_events(links: list[Link]) -> None:
    order: list[str] = []
    async with reactor() as r:

        def again() -> None:
            order.append("deferred")
            if len(order) < 100 and "event" not in order:
                r.defer(again)

        def begin() -> None:
            r.defer(again)
            links[1].far.send(b"x")

        links[0].on_event = begin
        links[1].on_event = lambda: order.append("event")
        for link in links[:2]:
            r.register(link.near.fileno(), link.ready, EVENTS)
        links[0].far.send(b"x")
        await eventually(lambda: "event" in order and order[-1] == "deferred")
        assert len(order) < 100


async def test_many_deferred_calls_let_others_have_their_turn_in_between(links: list[Link]) -> None:
    """Each may move a megabyte."""
    order: list[str] = []
    async with reactor() as r:
        links[0].on_event = lambda: order.append("event")
        r.register(links[0].near.fileno(), links[0].ready, EVENTS)
        for _ in range(1000):
            r.defer(lambda: order.append("deferred"))
        links[0].far.send(b"x")
        await eventually(lambda: len(order) == 1001)
        assert order.index("event") < 100


async def test_deferred_failures_are_caught(caplog: pytest.LogCaptureFixture) -> None:
    done: list[bool] = []

    def fail() -> None:
        raise ValueError("deferred bug")

    async with reactor() as r:
        r.defer(fail)
        r.defer(lambda: done.append(True))
        await eventually(lambda: bool(done))
        assert r.failures == 1
    assert "deferred bug" in caplog.text


async def test_timers_run_with_the_time_up_to_date() -> None:
    async with reactor() as r:
        began = r.tick()
        seen: list[float] = []
        r.later(0.02, lambda: seen.append(r.now))
        await eventually(lambda: bool(seen))
        assert seen[0] - began >= 0.015


async def test_time_stands_still_within_a_batch(links: list[Link]) -> None:
    seen: list[float] = []
    async with reactor() as r:
        for link in links:
            link.on_event = lambda: seen.append(r.now)
            r.register(link.near.fileno(), link.ready, EVENTS)
            link.far.send(b"x")
        before = r.now
        await eventually(lambda: len(seen) == len(links))
        assert len(set(seen)) == 1
        assert seen[0] > before


async def test_more_events_than_a_batch() -> None:
    links = [Link() for _ in range(BATCH + 50)]
    try:
        async with reactor() as r:
            for link in links:
                r.register(link.near.fileno(), link.ready, EVENTS)
                link.far.send(b"x")
            await eventually(lambda: all(link.events for link in links))
            assert all(len(link.events) == 1 for link in links)
    finally:
        for link in links:
            link.close()


@on_ring_loops
async def test_a_ring_gets_its_turn_between_few_events() -> None:
    """They may take long, as bulk does, and small messages wait meanwhile."""
    links = [Link() for _ in range(BESIDE_RING + 50)]
    turns: Counter[int] = Counter()
    try:
        async with reactor() as r:
            assert isinstance(r, RingReactor)
            ring = r.ring
            for link in links:
                link.on_event = lambda: turns.update([ring.turn])
                r.register(link.near.fileno(), link.ready, EVENTS)
                link.far.send(b"x")
            await eventually(lambda: turns.total() == len(links))
            assert max(turns.values()) <= BESIDE_RING
    finally:
        for link in links:
            link.close()


async def test_closed_by_a_callback(links: list[Link]) -> None:
    async with reactor() as r:
        for link in links[:2]:
            link.on_event = r.close
            r.register(link.near.fileno(), link.ready, EVENTS)
            link.far.send(b"x")
        await eventually(lambda: any(link.events for link in links))
        assert sum(len(link.events) for link in links) == 1
