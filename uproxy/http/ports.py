"""Service ports with their backends, added to the answer of /api/v1/routes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from uproxy.core.cluster.objects import ObjectName
from uproxy.core.flows.backend_counts import CONNECT_BUCKETS
from uproxy.core.flows.counters import Counters
from uproxy.core.report.backends import Moment, PortStatus
from uproxy.core.report.port_format import PortView, port_view
from uproxy.core.report.status_format import StatusView
from uproxy.core.route import ServicePortName

PortsOf = Callable[[ObjectName, float], Iterable[PortStatus]]
"""The ports of a Service with their backends, at a monotonic time."""

_AT_ONCE: Final = 16
"""Services that are looked at before other tasks of the event loop run, about 5 ms if each has 10
backends."""


async def add_ports(
    view: StatusView, counters: Mapping[ServicePortName, Counters], ports_of: PortsOf
) -> None:
    """Add the ports of the frontends in the view."""
    at = Moment(time.monotonic(), time.time())
    shown = {(each.service, each.service_port, each.protocol) for each in view.frontends}
    services = sorted({ObjectName(*service.split("/", 1)) for service, _, _ in shown})
    found: list[PortView] = []
    for number, service in enumerate(services):
        if number % _AT_ONCE == 0:
            await asyncio.sleep(0)
        found += [
            port_view(each, counters.get(each.name), at)
            for each in ports_of(service, at.monotonic)
            if (str(service), each.name.port, each.name.protocol) in shown
        ]
    view.ports, view.connect_buckets = found, list(CONNECT_BUCKETS)
