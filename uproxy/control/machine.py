"""What is true of this machine: its addresses, and those that it needs others to have."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, Self

from uproxy.config.settings import Config
from uproxy.core.cluster.host_addresses import API_SERVER
from uproxy.core.cluster.state import NodeFacts
from uproxy.core.ip import parse_network
from uproxy.core.recently_seen import RecentlySeen
from uproxy.core.routing.nodeports import resolve_nodeport_addresses
from uproxy.core.routing.options import RoutingOptions
from uproxy.core.routing.service_limits import frontends_for
from uproxy.host.essential_addresses import gateways, name_servers, resolve_hosts
from uproxy.host.interfaces import AddressMonitor, Interfaces, read_interfaces
from uproxy.net.sockets import descriptor_limit

log = logging.getLogger(__name__)

_PERIOD: Final = 10.0
"""Seconds after which interfaces and routes are looked at without news."""
_SOON: Final = 1.0
"""The same, after they could not be read."""
_PAUSE: Final = 0.05
"""Seconds between two looks at least."""
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


_LINUX: Final = MachineCalls()


class Machine:
    """The facts, as they were found when they could last be read."""

    def __init__(
        self,
        api_servers: Callable[[], Sequence[str]] = tuple,
        calls: MachineCalls = _LINUX,
        *,
        route_pause: float = _ROUTE_PAUSE,
    ) -> None:
        """`api_servers`: URLs of what stands between this node and its cluster."""
        self._calls = calls
        self._route_pause = route_pause
        self._api_servers = api_servers
        self._interfaces = Interfaces()
        self._gateways = RecentlySeen(_KEEP)
        self._gateways_due = 0.0
        self._name_servers = RecentlySeen(_KEEP)
        self._api_addresses = RecentlySeen(_KEEP_DNS)
        self.trouble = ""
        """Why the addresses cannot be read at present; "": they can."""
        self._trouble: dict[str, str] = {}

    @property
    def descriptor_limit(self) -> int:
        """How many files this process may have open."""
        return self._calls.descriptor_limit()

    @property
    def addresses(self) -> frozenset[str]:
        """Of its interfaces, in canonical form."""
        return self._interfaces.addresses

    @property
    def reserved(self) -> Mapping[str, str]:
        """Addresses that no Service may have here: see RoutingOptions."""
        broadcast = dict.fromkeys(self._interfaces.broadcast, "a broadcast address of this node")
        return broadcast | dict.fromkeys(self._gateways.items, "this node's gateway")

    @property
    def servers(self) -> Mapping[str, str]:
        """The same, but for ClusterIPs."""
        dns = dict.fromkeys(self._name_servers.items, "a DNS server of this node")
        return dns | dict.fromkeys(self._api_addresses.items, API_SERVER)

    async def look_around(self) -> None:
        """Look at everything."""
        await self.look()
        await self.look_up()

    async def look(self) -> None:
        """Look at everything but DNS, which may be slow. What cannot be read stays as it was."""
        began = time.monotonic()
        try:
            self._interfaces = await self._calls.read_interfaces()
            self._name_servers.see(await asyncio.to_thread(self._calls.name_servers), began)
        except Exception as error:
            self.trouble = f"cannot read the addresses of this machine: {error}"
            self._tell("interfaces", self.trouble)
            return
        self._read()
        if began >= self._gateways_due:
            await self._look_at_routes()

    async def _look_at_routes(self) -> None:
        began = time.monotonic()
        try:
            self._gateways.see(await asyncio.to_thread(self._calls.gateways), began)
        except Exception as error:
            self._tell("routes", f"cannot read the routes of this machine: {error}")
        now = time.monotonic()
        self._gateways_due = now + self._route_pause * (now - began)

    async def look_up(self) -> None:
        """Find out where the API server is."""
        try:
            async with asyncio.timeout(_DNS_TIMEOUT):
                found = await asyncio.to_thread(self._calls.resolve_hosts, self._api_servers())
                self._api_addresses.see(found, time.monotonic())
        except Exception as error:
            self._tell("dns", f"cannot look up the API server's address: {error or 'no answer'}")

    async def follow(self, changed: Callable[[frozenset[str]], None]) -> None:
        """Look again whenever something may have changed, for ever. `changed` is told which
        addresses are new."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_interfaces(changed), name="interfaces")
            tasks.create_task(self._follow_dns(changed), name="the API server's address")

    async def _follow_interfaces(self, changed: Callable[[frozenset[str]], None]) -> None:
        async with self._calls.monitor() as monitor:
            while True:
                await monitor.wait(_SOON if self.trouble else _PERIOD)
                before = self._interfaces, self.reserved, self.servers
                await self.look()
                if self._interfaces != before[0]:
                    log.info("the addresses of this machine have changed")
                if (self._interfaces, self.reserved, self.servers) != before:
                    changed(self.addresses - before[0].addresses)
                # Thousands of addresses that come or go one by one are thousands of news.
                await asyncio.sleep(_PAUSE)

    async def _follow_dns(self, changed: Callable[[frozenset[str]], None]) -> None:
        while True:
            await asyncio.sleep(_DNS_PERIOD)
            before = self.servers
            await self.look_up()
            if self.servers != before:
                changed(frozenset())

    def _read(self) -> None:
        """The addresses were read."""
        if self.trouble:
            log.info("the addresses of this machine can be read again")
        self.trouble = ""
        self._trouble.pop("interfaces", None)

    def _tell(self, what: str, trouble: str) -> None:
        """Once, as long as it stays the same."""
        if self._trouble.get(what) != trouble:
            self._trouble[what] = trouble
            log.warning("%s", trouble)


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
        external_ip_addresses=addresses,
        strict_source_ranges=config.strict_source_ranges,
        external_ip_cidrs=tuple(
            network for text in config.external_ip_cidrs if (network := parse_network(text))
        ),
        local_addresses=addresses,
        reserved=machine.reserved,
        servers={**held_back, **machine.servers},
        serve_unallocated=bool(config.manifests),
        frontends=frontends_for(machine.descriptor_limit, config.workers),
        service_proxy_name=config.service_proxy_name,
    )
