"""The epoll that all sockets of a worker share."""

from __future__ import annotations

import os
import select
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.dataplane.links import EVENTS, Link, linked, reactor
from tests.dataplane.peers import eventually
from tests.io_uring import on_ring_loops
from uproxy.dataplane.reactor import (
    BATCH,
    BESIDE_RING,
    RingReactor,
)


@pytest.fixture
def links() -> Iterator[list[Link]]:
    with linked() as made:
        yield made


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
        r.call_later(0.02, lambda: seen.append(r.now))
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
