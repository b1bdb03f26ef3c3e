"""Facts about this machine: its addresses, and addresses of others on which it depends."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Final, Protocol, Self
from urllib.parse import urlsplit

from uproxy.config.settings import Config
from uproxy.core.brief import brief_name
from uproxy.core.cluster.host_addresses import API_SERVER, node_host
from uproxy.core.cluster.load_balancer import Assigning
from uproxy.core.cluster.state import NodeFacts
from uproxy.core.ip import parse_ip, parse_network
from uproxy.core.recently_seen import RecentlySeen
from uproxy.core.route import Announced, ClientIPMode
from uproxy.core.routing.nodeports import resolve_nodeport_addresses
from uproxy.core.routing.options import RoutingOptions
from uproxy.core.routing.service_limits import frontends_for
from uproxy.host.change_monitor import AddressMonitor, RouteMonitor
from uproxy.host.essential_addresses import gateways, name_servers, resolve_hosts
from uproxy.host.interfaces import Interfaces, read_interfaces
from uproxy.host.links import read_pod_networks
from uproxy.host.pod_networks import PodNetworks
from uproxy.net.sockets import descriptor_limit

log = logging.getLogger(__name__)

_PERIOD: Final = 10.0
"""Seconds after which interfaces and routes are read again without a notification."""
_RETRY_PERIOD: Final = 1.0
"""The same, while they cannot be read."""
_MIN_PERIOD: Final = 0.05
"""Seconds between two readings at least."""
_ROUTE_PAUSE: Final = 50.0
"""How many times as long as it took to read the routes they are not read again: a router may have a
million, and reading them is to take a fiftieth of the time at most."""
_KEEP: Final = 600.0
"""Seconds that a gateway or DNS server counts after it was last seen."""
_KEEP_DNS: Final = 3600.0
"""The same for an address of the API server: DNS may give another part of them each time."""
_DNS_PERIOD: Final = 60.0
"""Seconds between two look-ups of the API server's name."""
_DNS_TIMEOUT: Final = 2.0
"""Seconds that a look-up may hold up the start."""


class Monitor(Protocol):
    """Tells when addresses or interfaces have changed; as an async context manager."""

    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *_: object) -> None: ...
    async def wait(self, at_most: float) -> bool: ...


@dataclass(frozen=True, kw_only=True)
class MachineCalls:
    """How the facts are read, so that tests can put a model in the place of this machine."""

    read_interfaces: Callable[[], Awaitable[Interfaces]] = read_interfaces
    gateways: Callable[[], frozenset[str]] = gateways
    name_servers: Callable[[], frozenset[str]] = name_servers
    resolve_hosts: Callable[[Sequence[str]], frozenset[str]] = resolve_hosts
    monitor: Callable[[], Monitor] = AddressMonitor
    descriptor_limit: Callable[[], int] = descriptor_limit
    read_pod_networks: Callable[[Sequence[str]], PodNetworks] = read_pod_networks
    route_monitor: Callable[[], Monitor] = RouteMonitor


_LINUX: Final = MachineCalls()


class Machine:
    """The facts, as they were when they could last be read."""

    def __init__(
        self,
        api_servers: Callable[[], Sequence[str]] = tuple,
        calls: MachineCalls = _LINUX,
        *,
        route_pause: float = _ROUTE_PAUSE,
    ) -> None:
        """`api_servers` returns URLs of the API server and of the proxy in front of it, if any."""
        self._calls = calls
        self._route_pause = route_pause
        self._api_servers = api_servers
        self._interfaces = Interfaces()
        self._gateways = RecentlySeen(_KEEP)
        self._gateways_due = 0.0
        self._name_servers = RecentlySeen(_KEEP)
        self._api_addresses = RecentlySeen(_KEEP_DNS)
        self.trouble = ""
        """Why the addresses cannot be read at present; "": they can be."""
        self._trouble: dict[str, str] = {}
        self.announced: Callable[[], Set[str]] = frozenset
        """Which addresses of its interfaces are those of Services, and announced. Since Linux 5.18
        the addresses themselves say so (IFA_PROTO)."""

    @property
    def descriptor_limit(self) -> int:
        """How many files this process may have open."""
        return self._calls.descriptor_limit()

    @property
    def addresses(self) -> frozenset[str]:
        """Addresses of its interfaces, in canonical form, without those that are announced. Those
        move from node to node: no NodePort is opened there, no externalIP is allowed by them, and
        a fail-over changes no route."""
        return self._interfaces.addresses

    @property
    def reserved(self) -> Mapping[str, str]:
        """Addresses that no Service may have here: see RoutingOptions."""
        return self._reserved_by("this node")

    @property
    def servers(self) -> Mapping[str, str]:
        """Addresses that no Service may have here except as its ClusterIP."""
        return self._servers_of("this node")

    def occupied(self, node: str, *, own: bool) -> Mapping[str, str]:
        """Addresses that must not be handed out to Services, each with what it is. All nodes hear
        of it, so it names this one. `own`: those of its interfaces, too."""
        by_others = self._reserved_by(f"node {node}") | self._servers_of(f"node {node}")
        if own:
            return by_others | dict.fromkeys(self.addresses, node_host(node))
        return {each: what for each, what in by_others.items() if each not in self.addresses}

    def _reserved_by(self, host: str) -> dict[str, str]:
        broadcast = dict.fromkeys(self._interfaces.broadcast, f"a broadcast address of {host}")
        return broadcast | dict.fromkeys(self._gateways.items, f"{host}'s gateway")

    def _servers_of(self, host: str) -> dict[str, str]:
        dns = dict.fromkeys(self._name_servers.items, f"a DNS server of {host}")
        # An address that was learned just now counts at once, and not only after the next look-up.
        found = self._api_addresses.items.union(filter(None, map(_literal, self._api_servers())))
        return dns | dict.fromkeys(found, API_SERVER)

    async def read_all(self) -> None:
        """Read everything."""
        await self.read()
        await self.resolve()

    async def read(self) -> None:
        """Read everything except DNS, which may be slow. What cannot be read stays as it was."""
        began = time.monotonic()
        try:
            found = await self._calls.read_interfaces()
            self._interfaces = found._replace(addresses=found.addresses - self.announced())
            self._name_servers.see(await asyncio.to_thread(self._calls.name_servers), began)
        except Exception as error:
            self.trouble = f"cannot read the addresses of this machine: {error}"
            self._warn_once("interfaces", self.trouble)
            return
        self._readable()
        if began >= self._gateways_due:
            await self._read_routes()

    async def _read_routes(self) -> None:
        began = time.monotonic()
        try:
            self._gateways.see(await asyncio.to_thread(self._calls.gateways), began)
        except Exception as error:
            self._warn_once("routes", f"cannot read the routes of this machine: {error}")
        now = time.monotonic()
        self._gateways_due = now + self._route_pause * (now - began)

    async def resolve(self) -> None:
        """Find out the addresses of the API server. Each name is looked up by itself, so that one
        which does not exist says nothing about the others."""
        async with asyncio.TaskGroup() as tasks:
            for url in filter(None, dict.fromkeys(self._api_servers())):
                tasks.create_task(self._resolve(url), name="look up the API server's address")

    async def _resolve(self, url: str) -> None:
        try:
            async with asyncio.timeout(_DNS_TIMEOUT):
                found = await asyncio.to_thread(self._calls.resolve_hosts, (url,))
                self._api_addresses.see(found, time.monotonic())
        except Exception as error:
            # A URL may contain a password, but its host does not.
            host, reason = brief_name(str(urlsplit(url).hostname)), error or "no answer"
            self._warn_once(
                f"dns {host}", f"cannot look up the API server's address {host}: {reason}"
            )

    async def monitor(self, changed: Callable[[frozenset[str]], None]) -> None:
        """Read again whenever something may have changed, for ever. `changed` is called with the
        addresses that are new."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._monitor_interfaces(changed), name="interfaces")
            tasks.create_task(self._monitor_dns(changed), name="the API server's address")

    async def _monitor_interfaces(self, changed: Callable[[frozenset[str]], None]) -> None:
        async with self._calls.monitor() as monitor:
            while True:
                await monitor.wait(_RETRY_PERIOD if self.trouble else _PERIOD)
                before = self._interfaces, self.reserved, self.servers
                await self.read()
                if self._interfaces != before[0]:
                    log.info("the addresses of this machine have changed")
                if (self._interfaces, self.reserved, self.servers) != before:
                    changed(self.addresses - before[0].addresses)
                # Each of thousands of addresses that come or go one by one is a notification.
                await asyncio.sleep(_MIN_PERIOD)

    async def _monitor_dns(self, changed: Callable[[frozenset[str]], None]) -> None:
        while True:
            await asyncio.sleep(_DNS_PERIOD)
            before = self.servers
            await self.resolve()
            if self.servers != before:
                changed(frozenset())

    def _readable(self) -> None:
        """The addresses could be read."""
        if self.trouble:
            log.info("the addresses of this machine can be read again")
        self.trouble = ""
        self._trouble.pop("interfaces", None)

    def _warn_once(self, what: str, trouble: str) -> None:
        """Log a trouble, but not again as long as it stays the same."""
        if self._trouble.get(what) != trouble:
            self._trouble[what] = trouble
            log.warning("%s", trouble)


def _literal(url: str) -> str | None:
    """The address in a URL; None if its host is a name."""
    return parse_ip(urlsplit(url).hostname or "")


def routing_options(
    config: Config, node: NodeFacts, machine: Machine, held_back: Mapping[str, str]
) -> RoutingOptions:
    """What routing depends on besides the cluster. `held_back`: see ClaimWatchdog."""
    addresses = machine.addresses
    return RoutingOptions(
        nodeport_addresses=resolve_nodeport_addresses(
            config.nodeport_addresses, sorted(addresses), node.addresses
        ),
        balancer=config.balancer,
        preserve_client_ip=ClientIPMode(config.preserve_client_ip),
        external_ip_addresses=addresses,
        strict_source_ranges=config.strict_source_ranges,
        external_ip_cidrs=tuple(
            network for text in config.external_ip_cidrs if (network := parse_network(text))
        ),
        local_addresses=addresses,
        reserved=machine.reserved,
        servers={**held_back, **machine.servers},
        serve_unallocated=bool(config.manifests),
        assigning=Assigning(config.lb_mode),
        announce=Announced(config.announce),
        frontends=frontends_for(machine.descriptor_limit, config.workers),
        service_proxy_name=config.service_proxy_name,
    )
