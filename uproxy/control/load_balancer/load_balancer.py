"""Addresses for Services of type LoadBalancer: handed out, written to the cluster, announced."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from uproxy.control.load_balancer.part import Part, Task
from uproxy.control.task_supervisor import TaskSupervisor
from uproxy.core.allocation.pools import Pool
from uproxy.core.cluster.state import ClusterState
from uproxy.core.report.load_balancer import LoadBalancerStatus
from uproxy.core.report.status import ObjectStatus
from uproxy.sources.sink import Sink

log = logging.getLogger(__name__)

_RELEASE: Final = 1.0
"""Seconds that the parts may take to leave their addresses to others when the program stops. An API
server that does not answer must not hold up the rest."""


class LoadBalancer:
    """All parts of it. The rest of the program knows nothing but this class."""

    def __init__(
        self,
        parts: Sequence[Part],
        state: ClusterState,
        supervisor: TaskSupervisor,
        *,
        tasks: Sequence[Task] = (),
        status: Callable[[], LoadBalancerStatus] = LoadBalancerStatus,
        errors: Callable[[], Sequence[ObjectStatus]] = tuple,
        held: Callable[[], frozenset[str]] = frozenset,
        sink: Callable[[Sink], Sink] = lambda behind: behind,
        set_pools: Callable[[Sequence[Pool]], None] = lambda _: None,
    ) -> None:
        """`tasks` need not be told anything."""
        self.errors = errors
        """Returns which objects about pools cannot be used, and why."""
        self.held = held
        """Returns the addresses that are on this node's interfaces for load balancers."""
        self.status = status
        """Returns what can be said at this moment."""
        self.sink = sink
        """Returns where manifests are delivered, in the place of a Sink."""
        self.set_pools = set_pools
        """Changes the pools that come from flags or the configuration file."""
        self._parts = parts
        self._tasks = tasks
        self._supervisor = supervisor
        for part in parts:
            state.observe(part.object_changed)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for each in (*self._parts, *self._tasks):
                tasks.create_task(self._supervisor.run(each.name, each.run), name=each.name)

    def changed(self) -> None:
        """A sync is over, or something about this machine has changed."""
        for part in self._parts:
            part.changed()

    async def drain(self) -> None:
        """Leave everything to others: the program is going to stop. It takes a second at most."""
        async with asyncio.TaskGroup() as tasks:
            for part in self._parts:
                tasks.create_task(_release(part), name=part.name)


async def _release(part: Part) -> None:
    try:
        async with asyncio.timeout(_RELEASE):
            await part.release()
    except TimeoutError:
        log.warning("the %s could not leave everything to others in time", part.name)
    except Exception:
        log.exception("the %s cannot leave its work to others", part.name)
