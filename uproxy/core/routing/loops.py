"""The loop guard, which removes backends that are frontends of uproxy itself.

uproxy would connect to itself, again and again, until every descriptor is used up. A backend can be
a frontend in three ways:

 * It has exactly the address and port of a frontend.
 * It has the port of a wildcard frontend (0.0.0.0 or ::) and an address of this node. Addresses of
   frontends are of this node as well, since those that no interface has are claimed.
 * It has the port of a NodePort and the address of any node. Two nodes that each have the other's
   NodePort for a backend would pass a flow back and forth.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import TypeVar

import msgspec

from uproxy.core.cluster.host_addresses import HostAddresses
from uproxy.core.ip import family_of
from uproxy.core.protocols import SERVED
from uproxy.core.route import Backend, Frontend, FrontendKind, Route
from uproxy.core.routing.nodeports import ANY

_WILDCARDS = frozenset(ANY.values())
_K = TypeVar("_K", str, int, tuple[str, int])


def has_local_backend(routes: Iterable[Route], local_addresses: Container[str]) -> bool:
    """Whether a backend has an address of this node, and so may be a wildcard frontend."""
    return any(
        _is_local(backend.address, local_addresses)
        for backends in backend_sets(routes)
        for backend in backends
    )


def backend_ports(routes: Iterable[Route]) -> tuple[int, ...]:
    """The ports that backends have, each once. Few Services have more than a few."""
    found = backend_sets(routes)
    return tuple(sorted({backend.port for backends in found for backend in backends}))


@dataclass(slots=True)
class FrontendIndex:
    """All frontends, counted by what the loop guard looks them up by."""

    addresses: dict[str, int] = field(default_factory=dict)
    """Number of frontends by address, wildcards apart."""
    wildcard_ports: dict[int, int] = field(default_factory=dict)
    """Number of wildcard frontends by port."""
    node_ports: dict[tuple[str, int], int] = field(default_factory=dict)
    """Number of NodePort frontends by protocol and port."""

    def copy(self) -> FrontendIndex:
        return FrontendIndex(
            self.addresses.copy(), self.wildcard_ports.copy(), self.node_ports.copy()
        )

    def count(self, route: Route, change: int) -> None:
        """Add a frontend (`change` is 1) or remove it (-1)."""
        frontend = route.frontend
        if route.kind is FrontendKind.NODE_PORT:
            _count(self.node_ports, (frontend.protocol, frontend.port), change)
        if frontend.address in _WILDCARDS:
            _count(self.wildcard_ports, frontend.port, change)
        else:
            _count(self.addresses, frontend.address, change)


def guarded(
    route: Route,
    frontends: Container[Frontend],
    local_addresses: Container[str],
    index: FrontendIndex,
    hosts: HostAddresses,
) -> Route:
    """The route without the backends that are frontends of uproxy; itself if it has none.

    `index` counts `frontends`, and `hosts` has the addresses of all nodes.
    """
    protocol = route.frontend.protocol
    addresses, node_ports = index.addresses, index.node_ports

    def loops(backend: Backend) -> bool:
        if Frontend(protocol, *backend) in frontends:
            return True
        address = backend.address
        if address not in addresses and not _is_local(address, local_addresses):
            return (protocol, backend.port) in node_ports and bool(hosts.host_of(address))
        return Frontend(protocol, ANY[family_of(backend.address)], backend.port) in frontends

    bad = dict.fromkeys(filter(loops, (*route.backends, *(route.local_backends or ()))))
    if not bad:
        return route
    named = ", ".join(str(backend) for backend in bad)
    left_out = f"backends that are frontends of uproxy itself are left out: {named}"
    local = route.local_backends
    return msgspec.structs.replace(
        route,
        backends=_without(route.backends, bad),
        local_backends=None if local is None else _without(local, bad),
        reason="; ".join(filter(None, (route.reason, left_out))),
    )


class ChangedFrontends:
    """Frontends that are new, or that are gone, and which Services that may affect.

    The test is quick, and may say yes although nothing is affected: `guarded` decides.
    """

    def __init__(
        self, frontends: Collection[Frontend], index: FrontendIndex, hosts: HostAddresses
    ) -> None:
        """`index` counts all frontends, including these."""
        self._index = index
        self._hosts = hosts
        self._wildcard = any(frontend.address in _WILDCARDS for frontend in frontends)
        self._exact: dict[str, set[tuple[str, int]]] = {name: set() for name in SERVED}
        for protocol, address, port in frontends:
            self._exact[protocol].add((address, port))
        self._ports = {frontend.port for frontend in frontends}

    def may_affect(
        self, routes: tuple[Route, ...], *, has_local_backend: bool, ports: tuple[int, ...]
    ) -> bool:
        """Whether the loop guard has to check the routes of one Service again. The functions
        `has_local_backend` and `backend_ports` give the other two arguments."""
        if has_local_backend and self._wildcard:
            return True
        wildcards = [port for port in ports if port in self._index.wildcard_ports]
        # Nearly every Service ends here, since Services listen on other ports than their pods.
        if not wildcards and self._ports.isdisjoint(ports):
            return False
        protocol: str | None = None
        seen: tuple[Backend, ...] | None = None
        # Frontends of one service port share their tuples. Skipping those halves the time.
        for route in routes:
            for backends in (route.backends, route.local_backends):
                if backends and not (backends is seen and route.frontend.protocol == protocol):
                    protocol, seen = route.frontend.protocol, backends
                    if not self._exact[protocol].isdisjoint(backends):
                        return True
                    if wildcards and self._meets_wildcard(backends):
                        return True
                    if self._meets_node(protocol, backends):
                        return True
        return False

    def _meets_wildcard(self, backends: tuple[Backend, ...]) -> bool:
        addresses, ports = self._index.addresses, self._index.wildcard_ports
        return any(each.port in ports and each.address in addresses for each in backends)

    def _meets_node(self, protocol: str, backends: tuple[Backend, ...]) -> bool:
        ports, node_ports, hosts = self._ports, self._index.node_ports, self._hosts
        return any(
            each.port in ports
            and (protocol, each.port) in node_ports
            and hosts.host_of(each.address)
            for each in backends
        )


def may_be_node_ports(ports: Iterable[int], index: FrontendIndex) -> bool:
    """Whether backends with these ports may be NodePorts at addresses of nodes."""
    node_ports = index.node_ports
    return any((name, port) in node_ports for name, port in product(SERVED, ports))


def _count(counts: dict[_K, int], key: _K, change: int) -> None:
    count = counts.get(key, 0) + change
    if count:
        counts[key] = count
    else:
        del counts[key]


def backend_sets(routes: Iterable[Route]) -> Iterator[tuple[Backend, ...]]:
    """The sets of backends that routes have. Neighbours that share a set yield it once."""
    seen: tuple[Backend, ...] | None = None
    for route in routes:
        for backends in (route.backends, route.local_backends):
            if backends and backends is not seen:
                seen = backends
                yield backends


def _is_local(address: str, local_addresses: Container[str]) -> bool:
    return address in local_addresses or address.startswith("127.") or address == "::1"


def _without(backends: tuple[Backend, ...], bad: Container[Backend]) -> tuple[Backend, ...]:
    return tuple(backend for backend in backends if backend not in bad)
