"""What all listeners of one worker share, whatever their protocol is.

What all TCP flows share is in tcp/flows.py, and what all UDP flows share is in udp/flows.py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from uproxy.core.flows.capacity import Capacity
from uproxy.dataplane.capacity_queue import CapacityQueue
from uproxy.dataplane.client_address import PodPorts
from uproxy.dataplane.flow_records import FlowRecords
from uproxy.dataplane.locality import Locality
from uproxy.dataplane.ports import Ports
from uproxy.dataplane.reactor import Reactor
from uproxy.dataplane.return_paths import ReturnPaths
from uproxy.net.messages import Settings


class Context:
    """Owned by the worker; the only mutable state that flows of different frontends share."""

    def __init__(
        self,
        reactor: Reactor,
        settings: Settings,
        random: Callable[[], float],
        descriptors: int = sys.maxsize,
    ) -> None:
        """`descriptors` is how many this process may have open."""
        self.reactor = reactor
        self.settings = settings
        self.ports = Ports(random, offset=settings.worker / max(1, settings.workers))
        self.capacity = Capacity(settings.max_flows, descriptors)
        """How many flows there are, and may be."""
        self.queue = CapacityQueue(reactor, self.capacity)
        """What waits for that number to fall."""
        self.locality = Locality()
        self.pod_ports = PodPorts(random)
        self.return_paths = ReturnPaths(reactor, self.pod_ports, self.locality)
        self.records = FlowRecords(settings.flow_log_every, reactor.kernel.monotonic)
        """Of flows that have ended."""
        self.read_clock()
        self.read_local_ports()

    @property
    def active(self) -> int:
        """Flows alive in this worker."""
        return self.capacity.tcp + self.capacity.udp

    def read_local_ports(self) -> None:
        """Notice that the sysctl net.ipv4.ip_local_port_range was set."""
        self.locality.lowest_local_port = self.reactor.kernel.lowest_local_port()

    def read_clock(self) -> None:
        """Notice that the clock of this machine was set."""
        kernel = self.reactor.kernel
        self.records.clock_offset = kernel.time() - kernel.monotonic()
