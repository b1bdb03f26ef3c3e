"""What a slow start says."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

import pytest

from tests.http.client import eventually
from uproxy.cli.startup_progress import tell_while_busy, tell_while_waiting


class Slow:
    def __init__(self) -> None:
        self.missing: list[str] = []

    @property
    def waiting_for(self) -> Callable[[], Sequence[str]]:
        return lambda: tuple(self.missing)


@pytest.fixture(autouse=True)
def info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


async def test_what_is_missing_is_told_as_long_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    slow = Slow()
    slow.missing = ["services to be listed", "2 of 2 workers to start"]
    async with tell_while_waiting(slow, (0.0, 0.001)):
        await eventually(lambda: len(caplog.messages) >= 2)
        line = "waiting for services to be listed and 2 of 2 workers to start"
        assert set(caplog.messages) == {line}
        slow.missing = ["2 of 2 workers to start"]
        await eventually(lambda: caplog.messages[-1] == "waiting for 2 of 2 workers to start")


async def test_a_quick_start_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with tell_while_waiting(Slow(), (0.0,)):
        for _ in range(5):
            await asyncio.sleep(0)
    async with tell_while_waiting(Slow(), (600.0,)):
        pass
    assert caplog.messages == []


async def test_a_start_that_fails_ends_it() -> None:
    slow = Slow()
    with pytest.raises(ExceptionGroup) as caught:
        async with tell_while_waiting(slow, (600.0,)):
            raise ValueError("no")
    assert caught.group_contains(ValueError, match="no")


def test_a_busy_thread_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    deadline = time.monotonic() + 15
    with tell_while_busy("modules to be loaded", 0.0):
        while not caplog.messages and time.monotonic() < deadline:
            time.sleep(0.001)
    assert caplog.messages == ["waiting for modules to be loaded"]


def test_a_quick_thread_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with tell_while_busy("nothing", 600.0):
        pass
    assert caplog.messages == []
