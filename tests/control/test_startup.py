"""The order in which the program opens its parts."""

from __future__ import annotations

import asyncio
import errno
import threading
from pathlib import Path

from tests.http.client import eventually, fetch
from tests.ports import free_port
from uproxy.config.settings import Address, Config
from uproxy.control.environment import Environment
from uproxy.control.startup import Start, running
from uproxy.host.claims import ClaimCalls


async def test_probes_are_answered_while_something_takes_its_time(tmp_path: Path) -> None:
    """On a busy machine, a look at 10,000 routes may do so."""
    begun, over = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def slow() -> OSError:
        loop.call_soon_threadsafe(begun.set)
        over.wait()
        return OSError(errno.EPERM, "not here")

    health, metrics = Address("127.0.0.1", free_port()), Address("127.0.0.1", free_port())
    config = Config(
        manifests=(tmp_path,),
        node_name="here",
        healthz_address=health,
        metrics_address=metrics,
    )
    environment = Environment(claims=ClaimCalls(permission_error=slow))
    start = Start()

    async def run() -> None:
        async with running(config, start, environment=environment):
            raise AssertionError("it cannot have started")

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(run())
        async with asyncio.timeout(15):
            await begun.wait()
        assert (await fetch(health, "/livez")).status == 200
        answer = await fetch(health, "/healthz")
        assert (answer.status, answer.json["healthy"]) == (503, False), "clients would be refused"
        answer = await fetch(health, "/readyz")
        assert (answer.status, answer.body) == (503, b"starting: 1\n")
        assert (await fetch(metrics, "/readyz")).body == (
            b"waiting for manifests to be listed and 1 of 1 workers to start\n"
        )
        assert start.waiting_for() == ("claims that an earlier uproxy has left",)
        task.cancel()
        over.set()
    await eventually(task.cancelled)
