"""The program as a whole: its parts, how they are connected, and what it says about itself."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial

from uproxy.config.settings import Config
from uproxy.control.backend_reachability import BackendReachability
from uproxy.control.claim_watchdog import ClaimWatchdog
from uproxy.control.client_ip_preservation import ClientIPPreservation
from uproxy.control.cluster_client import ClusterClient
from uproxy.control.http_servers import http_servers, server_troubles
from uproxy.control.listeners import Listeners
from uproxy.control.machine import Machine, routing_options
from uproxy.control.reconciler import Reconciler
from uproxy.control.service_addresses import ServiceAddresses
from uproxy.control.task_supervisor import TaskSupervisor
from uproxy.control.workers import Workers, start_worker
from uproxy.core.cluster.objects import ObjectName
from uproxy.core.cluster.state import ClusterState
from uproxy.core.errors import SourceError
from uproxy.core.ip import Family, family_of
from uproxy.core.report.health import ProxyHealth, not_eligible
from uproxy.core.report.overview import (
    frontend_statuses,
    health_check_statuses,
    service_statuses,
    unserved,
)
from uproxy.core.report.readiness import Kind, Reason, not_ready, texts
from uproxy.core.report.status import FrontendStatus, Status
from uproxy.core.report.telemetry import Telemetry
from uproxy.core.route import Backend, ServicePortName
from uproxy.core.routing.options import RoutingOptions
from uproxy.core.routing.table import HealthCheck
from uproxy.host import processors
from uproxy.host.claims import Claims
from uproxy.http.health import ServiceHealthServers
from uproxy.net.channel import LocalClients, Open, Settings
from uproxy.sources.kubernetes.mirror import SOURCES
from uproxy.sources.kubernetes.source import KubernetesSource
from uproxy.sources.manifests.source import ManifestSource

log = logging.getLogger(__name__)

_FIRST_SYNC = 60.0
"""Seconds that the first sync may take before garbage is collected all the same."""

_MANIFESTS = "manifests"


class Daemon:
    """All parts of a uproxy; `startup.running` opens them. The attributes are for watching it."""

    def __init__(self, config: Config, cluster: KubernetesSource | None, machine: Machine) -> None:
        """`machine` has looked around."""
        self.config = config
        self.telemetry = Telemetry()
        self.health = ProxyHealth(
            sync_period=config.sync_period,
            starting=self.waiting_for,
            outages=lambda: self.workers.outages,
            hopeless=lambda: self.workers.hopeless,
        )
        self.cluster = cluster
        """None: everything comes from manifests."""
        self.machine = machine
        names = SOURCES if self.cluster is not None else (_MANIFESTS,)
        self.state = ClusterState(names, node_name=config.node_name)
        self.source = self.cluster or ManifestSource(config.manifests, name=_MANIFESTS)
        self.backend_reachability = BackendReachability(self._backends, self._reachability_changed)
        self.workers = Workers(
            self._settings,
            config.workers,
            self._state_of_worker,
            wanted=self._is_wanted,
            reported=self.backend_reachability.reported,
            start=partial(
                start_worker, ring=config.io_uring != "never", log_format=config.log_format
            ),
        )
        self.claims = Claims(enabled=config.claim_addresses != "never")
        self.listeners = Listeners(
            self.workers,
            grace=config.drain_timeout,
            claimed=self.claims.claimed,
            later=asyncio.get_running_loop().call_later,
        )
        self.watchdog = ClaimWatchdog(cluster, self._facts_changed)
        self.service_addresses = ServiceAddresses(self.claims, self.watchdog.claimed)
        self.health_servers = ServiceHealthServers(self._health_hosts, healthy=self._healthy)
        self.reconciler = Reconciler(
            state=self.state,
            listeners=self.listeners,
            service_addresses=self.service_addresses,
            options=routing_options(config, self.state.node, machine, {}),
            telemetry=self.telemetry,
            health=self.health,
            serve_health_checks=self._serve_health_checks,
            min_sync_period=config.min_sync_period,
            prepare=lambda table: self.client_ip.prepare(table.local),
            after_sync=self._apply_facts,
        )
        self.client_ip = ClientIPPreservation(
            config.preserve_client_ip, changed=self._send_local_clients, in_use=self._have_flows
        )
        self.supervisor = TaskSupervisor()
        self.servers = list(http_servers(config, self))
        self.cluster_client: ClusterClient | None = None
        if cluster is not None:
            self.cluster_client = ClusterClient(
                cluster,
                config,
                self.reconciler,
                self.supervisor,
                unanswered=lambda: self.backend_reachability.unanswered,
                servers=lambda: server_troubles(self.servers),
            )
        self.draining = False
        self.stop_following: Callable[[], object] = lambda: None
        """Ends `run`: what is wanted no longer matters."""
        self._node = self.state.node
        self._send_local_clients()

    def status(self) -> Status:
        """Everything that can be said at this moment."""
        table = self.reconciler.table
        frontends = tuple(self._frontends())
        return Status(
            node=self.config.node_name,
            synced=self.state.synced,
            frontends=frontends,
            services=tuple(service_statuses(table)),
            objects=tuple(
                each for found in self.reconciler.sink.complaints.values() for each in found
            ),
            workers=self.workers.status(),
            health_checks=tuple(
                health_check_statuses(table.health_checks, self.reconciler.health_check_failures)
            ),
            counters=self.workers.counters(),
            not_ready=tuple(texts(self._not_ready(frontends))),
            not_healthy=tuple(texts(self.reasons_not_healthy())),
            notes=tuple(texts(self.notes())),
            client_address_reason=self.client_ip.reason,
        )

    def reasons_not_healthy(self) -> Sequence[Reason]:
        """Why /healthz is red; nothing: it is green."""
        return (*self.health.troubles(time.monotonic()), *self._not_eligible())

    def reasons_not_ready(self) -> Sequence[Reason]:
        """Why /readyz is red; nothing: it is green."""
        reconciler = self.reconciler
        missing = unserved(reconciler.table, self.listeners.is_open, reconciler.failures)
        return tuple(self._not_ready(missing))

    def notes(self) -> Sequence[Reason]:
        """What people should know although /readyz is green."""
        reasons = [
            (Kind.REMEMBERED, text)
            for text in (self.cluster_client.notes if self.cluster_client else ())
        ]
        if self.cluster is not None and not self.waiting_for():
            lost = self.cluster.reachability.troubles.items()
            reasons += [(Kind.CLUSTER, f"cannot follow {name}: {why}") for name, why in lost]
        reasons += [(Kind.MACHINE, self.machine.trouble)]
        reasons += [(Kind.UNEXPECTED, text) for text in self.supervisor.reasons]
        reasons += [(Kind.SERVER, f"{e.name}: {e.reason}") for e in self.servers if e.reason]
        return [Reason(kind, text) for kind, text in reasons if text]

    def node_eligible(self) -> bool:
        """Whether load balancers should send new connections here."""
        return not any(self._not_eligible())

    def waiting_for(self) -> Sequence[str]:
        """What has to be there before all is served for the first time."""
        found = []
        if self.state.unlisted:
            found.append(f"{', '.join(self.state.unlisted)} to be listed")
        elif not self.reconciler.served_once.is_set():
            found.append("everything to be opened")
        missing = self.config.workers - self.workers.started
        if missing:
            found.append(f"{missing} of {self.config.workers} workers to start")
        return found

    async def served(self) -> None:
        """Wait until all that the sources listed at first is served, by workers that run."""
        await self.workers.ready()
        await self.reconciler.served_once.wait()

    async def run(self) -> None:
        """Serve until cancelled. The tasks in here never end by themselves."""
        async with asyncio.TaskGroup() as tasks:
            for name, task in (
                ("the task that follows objects", self._follow),
                ("the task that serves them", self.reconciler.run),
                (
                    "the task that follows this machine",
                    partial(self.machine.follow, self._machine_changed),
                ),
                ("the claim watchdog", self.watchdog.run),
                ("the task that keeps claims", self._keep_claims),
                ("the task that notices whether backends answer", self.backend_reachability.run),
                ("the task that shows clients' addresses to pods", self.client_ip.run),
            ):
                restarted = self.supervisor.run(name, task, refusal=SourceError)
                tasks.create_task(restarted, name=name)
            tasks.create_task(self._freeze(), name="freeze")

    async def _keep_claims(self) -> None:
        await self.service_addresses.keep(self.reconciler.claims_available)

    async def _follow(self) -> None:
        if self.cluster_client is not None:
            await self.cluster_client.run()
        else:
            await self.source.run(self.reconciler.sink)

    async def drain(self) -> None:
        """Stop accepting, and give flows `drain_timeout` to end."""
        self.draining = True
        self.stop_following()
        await self._serve_health_checks({})
        await self.listeners.empty_queues()
        # Flows end with their workers, so that it is known how many were cut.
        self.listeners.close_all(grace=2 * self.config.drain_timeout + 1)
        self.workers.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.config.drain_timeout):
                await self.workers.drained()

    def _frontends(self) -> list[FrontendStatus]:
        table = self.reconciler.table
        actual = self.listeners.actual(table.routes)
        preserved = self.client_ip.families
        failures, unanswered = self.reconciler.failures, self.backend_reachability.unanswered
        return list(frontend_statuses(table, actual, failures, preserved, unanswered))

    def _not_eligible(self) -> Iterator[Reason]:
        watched = self.cluster is not None
        return not_eligible(self.state.node, watched=watched, draining=self.draining)

    def _not_ready(self, frontends: Iterable[FrontendStatus]) -> Sequence[Reason]:
        waiting_for = self.waiting_for()
        reasons = list(not_ready(frontends, waiting_for=waiting_for, draining=self.draining))
        reasons += (Reason(Kind.WORKER, each) for each in self.workers.problems)
        if self.cluster is not None and waiting_for and self.cluster.last_error:
            text = f"the cluster cannot be followed: {self.cluster.last_error}"
            reasons.append(Reason(Kind.CLUSTER, text))
        if self.reconciler.trouble:
            text = f"changes cannot be carried out: {self.reconciler.trouble}"
            reasons.append(Reason(Kind.TROUBLE, text))
        return reasons

    def _settings(self, worker: int) -> Settings:
        config = self.config
        share = config.max_flows // config.workers + (worker < config.max_flows % config.workers)
        return Settings(
            worker=worker,
            workers=config.workers,
            max_flows=max(1, share),
            udp_timeout=config.udp_timeout,
            tcp_idle_timeout=config.tcp_idle_timeout,
            half_close_timeout=config.half_close_timeout,
            busy_poll=config.busy_poll != "never" and processors.has_spare_processor(),
        )

    def _state_of_worker(self, worker: int) -> Iterator[tuple[Open, socket.socket]]:
        return self.listeners.for_worker(worker)

    def _is_wanted(self, port: ServicePortName) -> bool:
        """Whether a port of a Service exists, served or not."""
        service = self.reconciler.table.services.get(ObjectName(port.namespace, port.name))
        return service is not None and any(route.owner == port for route in service.routes)

    def _backends(self, port: ServicePortName) -> set[Backend]:
        """All that a port of a Service may lead to."""
        service = self.reconciler.table.services.get(ObjectName(port.namespace, port.name))
        routes = service.routes if service is not None else ()
        return {
            backend
            for route in routes
            if route.owner == port
            for backend in (*route.backends, *(route.local_backends or ()))
        }

    def _reachability_changed(self) -> None:
        if self.cluster_client is not None:
            self.cluster_client.changed()

    def _have_flows(self, services: Collection[ObjectName]) -> bool:
        return any(
            counters.active and ObjectName(port.namespace, port.name) in services
            for port, counters in self.workers.counters().items()
        )

    def _health_hosts(self, family: Family) -> Sequence[str]:
        addresses = self._options().nodeport_addresses
        return [each for each in addresses if family_of(each) == family]

    def _healthy(self) -> bool:
        return self.health.healthy(time.monotonic()) and not self.draining

    async def _serve_health_checks(
        self, wanted: Mapping[ObjectName, HealthCheck]
    ) -> Mapping[ObjectName, str]:
        await self.health_servers.sync(wanted)
        return self.health_servers.reasons

    def _machine_changed(self, appeared: frozenset[str]) -> None:
        self._facts_changed()
        self.reconciler.addresses_appeared(appeared)

    def _apply_facts(self) -> None:
        """After a step: the Node object may have brought new facts."""
        if self.cluster_client is not None:
            self.cluster_client.changed()
        if self.state.node != self._node:
            self._node = self.state.node
            self._facts_changed()

    def _facts_changed(self) -> None:
        self.reconciler.set_options(self._options())
        self._send_local_clients()

    def _options(self) -> RoutingOptions:
        return routing_options(self.config, self.state.node, self.machine, self.watchdog.held_back)

    def _send_local_clients(self) -> None:
        networks = self.config.cluster_cidr or self.state.node.pod_cidrs
        addresses = self.machine.addresses.union(self.state.node.addresses)
        families = tuple(self.client_ip.families)
        self.workers.set_local_clients(LocalClients(tuple(sorted(addresses)), networks, families))

    async def _freeze(self) -> None:
        """Spare the garbage collector what will stay: a full collection over the objects of a
        large cluster stops the loop for 0.1 s, also one that is asked for just once."""
        gc.disable()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FIRST_SYNC):
                    await self.reconciler.served_once.wait()
            gc.freeze()
        finally:
            gc.enable()
