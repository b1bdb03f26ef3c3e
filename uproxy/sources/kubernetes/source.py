"""Objects from the Kubernetes API: Services, EndpointSlices and Nodes."""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Callable

from uproxy.apiserver.request import ApiServer, Request
from uproxy.apiserver.unreachable import ApiUnreachable
from uproxy.sources.kubernetes.resources import resources
from uproxy.sources.kubernetes.timing import Timing
from uproxy.sources.kubernetes.watchers import Watchers
from uproxy.sources.sink import Sink

log = logging.getLogger(__name__)

_TIMING = Timing()


class KubernetesSource:
    """A source that delivers under the names in `resources.SOURCES`.

    Whatever the server does, what was delivered stays, and the server is asked again.
    """

    def __init__(
        self,
        api: ApiServer,
        *,
        node_name: str,
        service_proxy_name: str = "",
        node_labels: bool = False,
        timing: Timing = _TIMING,
        random: Callable[[], float] = random.random,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """`node_labels`: whether the labels of other Nodes matter. `clock` is by default that of
        the event loop."""
        self.api = api
        found = resources(node_name, service_proxy_name, node_labels=node_labels)
        self._watchers = Watchers(api, found, timing=timing, random=random, clock=clock)
        self.reachability = self._watchers.reachability

    @property
    def reachable(self) -> bool:
        """Whether every resource is being watched at this moment."""
        return self.reachability.reachable

    @property
    def last_error(self) -> str:
        """The latest trouble, over or not; "" if there was none."""
        return self.reachability.last_error

    async def answers(self, patience: float = 2.0) -> bool:
        """Whether a server answers a request at this moment, whatever the answer is. The address in
        use gets `patience` seconds. Then another one is asked, if there is one."""
        for request in (
            Request("GET", "/version", answer_timeout=patience),
            Request("GET", "/version"),
        ):
            with contextlib.suppress(ApiUnreachable):
                async with self.api.send(request):
                    return True
        return False

    async def run(self, sink: Sink) -> None:
        """Deliver everything, then every change, until cancelled."""
        found = "; ".join(f"{each.server}, from {each.origin}" for each in self.api.addresses)
        log.info("addresses of the API server: %s", found or "not known yet")
        await self._watchers.run(sink)
