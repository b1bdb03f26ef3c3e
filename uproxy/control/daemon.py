"""The parts of the program, how they are connected, and the tasks that keep them going."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from uproxy.config.settings import Config
from uproxy.control.backends import Backends
from uproxy.control.claim_watchdog import ClaimWatchdog
from uproxy.control.client_ip_preservation import ClientIPPreservation
from uproxy.control.cluster_client import ClusterClient
from uproxy.control.ended_flows import EndedFlows
from uproxy.control.environment import LOCAL, Environment
from uproxy.control.garbage import freeze_after
from uproxy.control.http_servers import http_servers
from uproxy.control.listeners import Listeners
from uproxy.control.load_balancer.assembly import new_load_balancer
from uproxy.control.load_balancer.load_balancer import LoadBalancer
from uproxy.control.load_balancer.served import Served
from uproxy.control.local_pods import LocalPods
from uproxy.control.machine import Machine, routing_options
from uproxy.control.manifests import follow_manifests
from uproxy.control.program_status import ProgramStatus
from uproxy.control.reconciler import Reconciler
from uproxy.control.service_addresses import ServiceAddresses
from uproxy.control.sync_log import log_node
from uproxy.control.task_supervisor import TaskSupervisor
from uproxy.control.worker_settings import worker_settings
from uproxy.control.workers import Workers, start_worker
from uproxy.core.cluster.objects import ObjectName
from uproxy.core.cluster.state import ClusterState
from uproxy.core.errors import SourceError
from uproxy.core.ip import Family, family_of
from uproxy.core.report.health import ProxyHealth
from uproxy.core.report.telemetry import RequestTelemetry, Telemetry
from uproxy.core.route import ClientIPMode, ServicePortName
from uproxy.core.routing.options import RoutingOptions
from uproxy.core.routing.service_routes import HealthCheck
from uproxy.core.routing.table import RoutingTable
from uproxy.host.claims import Claims
from uproxy.http.health import ServiceHealthServers
from uproxy.http.server import HttpServer
from uproxy.net.messages import LocalClients, Report
from uproxy.sources.kubernetes.resources import SOURCES
from uproxy.sources.kubernetes.source import KubernetesSource
from uproxy.sources.manifests.source import ManifestSource

log = logging.getLogger(__name__)

_MANIFESTS = "manifests"


class Daemon:
    """All parts of a uproxy; `startup.running` opens them. Attributes are public for tests and for
    `startup`; what the program says about itself is in `status`."""

    def __init__(
        self,
        config: Config,
        kubernetes: KubernetesSource | None,
        machine: Machine,
        environment: Environment = LOCAL,
        requests: RequestTelemetry | None = None,
    ) -> None:
        """`kubernetes`: None where everything comes from manifests. `machine` has been read.
        `requests`: those to the API server."""
        self._environment = environment
        self.config = config
        self.kubernetes = kubernetes
        self.manifests = ManifestSource(config.manifests, name=_MANIFESTS)
        self.machine = machine
        self.servers: list[HttpServer] = []
        """The HTTP servers of the program itself; those of health check node ports are apart."""
        self.stop_following: Callable[[], object] = lambda: None
        """Ends `run`: the desired state no longer matters."""
        telemetry = Telemetry(requests)
        health = ProxyHealth(
            sync_period=config.sync_period,
            starting=lambda: self.status.waiting_for(),
            unavailable_workers=lambda: self.workers.unavailable,
            needs_restart=lambda: self.workers.need_restart,
        )
        names = SOURCES if kubernetes is not None else (_MANIFESTS,)
        self.state = ClusterState(names, node_name=config.node_name)
        self._node = self.state.node
        self.backends = Backends(self.state, lambda: self.reconciler.table, self._backends_changed)
        self.ended_flows = EndedFlows(self.state, lambda: self.workers, config.flow_log)
        self.workers = Workers(
            partial(worker_settings, config),
            config.workers,
            lambda worker: self.listeners.opens_for(worker),
            wanted=self._is_wanted,
            reported=self._reported,
            recorded=self.ended_flows.recorded,
            ended=self.backends.totals.ended,
            start=partial(
                start_worker,
                ring=config.io_uring != "never",
                log_format=config.log_format,
                calls=environment.sockets,
                popen=environment.popen,
            ),
            calls=environment.sockets,
        )
        self.claims = Claims(enabled=config.claim_addresses != "never", calls=environment.claims)
        self.listeners = Listeners(
            self.workers,
            grace=config.drain_timeout,
            claimed=self.claims.claimed,
            call_later=asyncio.get_running_loop().call_later,
            calls=environment.sockets,
        )
        self.watchdog = ClaimWatchdog(kubernetes, self.facts_changed)
        self.service_addresses = ServiceAddresses(self.claims, self.watchdog.claimed)
        self.client_ip = ClientIPPreservation(
            config.preserve_client_ip,
            changed=self._send_local_clients,
            with_flows=self._services_with_flows,
            calls=environment.client_addresses,
        )
        self.local_pods = LocalPods(
            self._networks_of_pods, self.client_ip.set_networks, environment.machine
        )
        self.reconciler = Reconciler(
            state=self.state,
            listeners=self.listeners,
            service_addresses=self.service_addresses,
            options=routing_options(config, self.state.node, machine, {}),
            telemetry=telemetry,
            health=health,
            serve_health_checks=self._serve_health_checks,
            min_sync_period=config.min_sync_period,
            before_sync=self._apply_node,
            prepare=self._prepare,
            after_sync=self._synced,
        )
        self.supervisor = TaskSupervisor()
        self.cluster_client = self._cluster_client()
        self.load_balancer = self._load_balancer()
        if self.load_balancer is not None:
            machine.announced = self.load_balancer.held
        """None where Services get no addresses from this program."""
        self.status = ProgramStatus(
            config=config,
            telemetry=telemetry,
            health=health,
            kubernetes=kubernetes,
            machine=machine,
            workers=self.workers,
            listeners=self.listeners,
            reconciler=self.reconciler,
            client_ip=self.client_ip,
            backends=self.backends,
            ended_flows=self.ended_flows,
            supervisor=self.supervisor,
            servers=self.servers,
            load_balancer=self.load_balancer,
            last_known_notes=lambda: self.cluster_client.notes if self.cluster_client else (),
        )
        self.health_servers = ServiceHealthServers(
            self._health_hosts,
            healthy=self.status.healthy,
            new_server=environment.new_health_server,
        )
        self.servers += http_servers(config, self.status)
        self._send_local_clients()

    def _cluster_client(self) -> ClusterClient | None:
        if self.kubernetes is None:
            return None
        return ClusterClient(
            self.kubernetes,
            self.config,
            self.reconciler,
            self.supervisor,
            problems=lambda: self.status.problems(),
            files=self._environment.snapshots,
        )

    def _load_balancer(self) -> LoadBalancer | None:
        client = self.cluster_client
        return new_load_balancer(
            self.config,
            self.kubernetes.api if self.kubernetes is not None else None,
            state=self.state,
            supervisor=self.supervisor,
            calls=self._environment.announcing,
            send_events=lambda events: self.status.happened(events, client),
            find_other_proxies=self._environment.find_other_proxies,
            occupied=self.machine.occupied,
            served=Served(
                routes=lambda: self.reconciler.table.routes,
                is_open=self.listeners.is_open,
                has_failed=lambda frontend: frontend in self.reconciler.failures,
                refusal=lambda: self.claims.reason,
                owned=lambda: self.claims.owned,
                all_known=self.reconciler.served_once.is_set,
            ),
        )

    async def served(self) -> None:
        """Wait until everything that the sources listed at first is served by running workers."""
        await self.workers.ready()
        await self.reconciler.served_once.wait()

    async def run(self) -> None:
        """Serve until cancelled. The tasks in here never end by themselves."""
        async with asyncio.TaskGroup() as tasks:
            for name, task in (
                ("object source", self._follow),
                ("control loop", self.reconciler.run),
                (
                    "machine monitor",
                    partial(self.machine.monitor, self._machine_changed),
                ),
                ("claim watchdog", self.watchdog.run),
                ("claim maintenance", self._maintain_claims),
                ("backends", self.backends.run),
                ("client address rules", self.client_ip.run),
                ("pods of this node", self.local_pods.run),
            ):
                restarted = self.supervisor.run(name, task, refusal=SourceError)
                tasks.create_task(restarted, name=name)
            if self.load_balancer is not None:
                tasks.create_task(self.load_balancer.run(), name="load balancer")
            freezing = freeze_after(self.reconciler.served_once, self._environment.garbage)
            tasks.create_task(freezing, name="freeze")

    async def drain(self) -> None:
        """Stop accepting, and give flows `drain_timeout` to end.

        The order decides what clients see. Health checks fail first (`draining`, then closed health
        check node ports), so that load balancers choose other nodes from now on; addresses that are
        announced here are left to other nodes. The sources stop next: a change that arrived later
        would open again what is about to be closed. Then workers accept what waits in the queues,
        because closing a listener resets it. Only then are listeners closed, and workers report
        when their last flow has ended.
        """
        self.status.draining = True
        if self.load_balancer is not None:
            await self.load_balancer.drain()
        self.stop_following()
        await self._serve_health_checks({})
        await self.listeners.empty_queues()
        # The grace is longer than the wait below: flows are to end together with their workers,
        # which is how the caller knows how many were cut.
        self.listeners.close_all(grace=2 * self.config.drain_timeout + 1)
        self.workers.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.config.drain_timeout):
                await self.workers.drained()

    async def _follow(self) -> None:
        if self.cluster_client is not None:
            await self.cluster_client.run()
        else:
            await follow_manifests(self.manifests, self.reconciler, self.load_balancer)

    async def _maintain_claims(self) -> None:
        await self.service_addresses.maintain(self.reconciler.claims_available)

    def _is_wanted(self, port: ServicePortName) -> bool:
        return self.reconciler.table.has_port(port)

    def _backends_changed(self) -> None:
        if self.cluster_client is not None:
            self.cluster_client.changed()

    def _reported(self, worker: int, report: Report) -> None:
        self.backends.reported(worker, report)
        self.client_ip.reported(report, self._is_wanted)

    def _services_with_flows(self) -> frozenset[ObjectName]:
        return frozenset(
            ObjectName(port.namespace, port.name)
            for port, counters in self.workers.counters().items()
            if counters.active
        )

    def _health_hosts(self, family: Family) -> Sequence[str]:
        addresses = self._options().nodeport_addresses
        return [each for each in addresses if family_of(each) == family]

    async def _serve_health_checks(
        self, wanted: Mapping[ObjectName, HealthCheck]
    ) -> Mapping[ObjectName, str]:
        await self.health_servers.sync(wanted)
        return self.health_servers.reasons

    def _machine_changed(self, appeared: frozenset[str]) -> None:
        self.facts_changed()
        self.reconciler.addresses_appeared(appeared)
        if self.load_balancer is not None:
            self.load_balancer.changed()

    def _apply_node(self) -> None:
        """The Node object may have brought new facts. A sync that opened listeners before these are
        applied would take pods for clients from outside, and open no NodePort at the addresses of
        the Node."""
        if self.state.node != self._node:
            if self.reconciler.served_once.is_set():
                log_node(self._node, self.state.node)
            self._node = self.state.node
            self.facts_changed()

    async def _prepare(self, table: RoutingTable) -> None:
        """Before anything is opened for a table: whose addresses backends can be shown."""
        await self.local_pods.up_to_date()
        await self.client_ip.prepare(table)

    def _synced(self) -> None:
        if self.cluster_client is not None and self.cluster_client.synced():
            self.facts_changed()
        if self.load_balancer is not None:
            self.load_balancer.changed()

    def facts_changed(self) -> None:
        self.reconciler.set_options(self._options())
        self.local_pods.clusters_changed()
        self._send_local_clients()

    def _options(self) -> RoutingOptions:
        return routing_options(self.config, self.state.node, self.machine, self.watchdog.held_back)

    def _networks_of_pods(self) -> Sequence[str]:
        """Of all pods, as far as this node's own are of interest."""
        if self.config.preserve_client_ip != ClientIPMode.AUTO:
            return ()
        return self.config.cluster_cidr or self.state.node.pod_cidrs

    def _send_local_clients(self) -> None:
        networks = self.config.cluster_cidr or self.state.node.pod_cidrs
        addresses = self.machine.addresses.union(self.state.node.addresses)
        shown = self.client_ip.shown
        self.workers.set_local_clients(
            LocalClients(
                tuple(sorted(addresses)),
                networks,
                preserved=shown.families,
                pods=shown.pods,
                switched=tuple(shown.switched),
                astray=tuple(sorted(shown.astray)),
                witnesses=self.client_ip.witnesses,
            )
        )
