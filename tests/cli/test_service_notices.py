"""What systemd is told while the program runs. tests/e2e/test_systemd.py has the real program."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.http.client import eventually
from uproxy.cli.service_notices import ServiceNotices, described
from uproxy.control.daemon import Daemon
from uproxy.core.report.readiness import Reason, ReasonKind
from uproxy.host.systemd import Systemd


class Told(Systemd):
    """Remembers what it is told."""

    def __init__(self) -> None:
        super().__init__("")
        self.lines: list[str] = []

    def tell(self, *states: str) -> None:
        self.lines += states


@dataclass
class Running:
    """A daemon, as far as systemd is told of it."""

    alive: bool = True
    waiting: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    all_served: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def daemon(self) -> Daemon:
        status = SimpleNamespace(
            health=SimpleNamespace(alive=lambda _: self.alive),
            waiting_for=lambda: self.waiting,
            reasons_not_ready=lambda: [Reason(ReasonKind.WORKER, each) for each in self.reasons],
        )
        found: Any = SimpleNamespace(
            status=status,
            served=self.all_served.wait,
            config=SimpleNamespace(drain_timeout=50.0),
            reconciler=SimpleNamespace(table=SimpleNamespace(routes=range(1234))),
            workers=SimpleNamespace(active_flows=5, running={0: 1, 1: 2}),
        )
        return cast("Daemon", found)


@pytest.mark.parametrize(
    ("running", "text"),
    [
        pytest.param(
            Running(), "ready; 1,234 frontends, 5 active flows, 2 workers", id="all is well"
        ),
        pytest.param(
            Running(waiting=["a to be listed", "a worker to start"]),
            "waiting for a to be listed and a worker to start",
            id="at the start",
        ),
        pytest.param(
            Running(reasons=["worker 1 hangs"]),
            "not ready; 1,234 frontends, 5 active flows, 2 workers; worker 1 hangs",
            id="a reason",
        ),
        pytest.param(
            Running(reasons=["a", "b", "c"]),
            "not ready; 1,234 frontends, 5 active flows, 2 workers; a (and 2 more reasons)",
            id="more reasons",
        ),
    ],
)
def test_described(running: Running, text: str) -> None:
    assert described(running.daemon) == text


async def test_the_watchdog_is_fed_while_a_restart_could_not_help() -> None:
    running, told = Running(), Told()
    async with ServiceNotices(running.daemon, told, watchdog=0.003).told():
        await eventually(lambda: told.lines.count("WATCHDOG=1") > 2)
        running.alive = False
        fed = told.lines.count("WATCHDOG=1")
        told.lines.clear()
        await eventually(lambda: len(told.lines) > 5)
        assert "WATCHDOG=1" not in told.lines, f"{fed} times before"
        running.alive = True
        await eventually(lambda: "WATCHDOG=1" in told.lines)


async def test_it_is_ready_when_everything_is_served() -> None:
    running, told = Running(), Told()
    async with ServiceNotices(running.daemon, told, None).told():
        await eventually(lambda: bool(told.lines))
        assert "READY=1" not in told.lines
        running.all_served.set()
        await eventually(lambda: "READY=1" in told.lines)


async def test_a_reload_before_that_does_not_make_it_ready() -> None:
    told, calls = Told(), []
    notices = ServiceNotices(Running().daemon, told, None)
    notices.reload(lambda: calls.append("reload"))
    assert calls == ["reload"]
    assert told.lines == []


async def test_open_flows_get_their_time() -> None:
    told = Told()
    ServiceNotices(Running().daemon, told, None).stopping()
    assert told.lines == [
        "STOPPING=1",
        "EXTEND_TIMEOUT_USEC=60000000",
        "STATUS=draining for up to 50 s",
    ]


async def test_without_systemd_nothing_is_told() -> None:
    running, calls = Running(), []
    notices = ServiceNotices(running.daemon, None, None)
    async with notices.told():
        notices.reload(lambda: calls.append("reload"))
        notices.stopping()
    assert calls == ["reload"]
