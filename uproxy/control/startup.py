"""Starts the program: finds its cluster, opens its parts one after the other, and closes them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from uproxy.apiserver import client_library
from uproxy.apiserver.client import ApiClient
from uproxy.apiserver.deferred_client import DeferredClient
from uproxy.apiserver.discovery import KnownAddresses, find_access, find_addresses
from uproxy.apiserver.failover_client import FailoverClient
from uproxy.apiserver.request import ApiServer
from uproxy.config.settings import Config
from uproxy.control.daemon import Daemon
from uproxy.control.environment import LOCAL, Environment
from uproxy.control.machine import Machine
from uproxy.control.port_conflicts import PortConflicts
from uproxy.core.errors import SourceError
from uproxy.core.report.telemetry import RequestTelemetry
from uproxy.http.server import HttpServer
from uproxy.sources.kubernetes.source import KubernetesSource
from uproxy.sources.last_known.snapshot import has_snapshot, remembered_api_servers

log = logging.getLogger(__name__)


class StartError(SourceError):
    """The program cannot start; one line that says why and what to do."""


class Start:
    """How far a start has come."""

    def __init__(self) -> None:
        self.waiting_for: Callable[[], Sequence[str]] = tuple
        """Returns what has to happen before everything is served; nothing: everything is."""

    def waits_for(self, what: str) -> None:
        self.waiting_for = lambda: (what,)


@asynccontextmanager
async def running(
    config: Config,
    start: Start | None = None,
    *,
    environment: Environment = LOCAL,
    cluster: Callable[[Config], KubernetesSource | None] | None = None,
) -> AsyncIterator[Daemon]:
    """A daemon that serves while the context is open, and ends what it started when it closes.

    `start` is told how far it is. `cluster` finds the cluster; None: as the configuration says.
    Raises StartError where the daemon cannot start at all.
    """
    start = start or Start()
    environment.sockets.raise_descriptor_limit()
    start.waits_for("the addresses of this machine")
    requests = RequestTelemetry()
    kubernetes = (cluster or partial(_find_cluster, requests=requests))(config)
    machine = Machine(lambda: _api_servers(kubernetes), environment.machine)
    await machine.read_all()
    daemon = Daemon(config, kubernetes, machine, environment, requests)
    async with AsyncExitStack() as stack:
        # The HTTP servers come first. What follows may take long, and probes have to be answered
        # meanwhile: kubelet would restart a container that does not answer its livenessProbe.
        for server in daemon.servers:
            await stack.enter_async_context(server)
            if server.reason and config.bind_address_hard_fail:
                raise StartError(server.reason)
        if daemon.ended_flows.log is not None:
            await stack.enter_async_context(daemon.ended_flows.log)
        start.waits_for("claims that an earlier uproxy has left")
        await stack.enter_async_context(daemon.claims)
        if daemon.kubernetes is not None:
            await stack.enter_async_context(daemon.kubernetes.api)
        await stack.enter_async_context(daemon.health_servers)
        await stack.enter_async_context(daemon.client_ip)
        await stack.enter_async_context(daemon.workers)
        start.waiting_for = daemon.status.waiting_for
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(_keep_trying(server, daemon), name=server.name)
                for server in daemon.servers
            ]
            conflicts = PortConflicts(daemon, environment)
            daemon.status.port_conflicts = lambda: conflicts.notes
            explained = daemon.supervisor.run("port conflicts", conflicts.run)
            background.append(tasks.create_task(explained, name="port conflicts"))
            recording = daemon.supervisor.run("recording", daemon.status.recording.run)
            background.append(tasks.create_task(recording, name="recording"))
            background.append(tasks.create_task(daemon.run(), name="daemon"))
            daemon.stop_following = background[-1].cancel
            try:
                yield daemon
            finally:
                for task in background:
                    task.cancel()


async def _keep_trying(server: HttpServer, daemon: Daemon) -> None:
    """Try until the server listens; then the Event about it is over."""
    await server.retry()
    if daemon.cluster_client is not None:
        daemon.cluster_client.changed()


def _find_cluster(config: Config, requests: RequestTelemetry) -> KubernetesSource | None:
    """The cluster to follow, unless there are manifests. `requests` counts what it is asked.

    Raises StartError where there is neither, SourceError where access is not possible at all and
    no last-known state can be served meanwhile.
    """
    if config.manifests:
        return None
    try:
        api = _api(config, requests)
    except client_library.NotInstalled:
        # Only installing the library helps, and a process that runs would not notice that.
        raise
    except SourceError as error:
        if config.state_dir is None or not has_snapshot(config.state_dir, config.node_name):
            raise
        log.error("%s; serving the last-known state until this is fixed", error)
        api = DeferredClient(lambda: _api(config, requests), error)
    return KubernetesSource(
        api,
        node_name=config.node_name,
        service_proxy_name=config.service_proxy_name,
        node_labels=config.lb_mode != "never",
    )


def _api_servers(cluster: KubernetesSource | None) -> Sequence[str]:
    """URLs of the API server and of the proxy in front of it. A former address is left out unless
    it is in use: it may be that of a Service by now."""
    if cluster is None:
        return ()
    servers = (each.server for each in cluster.api.addresses if each.in_use or not each.former)
    return *servers, cluster.api.access.proxy


def _remembered_api_servers(config: Config) -> Sequence[str]:
    if config.state_dir is None:
        return ()
    return remembered_api_servers(config.state_dir, config.node_name)


def _api(config: Config, requests: RequestTelemetry) -> ApiServer:
    access = find_access(config.kubeconfig, config.context)
    if access is None:
        raise StartError(
            "nothing to serve: not running in a Pod, and no kubeconfig was found; give "
            "--kubeconfig FILE or --manifests PATH, or try: uproxy demo"
        )
    known = KnownAddresses(
        config.apiserver_address,
        config.kubelet_kubeconfig,
        lambda: _remembered_api_servers(config),
    )
    candidates = find_addresses(access, known, spread=config.node_name)
    relaxed = config.tls_relaxed_x509
    if candidates is None:
        return ApiClient(access, relaxed_x509=relaxed, requests=requests)
    return FailoverClient(access, candidates, relaxed_x509=relaxed, requests=requests)
