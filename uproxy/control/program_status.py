"""What the program says about itself: its status, whether it is ready and healthy, and notes.

It reads the parts of the program at the moment of each question, and keeps nothing but whether the
program drains. `daemon` connects the parts; the HTTP servers ask here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from uproxy.config.settings import Config
from uproxy.control.backends import Backends
from uproxy.control.client_ip_preservation import ClientIPPreservation
from uproxy.control.cluster_client import ClusterClient
from uproxy.control.ended_flows import EndedFlows
from uproxy.control.http_servers import HEALTH, server_problems
from uproxy.control.listeners import Listeners
from uproxy.control.load_balancer.load_balancer import LoadBalancer
from uproxy.control.machine import Machine
from uproxy.control.reconciler import Reconciler
from uproxy.control.recording import Recording
from uproxy.control.task_supervisor import TaskSupervisor
from uproxy.control.workers import Workers
from uproxy.core.cluster.objects import ObjectName
from uproxy.core.report.backends import CountedBackends, PortStatus
from uproxy.core.report.flow_format import FlowFilter, FlowsView
from uproxy.core.report.health import ProxyHealth, not_eligible
from uproxy.core.report.load_balancer import AddressStatus
from uproxy.core.report.overview import (
    frontend_statuses,
    health_check_statuses,
    service_statuses,
    unserved,
)
from uproxy.core.report.problems import Event, Problems, Reference, problems
from uproxy.core.report.readiness import Reason, ReasonKind, count_kinds, not_ready, texts
from uproxy.core.report.status import ApiServerStatus, FrontendStatus, ObjectStatus, Status
from uproxy.core.report.status_format import ServiceLabels
from uproxy.core.report.telemetry import Telemetry
from uproxy.http.server import HttpServer
from uproxy.net.listening import is_taken
from uproxy.sources.kubernetes.source import KubernetesSource


@dataclass(kw_only=True, eq=False)
class ProgramStatus:
    """Answers for /healthz, /livez, /readyz, /metrics and the status page, at any time."""

    config: Config
    telemetry: Telemetry
    health: ProxyHealth
    kubernetes: KubernetesSource | None
    """None: everything comes from manifests."""
    machine: Machine
    workers: Workers
    listeners: Listeners
    reconciler: Reconciler
    client_ip: ClientIPPreservation
    backends: Backends
    ended_flows: EndedFlows
    supervisor: TaskSupervisor
    servers: Sequence[HttpServer]
    load_balancer: LoadBalancer | None
    """None: Services get no addresses from this program."""
    last_known_notes: Callable[[], Sequence[str]]
    """Says which objects come from the last-known state on disk."""
    draining: bool = False
    port_conflicts: Callable[[], Sequence[str]] = tuple
    """Says which other processes have ports that this program needs."""
    restart_for: Sequence[str] = ()
    """Fields of the configuration file that were changed, and take effect after a restart."""
    recording: Recording = field(init=False)
    """The recent past."""

    def __post_init__(self) -> None:
        self.recording = Recording(
            self.config.node_name,
            counters=self.workers.counters,
            problems=self.problems,
            exists=self._exists,
        )

    def now(self) -> Status:
        """Everything that can be said at this moment."""
        table = self.reconciler.table
        load_balancer = self.load_balancer.status() if self.load_balancer is not None else None
        announced = load_balancer.announced() if load_balancer is not None else {}
        frontends = tuple(self._frontends(announced))
        unready = self._not_ready(frontends)
        unhealthy = (*self.reasons_not_healthy(), *self._unanswered_probes())
        notes = [each for each in self.notes() if each not in unhealthy]
        return Status(
            node=self.config.node_name,
            synced=self.reconciler.state.synced,
            frontends=frontends,
            services=tuple(service_statuses(table)),
            objects=tuple(self._unusable_objects()),
            workers=self.workers.status(),
            health_checks=tuple(
                health_check_statuses(table.health_checks, self.reconciler.health_check_failures)
            ),
            counters=self.workers.counters(),
            not_ready=tuple(texts(unready)),
            not_healthy=tuple(texts(unhealthy)),
            notes=tuple(texts(notes)),
            problems=count_kinds((*unready, *unhealthy, *notes)),
            max_flows=self.config.max_flows,
            api_servers=tuple(self._api_servers()),
            client_address_reason=self.client_ip.shown.reason,
            load_balancer=load_balancer,
            flow_log=self.ended_flows.log.counts if self.ended_flows.log is not None else None,
        )

    def service_labels(self) -> ServiceLabels:
        """Those of all Services that are known, served or not."""
        return self.reconciler.state.service_labels()

    async def flows(self, wanted: FlowFilter) -> FlowsView:
        """Flows that have ended, as far as workers answer."""
        return await self.ended_flows.find(wanted)

    def problems(self) -> Problems | None:
        """What Events are about; None: it is too early to say."""
        reconciler = self.reconciler
        if not reconciler.served_once.is_set():
            return None
        return problems(
            self.config.node_name,
            reconciler.table,
            reconciler.failures,
            reconciler.health_check_failures,
            failing=self.backends.failing,
            servers=server_problems(self.servers),
        )

    def happened(self, events: Iterable[Event], cluster: ClusterClient | None) -> None:
        """Show Events here, and send them to the cluster."""
        happened = tuple(events)
        self.recording.happened(happened)
        if cluster is not None:
            cluster.send(happened)

    def ports_of(self, service: ObjectName, now: float) -> Iterator[PortStatus]:
        """The ports of a Service, with their backends."""
        return self.backends.ports_of(service, now)

    def counted_backends(self) -> CountedBackends | None:
        """The backends that have metrics of their own; None: it is not asked for."""
        most = self.config.metrics_per_backend
        return self.backends.counted(most) if most else None

    def reasons_not_healthy(self) -> Sequence[Reason]:
        """Why /healthz fails; empty: it succeeds."""
        return (*self.health.problems(time.monotonic()), *self._not_eligible())

    def _unanswered_probes(self) -> Iterator[Reason]:
        """Why no probe gets an answer of this program, whatever that would be."""
        for each in self.servers:
            if each.name == HEALTH and each.reason:
                yield _closed(each)

    def reasons_not_ready(self) -> Sequence[Reason]:
        """Why /readyz fails; empty: it succeeds."""
        reconciler = self.reconciler
        missing = unserved(reconciler.table, self.listeners.is_open, reconciler.failures)
        return tuple(self._not_ready(missing))

    def notes(self) -> Sequence[Reason]:
        """What people should know although /readyz succeeds."""
        reasons = [(ReasonKind.LAST_KNOWN, text) for text in self.last_known_notes()]
        if self.kubernetes is not None and not self.waiting_for():
            lost = self.kubernetes.reachability.troubles.items()
            reasons += [(ReasonKind.CLUSTER, f"cannot watch {name}: {why}") for name, why in lost]
        reasons += [(ReasonKind.MACHINE, self.machine.trouble)]
        reasons += [(ReasonKind.MACHINE, self._no_primary_address())]
        if self.restart_for:
            text = f"restart uproxy to put into effect: {', '.join(self.restart_for)}"
            reasons += [(ReasonKind.SETTINGS, text)]
        reasons += [(ReasonKind.UNEXPECTED, text) for text in self.supervisor.reasons]
        conflicts = self.port_conflicts()
        reasons += [(ReasonKind.PORTS_TAKEN, text) for text in conflicts]
        reasons += [
            _closed(e) for e in self.servers if e.reason and not (conflicts and is_taken(e.reason))
        ]
        return [Reason(kind, text) for kind, text in reasons if text]

    def node_eligible(self) -> bool:
        """Whether load balancers should send new connections here."""
        return not any(self._not_eligible())

    def healthy(self) -> bool:
        """Whether a health check node port may succeed: its Service is served by this program."""
        return self.health.healthy(time.monotonic()) and not self.draining

    def waiting_for(self) -> Sequence[str]:
        """What has to happen before everything is served for the first time."""
        found = []
        state = self.reconciler.state
        if state.unlisted:
            found.append(f"{', '.join(state.unlisted)} to be listed")
        elif not self.reconciler.served_once.is_set():
            found.append("all frontends to be opened")
        missing = self.config.workers - self.workers.started
        if missing:
            found.append(f"{missing} of {self.config.workers} workers to start")
        return found

    def _exists(self, regarding: Reference) -> bool:
        name = ObjectName(regarding.namespace, regarding.name)
        return regarding.kind == "Node" or self.reconciler.state.service(name) is not None

    def _no_primary_address(self) -> str:
        """Why NodePorts are missing that are wanted at the primary addresses; "": none is."""
        state = self.reconciler.state
        wanted = "primary" in self.config.nodeport_addresses
        if not wanted or state.node.addresses or not self.reconciler.served_once.is_set():
            return ""
        return (
            "no NodePort is served at the primary addresses, since those of the Node"
            f" {state.node.name} are not known"
        )

    def _api_servers(self) -> Iterator[ApiServerStatus]:
        addresses = self.kubernetes.api.addresses if self.kubernetes is not None else ()
        for each in addresses:
            yield ApiServerStatus(
                address=each.server,
                origin=each.origin,
                in_use=each.in_use,
                reason=each.reason,
            )

    def _unusable_objects(self) -> Iterator[ObjectStatus]:
        for found in self.reconciler.sink.errors.values():
            yield from found
        if self.load_balancer is not None:
            yield from self.load_balancer.errors()

    def _frontends(self, announced: Mapping[str, AddressStatus]) -> list[FrontendStatus]:
        table = self.reconciler.table
        actual = self.listeners.actual(table.routes)
        clients = self.client_ip.shown
        failures, failing = self.reconciler.failures, self.backends.failing
        return list(
            frontend_statuses(table, actual, failures, clients, failing, announced=announced)
        )

    def _not_eligible(self) -> Iterator[Reason]:
        watched = self.kubernetes is not None
        state = self.reconciler.state
        candidates = () if state.node.known else state.hosts.nodes_at(self.machine.addresses)
        return not_eligible(
            state.node, watched=watched, draining=self.draining, candidates=candidates
        )

    def _not_ready(self, frontends: Iterable[FrontendStatus]) -> Sequence[Reason]:
        waiting_for = self.waiting_for()
        reasons = list(not_ready(frontends, waiting_for=waiting_for, draining=self.draining))
        reasons += (Reason(ReasonKind.WORKER, each) for each in self.workers.problems)
        if self.kubernetes is not None and waiting_for and self.kubernetes.last_error:
            text = f"cannot watch the cluster: {self.kubernetes.last_error}"
            reasons.append(Reason(ReasonKind.CLUSTER, text))
        if self.reconciler.trouble:
            text = f"cannot apply changes: {self.reconciler.trouble}"
            reasons.append(Reason(ReasonKind.NOT_APPLIED, text))
        return reasons


def _closed(server: HttpServer) -> Reason:
    """That a server of the program itself could not be opened."""
    what = "/healthz and /readyz do not answer" if server.name == HEALTH else server.name
    return Reason(ReasonKind.HTTP_SERVER, f"{what}: {server.reason}")
