"""What the metrics address answers about a status that a test makes up, served by a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvloop

from uproxy.config.settings import Address
from uproxy.core.report.history import HistoryView
from uproxy.core.report.recent_events import EventView
from uproxy.core.report.status import Status
from uproxy.core.report.telemetry import Telemetry
from uproxy.http.api import FindFlows, api_app
from uproxy.http.server import HttpServer

_PATIENCE = 20.0


@contextmanager
def serving(
    status: Status,
    events: list[EventView],
    port: int = 0,
    *,
    version: str = "1",
    flows: FindFlows | None = None,
) -> Iterator[int]:
    """The port that answers, until the end."""
    more: dict[str, Any] = {} if flows is None else {"flows": flows}
    started: list[int] = []
    ready, ended = threading.Event(), threading.Event()

    async def serve() -> None:
        app = api_app(
            lambda: status,
            Telemetry(),
            history=lambda _: HistoryView(2.0, [], events),
            version=version,
            **more,
        )
        async with HttpServer(app, [Address("127.0.0.1", port)], name="metrics") as server:
            started.extend(each.port for each in server.bound)
            ready.set()
            await asyncio.to_thread(ended.wait)

    def run() -> None:
        # As the program does. When a server closes, asyncio's own event loop leaves a connection
        # open that it is just making (AssertionError in Server._attach).
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        assert ready.wait(_PATIENCE)
        yield started[0]
    finally:
        ended.set()
        thread.join(_PATIENCE)
