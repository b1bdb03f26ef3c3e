"""Which endpoints of a service port may be used on this node.

There are two steps, both with kube-proxy's rules (pkg/proxy: endpointslicecache.go, topology.go).
`merge` makes one list of endpoints for each service port out of all EndpointSlices of a Service.
`categorize` applies readiness, traffic policies and topology hints to such a list.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Final, NamedTuple

from uproxy.core import protocols
from uproxy.core.cluster.objects import Endpoint, EndpointSlice
from uproxy.core.ip import FAMILIES, Family, family_of, is_host_address, parse_ip
from uproxy.core.route import Backend

_UNKNOWN: Final = Endpoint()


class PortKey(NamedTuple):
    """A service port in one address family, within one Service.

    The protocol is part of it: TCP and UDP may share a port name, and have their own endpoints.
    """

    family: Family
    port: str
    """Name of the port; "" for the only, unnamed one."""
    protocol: str


class Candidate(NamedTuple):
    """An endpoint of one service port, before policies decide whether it becomes a backend.

    `ready`, `serving` and `terminating` are the conditions of the EndpointSlice. `ready` is false
    while a pod terminates, unless its Service has publishNotReadyAddresses.
    """

    backend: Backend
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    local: bool = False
    """Whether it is on this node."""
    zones: tuple[str, ...] = ()
    """hints.forZones: the zones that should use it."""
    nodes: tuple[str, ...] = ()
    """hints.forNodes: the nodes that should use it."""
    endpoint: Endpoint = _UNKNOWN
    """What the EndpointSlice says about it."""

    @property
    def serving_terminating(self) -> bool:
        """Whether its pod terminates and still answers: used when nothing is ready (KEP-1669)."""
        return self.serving and self.terminating


class Merged(NamedTuple):
    """All endpoints of one Service."""

    ports: Mapping[PortKey, tuple[Candidate, ...]]
    """Each tuple is sorted, so that equal sets are equal tuples."""
    unparsable: tuple[str, ...] = ()
    """Addresses that were left out: text that is not an IP address, an address of another family
    than the slice's addressType, and one that is not the address of a host."""


class Policies(NamedTuple):
    """What decides which sets of backends a service port needs."""

    internal_local: bool = False
    """Whether internalTrafficPolicy is Local (KEP-2086)."""
    external_local: bool = False
    """Whether externalTrafficPolicy is Local."""
    external: bool = False
    """Whether it is reachable from outside, by NodePort, external IP or load-balancer IP."""

    @property
    def uses_cluster(self) -> bool:
        """Whether some client may use endpoints of the whole cluster.

        With externalTrafficPolicy Local too, as this node and its pods may.
        """
        return not self.internal_local or self.external

    @property
    def uses_local(self) -> bool:
        """Whether some client may use endpoints of this node only. externalTrafficPolicy means
        nothing for a port that is not reachable from outside."""
        return self.internal_local or (self.external_local and self.external)


class Usable(NamedTuple):
    """The endpoints of a service port that may be used, in a set for each policy."""

    cluster: tuple[Backend, ...] | None
    """For policy Cluster; None if it concerns no client."""
    local: tuple[Backend, ...] | None
    """For policy Local; None if it concerns no client."""
    anywhere: bool
    """Whether any node has a usable endpoint. If so, the policy is the only cause of an empty
    set (kube-proxy drops such traffic, and rejects it where no node has an endpoint)."""


def merge(slices: Sequence[EndpointSlice], node_name: str) -> Merged:
    """Make one sorted list for each service port out of all slices of one Service.

    Two slices may have the same address and port, while an endpoint moves between slices and when
    a new pod gets the IP address of one that terminates. The endpoint that does not terminate
    counts then, otherwise that of the later slice (as in kube-proxy's endpointInfoByServicePort).
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

    A set without a ready endpoint falls back to those that terminate and still serve (KEP-1669),
    independently of the other set. Topology hints apply to the cluster set, among ready endpoints.
    `zone` is this node's label topology.kubernetes.io/zone, "" without one.
    """
    ready = [each for each in candidates if each.ready]
    cluster = local = None
    if policies.uses_cluster:
        cluster = _hinted(ready, node_name, zone) or [
            each for each in candidates if each.serving_terminating
        ]
    if policies.uses_local:
        local = [each for each in ready if each.local] or [
            each for each in candidates if each.local and each.serving_terminating
        ]
    anywhere = bool(ready) or any(each.serving_terminating for each in candidates)
    return Usable(_backends(cluster), _backends(local), anywhere)


def local_ready_ips(merged: Merged) -> dict[Family, set[str]]:
    """Addresses of ready endpoints on this node, each once, whatever its port.

    Their number is what a healthCheckNodePort reports. Terminating endpoints do not count, though
    they may still get traffic: load balancers are to go elsewhere before they end (KEP-1669).
    """
    found: dict[Family, set[str]] = {family: set() for family in FAMILIES}
    for key, candidates in merged.ports.items():
        found[key.family].update(c.backend.address for c in candidates if c.local and c.ready)
    return found


def _hinted(ready: list[Candidate], node_name: str, zone: str) -> list[Candidate]:
    """The endpoints that are hinted to this node, else those for its zone, else all.

    The EndpointSlice controller writes hints for spec.trafficDistribution: PreferSameNode
    (KEP-3015), PreferSameZone and PreferClose (KEP-4444). A single endpoint without a hint
    switches that kind of hint off, as the controller may still be writing the others.
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
    """The service ports that a slice has endpoints for, each with the number at its endpoints.

    A port without a name or number is not for Services, and kube-proxy ignores it too.
    """
    for port in each.ports or ():
        if port.name is not None and port.port:
            yield PortKey(family, port.name, port.protocol or protocols.DEFAULT), port.port


def _address(endpoint: Endpoint, family: Family, unparsable: list[str]) -> str | None:
    """The endpoint's address in canonical form; None if it has none that can be used.

    Only the first counts, as in kube-proxy: the API says that consumers may ignore the others.
    """
    if not endpoint.addresses:
        return None
    address = parse_ip(endpoint.addresses[0])
    if address is None or family_of(address) != family or not is_host_address(address):
        unparsable.append(endpoint.addresses[0])
        return None
    return address


def _candidate(endpoint: Endpoint, address: str, node_name: str) -> Candidate:
    """An endpoint as a candidate, with port 0, which stands for any.

    By the API, a missing condition `ready` or `serving` means true, and a missing `terminating`
    means false. An endpoint without nodeName is not on this node.
    """
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
        endpoint,
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
