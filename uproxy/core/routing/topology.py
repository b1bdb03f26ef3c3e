"""Which endpoints of a service port may be used on this node.

Two steps, both as in kube-proxy: `merge` makes one list of endpoints for each service port out of
all slices; `categorize` applies readiness, traffic policies and topology hints to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Final, NamedTuple

from uproxy.core import protocols
from uproxy.core.cluster.objects import Endpoint, EndpointSlice
from uproxy.core.ip import Family, family_of, is_host_address, parse_ip
from uproxy.core.route import Backend

FAMILIES: Final[tuple[Family, ...]] = ("IPv4", "IPv6")


class PortKey(NamedTuple):
    """A service port in one address family, within one Service."""

    family: Family
    port: str
    """Name; "" for the unnamed port."""
    protocol: str


class Candidate(NamedTuple):
    """An endpoint of one service port, before policies decide whether it becomes a backend."""

    backend: Backend
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    local: bool = False
    """On this node."""
    zones: tuple[str, ...] = ()
    """Hints: zones that should use it."""
    nodes: tuple[str, ...] = ()
    """Hints: nodes that should use it."""

    @property
    def draining(self) -> bool:
        """Terminating but still serving: the last resort of KEP-1669."""
        return self.serving and self.terminating


class Merged(NamedTuple):
    """All endpoints of one Service."""

    ports: Mapping[PortKey, tuple[Candidate, ...]]
    """Sorted, so that equal sets are equal tuples."""
    unparsable: tuple[str, ...] = ()
    """Addresses that are none, not of their slice's family, or not of one host; they were left
    out."""


class Policies(NamedTuple):
    """What decides about the sets that a service port needs."""

    internal_local: bool = False
    """internalTrafficPolicy Local."""
    external_local: bool = False
    """externalTrafficPolicy Local."""
    external: bool = False
    """Whether it is reachable from outside: NodePort, external IP or load-balancer VIP."""

    @property
    def uses_cluster(self) -> bool:
        return not self.internal_local or self.external

    @property
    def uses_local(self) -> bool:
        return self.internal_local or (self.external_local and self.external)


class Usable(NamedTuple):
    """The endpoints of a service port that may be used. What can be reached at all is the union."""

    cluster: tuple[Backend, ...] | None
    """For policy Cluster; None: no client is under that policy."""
    local: tuple[Backend, ...] | None
    """For policy Local; None: no client is under that policy."""
    anywhere: bool
    """Whether any node has a usable endpoint: an empty set then is due to policy alone."""


def merge(slices: Sequence[EndpointSlice], node_name: str) -> Merged:
    """Make one sorted list for each service port out of all slices of one Service.

    Where two slices have the same address and port, a terminating endpoint gives way to one that
    is not (a pod's IP may be reused at once); apart from that the later slice counts.
    """
    found: dict[PortKey, dict[Backend, Candidate]] = {}
    unparsable: list[str] = []
    for family, each in product(FAMILIES, slices):
        if each.address_type != family:
            continue
        ports = list(_ports(each, family))
        for endpoint in each.endpoints or ():
            address = _address(endpoint, family, unparsable)
            if address is not None:
                _add(found, ports, _candidate(endpoint, address, node_name))
    ordered = {key: tuple(sorted(by.values())) for key, by in found.items()}
    return Merged(ordered, tuple(unparsable))


def categorize(
    candidates: Sequence[Candidate], policies: Policies, *, node_name: str, zone: str
) -> Usable:
    """Decide about the endpoints of one service port (kube-proxy's CategorizeEndpoints).

    Each set falls back on its own to endpoints that drain when it has no ready one (KEP-1669).
    Topology hints matter for the cluster set and only among ready endpoints.
    """
    ready = [each for each in candidates if each.ready]
    cluster = local = None
    if policies.uses_cluster:
        cluster = _near(ready, node_name, zone) or [each for each in candidates if each.draining]
    if policies.uses_local:
        local = [each for each in ready if each.local] or [
            each for each in candidates if each.local and each.draining
        ]
    anywhere = bool(ready) or any(each.draining for each in candidates)
    return Usable(_backends(cluster), _backends(local), anywhere)


def local_ready_ips(merged: Merged) -> dict[Family, set[str]]:
    """Addresses on this node that are ready, whatever the port: what health node ports count."""
    found: dict[Family, set[str]] = {family: set() for family in FAMILIES}
    for key, candidates in merged.ports.items():
        found[key.family].update(c.backend.address for c in candidates if c.local and c.ready)
    return found


def _near(ready: list[Candidate], node_name: str, zone: str) -> list[Candidate]:
    """Apply hints: for this node, else for its zone, else none (PreferSameNode and -Zone).

    A single endpoint without a hint switches that kind of hint off, since its controller may
    just not have got round to all of them.
    """
    if all(each.nodes for each in ready):
        hinted = [each for each in ready if node_name in each.nodes]
        if hinted:
            return hinted
    if zone and all(each.zones for each in ready):
        hinted = [each for each in ready if zone in each.zones]
        if hinted:
            return hinted
    return ready


def _backends(chosen: list[Candidate] | None) -> tuple[Backend, ...] | None:
    return None if chosen is None else tuple([each.backend for each in chosen])


def _ports(each: EndpointSlice, family: Family) -> Iterator[tuple[PortKey, int]]:
    for port in each.ports or ():
        if port.name is not None and port.port:
            yield PortKey(family, port.name, port.protocol or protocols.DEFAULT), port.port


def _address(endpoint: Endpoint, family: Family, unparsable: list[str]) -> str | None:
    if not endpoint.addresses:
        return None
    address = parse_ip(endpoint.addresses[0])
    if address is None or family_of(address) != family or not is_host_address(address):
        unparsable.append(endpoint.addresses[0])
        return None
    return address


def _candidate(endpoint: Endpoint, address: str, node_name: str) -> Candidate:
    conditions, hints = endpoint.conditions, endpoint.hints
    zones = hints.for_zones if hints is not None else None
    nodes = hints.for_nodes if hints is not None else None
    return Candidate(
        Backend(address, 0),
        conditions.ready is not False,
        conditions.serving is not False,
        conditions.terminating is True,
        bool(node_name) and endpoint.node_name == node_name,
        tuple(each.name for each in zones) if zones else (),
        tuple(each.name for each in nodes) if nodes else (),
    )


def _add(
    found: dict[PortKey, dict[Backend, Candidate]],
    ports: list[tuple[PortKey, int]],
    candidate: Candidate,
) -> None:
    for key, number in ports:
        backend = Backend(candidate.backend.address, number)
        of_port = found.setdefault(key, {})
        stored = of_port.get(backend)
        if stored is None or stored.terminating or not candidate.terminating:
            of_port[backend] = Candidate(backend, *candidate[1:])
