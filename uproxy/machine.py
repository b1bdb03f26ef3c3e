"""What is true of this machine: its addresses, and those that it needs others to have."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from uproxy.addresses import (
    AddressMonitor,
    Interfaces,
    gateways,
    interfaces,
    name_servers,
    resolved,
)
from uproxy.config import Config
from uproxy.core.ip import parse_network
from uproxy.core.nodeports import resolve_nodeport_addresses
from uproxy.core.options import RoutingOptions
from uproxy.core.reserved import API_SERVER
from uproxy.core.state import NodeFacts

log = logging.getLogger(__name__)

_PERIOD: Final = 10.0
"""Seconds after which interfaces and routes are looked at without news."""
_SOON: Final = 1.0
"""The same, after they could not be read."""
_DNS_PERIOD: Final = 60.0
"""Seconds between two look-ups of the API server's name."""
_DNS_TIMEOUT: Final = 5.0
"""Seconds that a look-up may hold up the start."""


class Machine:
    """The facts, as they were found when they could last be read."""

    def __init__(self, api_servers: Callable[[], Sequence[str]] = tuple) -> None:
        """`api_servers`: URLs of what stands between this node and its cluster."""
        self._api_servers = api_servers
        self._interfaces = Interfaces()
        self._gateways: frozenset[str] = frozenset()
        self._name_servers: frozenset[str] = frozenset()
        self._api_addresses: frozenset[str] = frozenset()
        self.trouble = ""
        """Why the addresses cannot be read at present; "": they can."""
        self._trouble: dict[str, str] = {}

    @property
    def addresses(self) -> frozenset[str]:
        """Of its interfaces, in canonical form."""
        return self._interfaces.addresses

    @property
    def hosts(self) -> Mapping[str, str]:
        """Addresses that no Service may have here: see RoutingOptions."""
        broadcast = dict.fromkeys(self._interfaces.broadcast, "a broadcast address of this node")
        return broadcast | dict.fromkeys(self._gateways, "this node's gateway")

    @property
    def servers(self) -> Mapping[str, str]:
        """The same, but for ClusterIPs."""
        dns = dict.fromkeys(self._name_servers, "a DNS server of this node")
        return dns | dict.fromkeys(self._api_addresses, API_SERVER)

    async def look_around(self) -> None:
        """Look at everything."""
        await self.look()
        await self.look_up()

    async def look(self) -> None:
        """Look at everything but DNS, which may be slow. What cannot be read stays as it was."""
        try:
            self._interfaces = await interfaces()
            self._name_servers = await asyncio.to_thread(name_servers)
        except Exception as error:
            self.trouble = f"cannot read the addresses of this machine: {error}"
            self._tell("interfaces", self.trouble)
            return
        self._read()
        try:
            self._gateways = await asyncio.to_thread(gateways)
        except Exception as error:
            self._tell("routes", f"cannot read the routes of this machine: {error}")

    async def look_up(self) -> None:
        """Find out where the API server is."""
        try:
            async with asyncio.timeout(_DNS_TIMEOUT):
                self._api_addresses = await asyncio.to_thread(resolved, self._api_servers())
        except Exception as error:
            self._tell("dns", f"cannot tell the API server's address: {error or 'no answer'}")

    async def follow(self, changed: Callable[[frozenset[str]], None]) -> None:
        """Look again whenever something may have changed, for ever. `changed` is told which
        addresses are new."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_interfaces(changed), name="interfaces")
            tasks.create_task(self._follow_dns(changed), name="the API server's address")

    async def _follow_interfaces(self, changed: Callable[[frozenset[str]], None]) -> None:
        async with AddressMonitor() as monitor:
            while True:
                await monitor.wait(_SOON if self.trouble else _PERIOD)
                before = self._interfaces, self.hosts, self.servers
                await self.look()
                if self._interfaces != before[0]:
                    log.info("the addresses of this machine have changed")
                if (self._interfaces, self.hosts, self.servers) != before:
                    changed(self.addresses - before[0].addresses)

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
    """What routing depends on besides the cluster. `held_back`: see Lookout."""
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
        hosts=machine.hosts,
        servers={**held_back, **machine.servers},
        serve_unallocated=bool(config.manifests),
        service_proxy_name=config.service_proxy_name,
    )
