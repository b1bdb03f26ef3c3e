"""What has to be true of a control process, seen from outside."""

from __future__ import annotations

import json
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final

from tests.faults.api import Cluster
from tests.faults.kernel import File, Kernel
from tests.faults.machine import HttpServers
from tests.faults.objects import NODE, POOL
from tests.faults.processes import Processes, Worker
from uproxy.control.daemon import Daemon
from uproxy.core.allocation.ranges import AddressRange
from uproxy.core.cluster.decode import DecodeError, from_json
from uproxy.core.cluster.load_balancer import (
    CONDITION,
    assigned_addresses,
    is_ours,
    recorded_addresses,
    status_addresses,
)
from uproxy.core.cluster.objects import EndpointSlice, Node, Object, Service
from uproxy.core.cluster.state import ClusterState
from uproxy.core.ip import parse_network
from uproxy.core.networks import Networks
from uproxy.core.report.load_balancer import LoadBalancerStatus
from uproxy.core.report.overview import service_statuses
from uproxy.core.route import Frontend, Route
from uproxy.core.routing.build import build
from uproxy.core.routing.options import RoutingOptions
from uproxy.core.routing.table import RoutingTable
from uproxy.sources.kubernetes.resources import NODE as NODES
from uproxy.sources.kubernetes.resources import SERVICES, SLICES, SOURCES

_KINDS: Final[dict[str, tuple[str, type[Object]]]] = {
    "services": (SERVICES, Service),
    "endpointslices": (SLICES, EndpointSlice),
    "nodes": (NODES, Node),
}
Concerned = Callable[[Frontend], bool]
"""Whether something that fails at present concerns a frontend."""


class Broken(AssertionError):
    """Something is not as it must be."""


class Checks:
    """Compares what there is with what the cluster is like."""

    def __init__(
        self, kernel: Kernel, processes: Processes, http: HttpServers, cluster: Cluster
    ) -> None:
        self._kernel = kernel
        self._processes = processes
        self._http = http
        self._cluster = cluster
        self._known: tuple[int, RoutingOptions, RoutingTable] | None = None
        """The table that follows from a version of the cluster."""

    def expected(self, daemon: Daemon) -> RoutingTable:
        """From what the cluster has now, in one go."""
        options = daemon._options()
        if self._known is None or self._known[:2] != (self._cluster.version, options):
            self._known = (self._cluster.version, options, self._built(options))
        return self._known[2]

    def unwell(self, daemon: Daemon) -> Iterator[str]:
        """What is not as it should be when nothing fails."""
        told = list(self._reasons(daemon))
        if told:
            yield from told
            return  # As this is asked often.
        if daemon.load_balancer is not None:
            yield from self._wrong_addresses(daemon.load_balancer.status())
        expected = self.expected(daemon)
        table = daemon.reconciler.table
        if table.routes != expected.routes:
            yield f"routes are {table.routes}, not {expected.routes}"
            return
        if daemon.machine.addresses != self._kernel.addresses:
            yield "the addresses of the machine are not known"
        yield from self._wrong_sockets(daemon, expected)
        wanted = {check.port for check in expected.health_checks.values()}
        if {port for _, port in self._http.open} != wanted:
            yield f"health checks are at {self._http.open.keys()}, not at {wanted}"

    def unserved(self, daemon: Daemon, concerned: Concerned) -> Iterator[str]:
        """Frontends that should be served in spite of what fails, and are not."""
        workers = self._workers(daemon)
        if workers is None:
            yield "not all workers live"
            return
        routes = daemon.reconciler.table.routes
        for frontend, route in self.expected(daemon).routes.items():
            if concerned(frontend):
                continue
            if routes.get(frontend) != route:
                yield f"the route of {frontend} is {routes.get(frontend)}, not {route}"
            else:
                yield from self._wrong(frontend, route, workers)
        for frontend in routes.keys() - self.expected(daemon).routes.keys():
            if not concerned(frontend):
                yield f"{frontend} is still served"

    def left_over(self) -> Iterator[str]:
        """What a control process has left behind."""
        if self._kernel.control.files or self._kernel.bound:
            yield f"descriptors are left: {self._kernel.control.files}"
        if self._http.open:
            yield f"HTTP servers are left: {self._http.open}"
        if self._processes.living:
            yield f"workers are left: {self._processes.living}"
        if self._kernel.diverted:
            yield f"rules are left for {self._kernel.diverted}"

    def _built(self, options: RoutingOptions) -> RoutingTable:
        state = ClusterState(SOURCES, node_name=NODE)
        for resource, (source, _) in _KINDS.items():
            found = (decoded(resource, obj) for obj in self._cluster.of(resource))
            state.replace(source, [obj for obj in found if obj is not None])
        return build(state, options, RoutingTable(), state.take_dirty())

    def _wrong_addresses(self, status: LoadBalancerStatus) -> Iterator[str]:
        """What is wrong with the addresses of load balancers."""
        if not status.allocating:
            yield f"no addresses are handed out: {status.trouble}"
        pool, holders = AddressRange.parse(POOL), Counter[str]()
        for obj in self._cluster.of("services"):
            service = decoded("services", obj)
            if not isinstance(service, Service) or not is_ours(service):
                continue
            found = status_addresses(service)
            ours = [each for each in found if each in pool]
            holders.update(ours)
            conditions = {each.type: each.status for each in service.status.conditions or ()}
            written = conditions.get(CONDITION)
            if found and not ours:
                if assigned_addresses(service):
                    yield f"{service.key} has {found}, of another pool"
            elif (written, recorded_addresses(service)) not in (("True", found), ("False", ())):
                yield f"{service.key} has {found}, and says {written}: {obj}"
        if holders and max(holders.values()) > 1:
            yield f"an address has several holders: {holders}"
        waiting = [each for each in status.services if not each.addresses and not each.foreign]
        if waiting and len(holders) < 2:
            yield f"an address is free, and {waiting[0]} waits"

    def _hidden_pods(self, daemon: Daemon) -> Iterator[str]:
        """Backends that do not see the addresses of this node's pods."""
        pods, table = daemon.client_ip.shown.pods, daemon.reconciler.table
        if pods != daemon.state.node.pod_cidrs and table.preserves_pods:
            yield f"the pods of this node are shown as {pods}"
        if daemon.client_ip.shown.switched:
            yield f"replies are switched: {daemon.client_ip.shown.switched}"
        here = Networks(filter(None, map(parse_network, pods)))
        for name in table.preserves_pods:
            for route in table.services[name].routes:
                for backend in route.backends if route.preserves_pods else ():
                    mac = self._kernel.diverted.get(backend)
                    if backend.address in here and mac != self._kernel.bridge_mac:
                        yield f"replies of {backend} are diverted to {mac}"

    def _reasons(self, daemon: Daemon) -> Iterator[str]:
        """Whatever is said to be wrong."""
        reconciler = daemon.reconciler
        yield from map(str, daemon.status.reasons_not_ready())
        yield from map(str, daemon.status.notes())
        needed = set(reconciler._service_addresses.needed)
        # A claim of what an interface has by now does no harm, and goes with the next change.
        if self._kernel.claims - self._kernel.addresses != needed:
            yield f"claimed is {self._kernel.claims}, not {needed}"
        for errors in reconciler.sink.errors.values():
            yield from map(str, errors)
        for failure in reconciler.failures.values():
            yield failure.reason
        yield from reconciler.health_check_failures.values()
        yield from self._hidden_pods(daemon)
        shown = daemon.client_ip.shown
        if shown.reason or bool(reconciler.table.preserves_outside) > bool(shown.families):
            yield f"clients' addresses are not shown: {shown.reason}"
        for status in service_statuses(reconciler.table):
            if "unexpected" in status.reason:
                yield status.reason
        assert daemon.kubernetes is not None
        if not daemon.kubernetes.reachable:
            yield f"the cluster is not followed: {daemon.kubernetes.last_error}"

    def _wrong_sockets(self, daemon: Daemon, expected: RoutingTable) -> Iterator[str]:
        workers = self._workers(daemon)
        if workers is None:
            yield "not all workers live"
            return
        for frontend, route in expected.routes.items():
            yield from self._wrong(frontend, route, workers)
        count = sum(_sockets(frontend, route) for frontend, route in expected.routes.items())
        if len(self._kernel.bound) != count:
            yield f"{len(self._kernel.bound)} sockets are bound in place of {count}"
        channels = len(workers)
        if len(self._kernel.control.files) != count + channels:
            yield f"{len(self._kernel.control.files)} descriptors are open, not {count + channels}"

    def _wrong(self, frontend: Frontend, route: Route, workers: list[Worker]) -> Iterator[str]:
        """What is wrong about one frontend."""
        mine = self._bound(frontend)
        if len(mine) != _sockets(frontend, route):
            yield f"{frontend} has {len(mine)} sockets"
            return
        if frontend.protocol == "TCP" and any(it.listening is not route.usable for it in mine):
            yield f"{frontend} listens: {[file.listening for file in mine]}"
        for worker, file in zip(workers, mine, strict=False):
            serving = worker.serving.get(frontend)
            if serving is None or serving.file is not file or serving.route != route:
                yield f"worker {worker.pid} has {serving} for {route}"

    def _bound(self, frontend: Frontend) -> list[File]:
        """Its sockets, in the order of the workers."""
        kind = socket.SOCK_STREAM if frontend.protocol == "TCP" else socket.SOCK_DGRAM
        place = (frontend.address, frontend.port)
        return [each for each in self._kernel.listeners(kind, frontend.port) if each.place == place]

    def _workers(self, daemon: Daemon) -> list[Worker] | None:
        """Those that serve, in their order; None unless each place has one."""
        by_pid = {each.pid: each for each in self._processes.living if not each.hung}
        found = [by_pid.get(place.pid) for place in daemon.workers.status()]
        there = [each for each in found if each is not None]
        return there if len(there) == len(found) else None


def _sockets(frontend: Frontend, route: Route) -> int:
    return 2 if frontend.protocol == "TCP" or route.usable else 0


def decoded(resource: str, obj: dict[str, Any]) -> Object | None:
    """None where it is not as it should be."""
    try:
        return from_json(json.dumps(obj).encode(), _KINDS[resource][1])
    except DecodeError:
        return None
