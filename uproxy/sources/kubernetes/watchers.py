"""Several resources of one API server, listed and watched together."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

from uproxy.apiserver.request import ApiServer
from uproxy.sources.kubernetes.reachability import (
    ApiReachability,
    OptionalKinds,
    WatchListSupport,
)
from uproxy.sources.kubernetes.resources import Resource
from uproxy.sources.kubernetes.retry_schedule import RetryTimer
from uproxy.sources.kubernetes.timing import Timing
from uproxy.sources.kubernetes.watcher import Watcher
from uproxy.sources.sink import SinkOf

_TIMING = Timing()


class Watchers:
    """One watcher for each resource. What is learned about the server with one of them is known to
    all."""

    def __init__(
        self,
        api: ApiServer,
        resources: Sequence[Resource[Any]],
        *,
        what: str = "the cluster",
        timing: Timing = _TIMING,
        random: Callable[[], float] = random.random,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """`what` they watch, for the log. `clock` is by default that of the event loop."""
        self.reachability = ApiReachability(lambda: api.access.server, len(resources), what)
        watch_list, optional = WatchListSupport(), OptionalKinds()
        retry_timer = RetryTimer(random, timing.spacing, clock)
        self._watchers: dict[str, Watcher[Any]] = {}
        self._restarts: dict[str, asyncio.Event] = {}
        for each in resources:
            self._restarts[each.source] = asyncio.Event()
            self._watchers[each.source] = Watcher(
                each,
                api,
                self.reachability,
                watch_list,
                optional,
                retry_timer,
                timing,
                random,
                self._watchers.get(each.after),
            )

    def restart(self, source: str) -> None:
        """Resume a watch with a new request, because there is reason to believe that it brings
        nothing any more. Nothing happens where none is established at the moment."""
        if self._watchers[source].live:
            self._restarts[source].set()

    async def run(self, sink: SinkOf[Any]) -> None:
        """Deliver everything, then every change, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for source in self._watchers:
                tasks.create_task(self._run(source, sink), name=f"watch {source}")

    async def _run(self, source: str, sink: SinkOf[Any]) -> None:
        restart = self._restarts[source]
        while True:
            restart.clear()
            async with asyncio.TaskGroup() as tasks:
                running = tasks.create_task(self._watchers[source].run(sink), name=source)
                await restart.wait()
                running.cancel()
