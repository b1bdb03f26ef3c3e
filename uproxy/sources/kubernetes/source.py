"""Objects from the Kubernetes API: the Services, EndpointSlices and Node that concern this node."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

from uproxy.apiserver.client import ApiServer
from uproxy.apiserver.unreachable import ApiUnreachable
from uproxy.sources.kubernetes.mirror import resources
from uproxy.sources.kubernetes.reachability import ApiReachability, WatchListSupport
from uproxy.sources.kubernetes.retry_schedule import RetryTimer
from uproxy.sources.kubernetes.timing import Timing
from uproxy.sources.kubernetes.watcher import Watcher
from uproxy.sources.sink import Sink

log = logging.getLogger(__name__)

_TIMING = Timing()


class KubernetesSource:
    """A source that delivers under the names in `reflector.SOURCES`.

    Whatever the server does, what was delivered stays, and it is asked again.
    """

    def __init__(
        self,
        api: ApiServer,
        *,
        node_name: str,
        service_proxy_name: str = "",
        timing: Timing = _TIMING,
        random: Callable[[], float] = random.random,
    ) -> None:
        self.api = api
        found = resources(node_name, service_proxy_name)
        self.reachability = ApiReachability(api.access.server, len(found))
        watch_list, retry_timer = WatchListSupport(), RetryTimer(random, timing.spacing)
        self._watchers: list[Watcher] = []
        for each in found:
            after = next((it for it in self._watchers if each.after == it.resource.source), None)
            self._watchers.append(
                Watcher(
                    each, api, self.reachability, watch_list, retry_timer, timing, random, after
                )
            )

    @property
    def reachable(self) -> bool:
        """Whether everything is being followed at this moment."""
        return self.reachability.reachable

    @property
    def last_error(self) -> str:
        """The latest trouble, over or not; "" if there was none."""
        return self.reachability.last_error

    async def answers(self) -> bool:
        """Whether the server answers a request at this moment, whatever it says."""
        try:
            async with self.api.request("GET", "/version"):
                return True
        except ApiUnreachable:
            return False

    async def run(self, sink: Sink) -> None:
        """Deliver everything, then every change, until cancelled."""
        access = self.api.access
        log.info("the cluster is %s, by %s", access.server, access.origin)
        async with asyncio.TaskGroup() as tasks:
            for follower in self._watchers:
                tasks.create_task(follower.run(sink), name=f"follow {follower.resource.source}")
