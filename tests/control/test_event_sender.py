"""Events, from a problem to the API server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.fake_api.kinds import EVENTS
from tests.fake_api.server import FakeApi
from uproxy.apiserver.access import Access
from uproxy.apiserver.client import ApiClient
from uproxy.apiserver.request import Request
from uproxy.control.event_sender import EventSender, Pace
from uproxy.core.backoff import Backoff
from uproxy.core.report.event_log import EventRequest
from uproxy.core.report.problems import Event, Problem, Reference, starting

SERVICE = Reference("Service", "default", "web")
TAKEN = Event(SERVICE, "Warning", "FailedToListen", "Listen", "port 80 is taken")
FAST = Pace(period=0.0, retry=Backoff(initial=0.001, maximum=0.001))


class World:
    """Problems that tests make, and an API server that receives Events."""

    def __init__(self, server: FakeApi) -> None:
        self.server = server
        self.problems: dict[Problem, Event] | None = {}
        self.uids: dict[Reference, str] = {SERVICE: "u-1"}
        self.events = EventSender(
            self._send,
            node="n1",
            problems=lambda: None if self.problems is None else dict(self.problems),
            uid=self.uids.get,
            pace=FAST,
        )
        self.api = ApiClient(Access(origin="test", server=server.url))

    async def _send(self, request: EventRequest) -> int:
        sent = Request(
            request.method, request.path, body=request.body, content_type=request.content_type
        )
        async with self.api.send(sent) as answer:
            await answer.read()
            return answer.status

    def begin(self, *events: Event) -> None:
        assert self.problems is not None
        for event in events:
            self.problems[Problem(event.regarding, event.reason)] = event
        self.events.changed()

    def end(self) -> None:
        assert self.problems is not None
        self.problems.clear()
        self.events.changed()

    def sent(self) -> list[dict[str, Any]]:
        items = self.server.store.items(EVENTS).values()
        return sorted((item.data for item in items), key=lambda data: data["eventTime"])

    def reasons(self) -> list[str]:
        return [each["reason"] for each in self.sent()]

    async def until_counted(self, reason: str, count: int) -> None:
        """Wait until the one Event with that reason has this count; 0: no series."""

        def counts() -> list[int]:
            found = [each for each in self.sent() if each["reason"] == reason]
            return [each.get("series", {}).get("count", 0) for each in found]

        await self.until(lambda: counts() == [count])

    async def until(self, condition: Callable[[], object]) -> None:
        await self.server.until(condition)


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    async with FakeApi() as server, asyncio.TaskGroup() as tasks:
        here = World(server)
        async with here.api:
            task = tasks.create_task(here.events.run())
            yield here
            task.cancel()
            await asyncio.wait([task])


async def test_begin_and_end_of_a_trouble_are_told() -> None:
    async with world() as here:
        here.begin(TAKEN)
        await here.until(lambda: here.reasons() == ["FailedToListen"])
        here.end()
        await here.until(lambda: here.reasons() == ["FailedToListen", "Recovered"])
        first = here.sent()[0]
        assert first["regarding"]["uid"] == "u-1"
        assert first["note"] == "port 80 is taken"


async def test_the_end_of_a_service_that_is_gone_is_not_told() -> None:
    async with world() as here:
        here.begin(TAKEN)
        await here.until(here.sent)
        here.uids.clear()
        here.end()
        here.events.send([starting("n1", "1")])
        await here.until(lambda: "Starting" in here.reasons())
        assert here.reasons() == ["FailedToListen", "Starting"]


async def test_a_trouble_that_comes_back_is_counted() -> None:
    async with world() as here:
        for count in (0, 2, 3):
            here.begin(TAKEN)
            await here.until_counted("FailedToListen", count)
            here.end()
            await here.until_counted("Recovered", count)
        assert here.reasons() == ["FailedToListen", "Recovered"]


async def test_an_event_that_expired_in_the_server_is_created_again() -> None:
    async with world() as here:
        here.begin(TAKEN)
        await here.until(here.sent)
        here.server.delete(EVENTS, here.sent()[0]["metadata"]["name"])
        here.end()
        here.begin()
        await here.until(lambda: here.reasons() == ["Recovered"])
        here.begin(TAKEN)
        await here.until(lambda: "FailedToListen" in here.reasons())


async def test_nothing_is_told_before_it_can_be_known() -> None:
    async with world() as here:
        here.problems = None
        here.events.changed()
        here.events.send([starting("n1", "1")])
        await here.until(lambda: here.reasons() == ["Starting"])


async def test_forbidden_is_logged_once_and_harms_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO):
        async with world() as here:
            here.server.answer(403, on="events", times=2)
            here.begin(TAKEN)
            here.begin(TAKEN._replace(reason="PortConflict"))
            await here.until(lambda: len(here.server.asked("events")) == 2)
            here.end()
            await here.until(lambda: here.reasons() == ["Recovered", "Recovered"])
    assert [record.message for record in caplog.records] == [
        "the API server forbids writing Events (403); grant create and patch on events.k8s.io"
    ]


async def test_credentials_that_are_not_accepted_are_logged_as_such(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """No permission would help against a 401."""
    with caplog.at_level(logging.INFO):
        async with world() as here:
            here.server.answer(401, on="events", times=4)
            here.begin(TAKEN)
            await here.until(lambda: bool(caplog.records))
    assert [record.message for record in caplog.records] == [
        "the API server does not accept the credentials, and so no Events (401)"
    ]


@pytest.mark.parametrize("code", [429, 500, 503])
async def test_an_overloaded_server_is_asked_again(code: int) -> None:
    async with world() as here:
        here.server.answer(code, on="events", times=3)
        here.begin(TAKEN)
        await here.until(here.sent)
        assert len(here.server.asked("events")) == 4


async def test_a_refused_event_is_dropped() -> None:
    async with world() as here:
        here.server.answer(422, on="events")
        here.begin(TAKEN)
        await here.until(lambda: here.server.asked("events"))
        here.events.send([starting("n1", "1")])
        await here.until(lambda: here.reasons() == ["Starting"])


async def test_an_event_is_given_up_in_the_end() -> None:
    async with world() as here:
        here.server.answer(500, on="events", times=12)
        here.events.send([TAKEN, starting("n1", "1")])
        await here.until(lambda: here.reasons() == ["Starting"])
        assert len(here.server.asked("events")) == 13


async def test_a_server_that_is_away_is_waited_for() -> None:
    async with world() as here:
        await here.server.stop()
        here.begin(TAKEN)
        await here.server.__aenter__()
        await here.until(here.sent)
