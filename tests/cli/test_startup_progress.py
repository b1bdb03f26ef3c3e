"""What a slow start logs."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest

from tests.http.client import eventually
from uproxy.cli.startup_progress import log_while_busy, log_while_waiting


@pytest.fixture(autouse=True)
def info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


async def test_it_logs_what_is_missing_while_it_is(caplog: pytest.LogCaptureFixture) -> None:
    missing = ["services to be listed", "2 of 2 workers to start"]
    async with log_while_waiting(lambda: missing, (0.0, 0.001)):
        await eventually(lambda: len(caplog.messages) >= 2)
        line = "waiting for services to be listed and 2 of 2 workers to start"
        assert set(caplog.messages) == {line}
        missing = ["2 of 2 workers to start"]
        await eventually(lambda: caplog.messages[-1] == "waiting for 2 of 2 workers to start")


async def test_a_quick_start_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with log_while_waiting(tuple, (0.0,)):
        for _ in range(5):
            await asyncio.sleep(0)
    async with log_while_waiting(tuple, (600.0,)):
        pass
    assert caplog.messages == []


async def test_a_start_that_fails_ends_the_logging() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with log_while_waiting(tuple, (600.0,)):
            raise ValueError("no")
    assert caught.group_contains(ValueError, match="no")


def test_a_slow_call_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    deadline = time.monotonic() + 15
    with log_while_busy("modules to be loaded", 0.0):
        while not caplog.messages and time.monotonic() < deadline:
            time.sleep(0.001)
    assert caplog.messages == ["waiting for modules to be loaded"]


def test_a_quick_call_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    with log_while_busy("nothing", 600.0):
        pass
    assert caplog.messages == []
