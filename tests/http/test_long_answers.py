"""Long answers: what other requests and other tasks have of the event loop meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Sized
from functools import partial

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from tests.http.client import eventually, fetch
from uproxy.config.settings import Address
from uproxy.http.long_answers import LongAnswers, Page
from uproxy.http.server import HttpServer


class _Loop:
    """An event loop's clock, which stands still unless a page works or waits, or a task sleeps."""

    def __init__(self) -> None:
        self.time = self.worked = 0.0
        self.rests: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.rests.append(seconds)
        self.time += seconds

    def answers(self) -> LongAnswers:
        return LongAnswers(busy=lambda: self.worked, now=lambda: self.time, sleep=self.sleep)


def _longer(found: Sized, than: int) -> bool:
    return len(found) > than


async def test_the_event_loop_rests_as_long_as_it_has_worked() -> None:
    """Health probes, which need several iterations of it, would be late."""
    loop = _Loop()

    async def page(_: web.Request) -> web.Response:
        loop.time += 0.5
        loop.worked += 0.5
        return web.Response()

    ask = loop.answers()(page)
    for _ in range(2):
        await ask(make_mocked_request("GET", "/"))
    loop.time += 0.2
    await ask(make_mocked_request("GET", "/"))
    loop.time += 9
    await ask(make_mocked_request("GET", "/"))
    assert loop.rests == pytest.approx([0, 0.5, 0.3, 0])


async def test_a_page_that_waits_makes_no_other_wait_longer() -> None:
    loop = _Loop()

    async def page(_: web.Request) -> web.Response:
        loop.time += 3
        return web.Response()

    ask = loop.answers()(page)
    for _ in range(2):
        await ask(make_mocked_request("GET", "/"))
    assert loop.rests == [0, 0]


async def test_a_page_that_fails_is_worked_for_as_well() -> None:
    loop = _Loop()

    async def page(_: web.Request) -> web.Response:
        loop.worked += 0.5
        raise web.HTTPNotFound

    ask = loop.answers()(page)
    for _ in range(2):
        with pytest.raises(web.HTTPNotFound):
            await ask(make_mocked_request("GET", "/"))
    assert loop.rests == [0, 0.5]


async def test_nothing_is_made_for_clients_that_have_gone() -> None:
    """They had patience for 15 s, and ask again: all others would wait for the answers of these."""
    go_on = asyncio.Event()
    arrived: list[web.Request] = []
    made: list[str] = []

    async def page(request: web.Request) -> web.Response:
        made.append(request.path)
        await go_on.wait()
        return web.Response(text="here")

    queued = LongAnswers()(page)

    async def arrive(request: web.Request) -> web.Response:
        arrived.append(request)
        return await queued(request)

    app = web.Application()
    app.router.add_get("/{name}", arrive)
    async with (
        HttpServer(app, [Address("127.0.0.1", 0)], name="test") as server,
        asyncio.TaskGroup() as tasks,
    ):
        first = tasks.create_task(fetch(server.bound[0], "/first"))
        await eventually(lambda: made == ["/first"])
        for _ in range(5):
            before = len(arrived)
            _, writer = await asyncio.open_connection(*server.bound[0])
            writer.write(b"GET /gone HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            await eventually(partial(_longer, arrived, before))
            writer.close()
            await writer.wait_closed()
        await eventually(lambda: all(each.transport is None for each in arrived[1:]))
        last = tasks.create_task(fetch(server.bound[0], "/last"))
        await eventually(lambda: len(arrived) == 7)
        go_on.set()
    assert [first.result().body, last.result().body] == [b"here", b"here"]
    assert made == ["/first", "/last"]


class _Summary:
    """A document that is made when it is wanted, with a number."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self) -> bytes:
        self.made += 1
        return b'{"number": %d}' % self.made


def _get(**headers: str) -> web.Request:
    return make_mocked_request("GET", "/", headers)


async def test_clients_that_wait_together_share_an_answer() -> None:
    """With 10,000 Services, each takes half a second: of 100 open pages, most got none in time."""
    summary, go_on = _Summary(), asyncio.Event()
    long = LongAnswers()

    async def other(_: web.Request) -> web.Response:
        await go_on.wait()
        return web.Response()

    ask, ask_other = long.shared(summary), long(other)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_asked(ask_other, _get()))
        waiting = [tasks.create_task(_asked(ask, _get())) for _ in range(100)]
        await asyncio.sleep(0)
        go_on.set()
    assert {task.result().body for task in waiting} == {b'{"number": 1}'}
    assert summary.made == 1


async def test_an_answer_is_not_older_than_the_question() -> None:
    """Whoever reads the summary after a change sees that change."""
    summary = _Summary()
    ask = LongAnswers().shared(summary)
    answers = [await ask(_get()) for _ in range(3)]
    assert [each.body for each in answers] == [b'{"number": %d}' % n for n in (1, 2, 3)]


async def test_after_a_client_that_has_gone_the_next_one_is_answered() -> None:
    summary = _Summary()
    gone = make_mocked_request("GET", "/")
    gone._protocol.transport = None
    ask = LongAnswers().shared(summary)
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(_asked(ask, gone))
        second = tasks.create_task(_asked(ask, _get()))
    assert (first.result().status, second.result().body) == (503, b'{"number": 1}')


async def test_an_answer_that_could_not_be_made_is_made_for_the_next_one() -> None:
    def fails_once() -> bytes:
        made = summary()
        if summary.made == 1:
            raise web.HTTPInternalServerError
        return made

    summary = _Summary()
    ask = LongAnswers().shared(fails_once)
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(_error(ask))
        second = tasks.create_task(_asked(ask, _get()))
    assert (first.result(), second.result().body) == (500, b'{"number": 2}')


async def _error(ask: Page) -> int:
    with pytest.raises(web.HTTPException) as raised:
        await ask(_get())
    return raised.value.status


async def _asked(ask: Page, request: web.Request) -> web.Response:
    return await ask(request)
