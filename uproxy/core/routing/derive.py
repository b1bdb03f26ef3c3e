"""The routes that one Service wants, from its objects alone; other Services play no part here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, Literal, NamedTuple

from uproxy.core.cluster.host_addresses import HostAddresses
from uproxy.core.cluster.objects import EndpointSlice, ObjectName, Service, ServicePort
from uproxy.core.cluster.state import NodeFacts
from uproxy.core.ip import Family, family_of
from uproxy.core.protocols import SERVED, TCP, TRANSPORTS
from uproxy.core.route import (
    Backend,
    BalancerKind,
    Frontend,
    FrontendKind,
    ProxyProtocol,
    Route,
    ServicePortName,
)
from uproxy.core.routing import service_limits
from uproxy.core.routing.annotations import BALANCER, PROXY_PROTOCOL, choice, no_header_reasons
from uproxy.core.routing.frontends import Addresses, addresses_of, skip_reason
from uproxy.core.routing.loops import backend_ports, has_local_backend
from uproxy.core.routing.options import RoutingOptions
from uproxy.core.routing.sourceranges import SourceRanges
from uproxy.core.routing.topology import (
    Candidate,
    Merged,
    Policies,
    PortKey,
    Usable,
    categorize,
    local_ready_ips,
    merge,
)

_DEFAULT_AFFINITY: Final = 10800
"""Seconds; the API's default (3 h)."""
_NO_TIMESTAMP: Final = "~"
"""Sorts after every RFC 3339 time."""

PolicySide = Literal["internal", "external"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheck:
    """A healthCheckNodePort: an HTTP server that tells load balancers about local endpoints."""

    service: ObjectName
    frontends: tuple[Frontend, ...]
    """Where it listens: the port at every NodePort address of the Service's families."""
    port: int
    counts: Mapping[Family, int]
    """Ready endpoints on this node, by address, for the families of the Service."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRoutes:
    """What one Service wants; another one may have a frontend instead."""

    service: ObjectName
    created: str = _NO_TIMESTAMP
    """Orders Services by age; one without a timestamp counts as the newest."""
    routes: tuple[Route, ...] = ()
    """In the order of its ports. Two ports may want the same frontend; the first has it."""
    reasons: tuple[str, ...] = ()
    """Why it is not, or only partly, served; one sentence each."""
    health_check: HealthCheck | None = None
    has_local_backend: bool = False
    """Whether a backend has an address of this node, where a wildcard frontend might listen."""
    backend_ports: tuple[int, ...] = ()
    """All ports that its backends have."""
    no_local: tuple[tuple[PolicySide, Family], ...] = ()
    """Once for each service port and family whose policy Local leaves no endpoint here, though
    there are some elsewhere."""


Places = Mapping[Family, list[tuple[FrontendKind, str]]]
"""What a Service may be reached at in each of its families, apart from NodePorts."""


class _Settings(NamedTuple):
    """What all ports of a Service have in common."""

    affinity_timeout: int
    balancer: BalancerKind
    proxy_protocol: ProxyProtocol | None
    ranges: SourceRanges
    node_addresses: tuple[str, ...]


class _Port(NamedTuple):
    """One service port in one family, decided."""

    name: ServicePortName
    family: Family
    policies: Policies
    candidates: tuple[Candidate, ...]
    usable: Usable


def derive(
    service: Service,
    slices: Sequence[EndpointSlice],
    node: NodeFacts,
    options: RoutingOptions,
    hosts: HostAddresses,
) -> ServiceRoutes:
    """Everything that a Service wants on this node, with a reason for whatever it cannot have."""
    created = service.metadata.creation_timestamp or _NO_TIMESTAMP
    skip = skip_reason(service, options)
    if skip:
        return ServiceRoutes(service=service.key, created=created, reasons=(skip,))
    addresses = addresses_of(service, slices, options, hosts)
    merged = merge(slices, node.name)
    settings, reasons = _settings(service, node, options)
    places = {family: addresses.of(family) for family in addresses.families}
    most = _most(settings, options)
    ports = list(islice(_ports(service, places, merged, node), most))
    all_routes = (
        route
        for port, spec in ports
        for route in _routes(port, spec, places[port.family], settings, options)
    )
    routes = tuple(islice(all_routes, most))
    reasons = [*addresses.reasons, *reasons, *_port_reasons(service, options)]
    if len(routes) == most:
        reasons += service_limits.left_out(_total(service, places, options), most)
    reasons += [f'endpoint address "{text}" cannot be used' for text in merged.unparsable]
    if not routes and not reasons:
        reasons.append("no clusterIP, externalIP, load-balancer IP or nodePort to listen on")
    return ServiceRoutes(
        service=service.key,
        created=created,
        routes=routes,
        reasons=service_limits.few(reasons),
        health_check=_health_check(service, addresses, merged, options),
        has_local_backend=has_local_backend(routes, options.local_addresses),
        backend_ports=backend_ports(routes),
        no_local=tuple(side for port, _ in ports for side in _no_local(port)),
    )


def _settings(
    service: Service, node: NodeFacts, options: RoutingOptions
) -> tuple[_Settings, list[str]]:
    ranges = SourceRanges.parse(service.spec.load_balancer_source_ranges or ())
    reasons = [f'loadBalancerSourceRanges: "{text}" is not a CIDR' for text in ranges.unparsable]
    if ranges.unparsable and not ranges.networks:
        reasons.append("loadBalancerSourceRanges has no valid entry: nobody is let in")
    balancer = choice(service, BALANCER, BalancerKind, reasons) or options.balancer
    header = choice(service, PROXY_PROTOCOL, ProxyProtocol, reasons)
    reasons += no_header_reasons(service, header)
    # Without a Node object the machine itself says what its addresses are.
    node_addresses = node.addresses or tuple(sorted(options.local_addresses))
    timeout = _affinity_timeout(service)
    return _Settings(timeout, balancer, header, ranges, node_addresses), reasons


def _most(settings: _Settings, options: RoutingOptions) -> int:
    ranges = len(settings.ranges.networks)
    each = ranges + len(options.local_addresses) if ranges else 0
    return service_limits.frontends(options.frontends, each)


def _total(service: Service, places: Places, options: RoutingOptions) -> int:
    """How many frontends it has."""
    ports = [port for port in service.ports if port.protocol in SERVED]
    node_ports = sum(1 for port in ports if port.node_port)
    nodes = sum(family_of(address) in places for address in options.nodeport_addresses)
    return len(ports) * sum(map(len, places.values())) + node_ports * nodes


def _affinity_timeout(service: Service) -> int:
    if service.spec.session_affinity != "ClientIP":
        return 0
    config = service.spec.session_affinity_config
    client_ip = config.client_ip if config is not None else None
    seconds = client_ip.timeout_seconds if client_ip is not None else None
    return seconds or _DEFAULT_AFFINITY


def _port_reasons(service: Service, options: RoutingOptions) -> Iterator[str]:
    for port in service.ports:
        label = f'port "{port.name or port.port}"'
        if port.protocol not in SERVED:
            served = " and ".join(SERVED)
            yield f"{label}: protocol {port.protocol} is not supported, only {served} are"
        elif options.serve_unallocated and service.spec.type == "NodePort" and not port.node_port:
            yield f"{label}: type NodePort without a nodePort, and nobody here assigns one"


def _ports(
    service: Service, places: Places, merged: Merged, node: NodeFacts
) -> Iterator[tuple[_Port, ServicePort]]:
    spec = service.spec
    external = {
        family: any(kind is not FrontendKind.CLUSTER_IP for kind, _ in found)
        for family, found in places.items()
    }
    for port in service.ports:
        if port.protocol not in SERVED:
            continue
        for family in places:
            policies = Policies(
                internal_local=spec.internal_traffic_policy == "Local",
                external_local=spec.external_traffic_policy == "Local",
                external=port.node_port != 0 or external[family],
            )
            candidates = merged.ports.get(PortKey(family, port.name, port.protocol), ())
            usable = categorize(candidates, policies, node_name=node.name, zone=node.zone)
            name = ServicePortName(*service.key, port.name, port.protocol)
            yield _Port(name, family, policies, candidates, usable), port


def _routes(
    port: _Port,
    spec: ServicePort,
    places: list[tuple[FrontendKind, str]],
    settings: _Settings,
    options: RoutingOptions,
) -> Iterator[Route]:
    transport, serving = TRANSPORTS[spec.protocol], _serving(port)
    for kind, address, number in _frontends(port.family, spec, places, options):
        backends, local_backends = _sets(port, kind)
        allowed = None
        if _is_filtered(kind, options):
            allowed = settings.ranges.allowed_at(
                address,
                settings.node_addresses,
                interface_addresses=options.local_addresses,
                strict=options.strict_source_ranges,
            )
        yield Route(
            frontend=Frontend(spec.protocol, address, number),
            owner=port.name,
            kind=kind,
            backends=backends,
            local_backends=local_backends,
            serving=serving,
            affinity_timeout=settings.affinity_timeout,
            balancer=settings.balancer,
            allowed_sources=allowed,
            reason=_reason(port, kind),
            proxy_protocol=settings.proxy_protocol if transport.may_have_proxy_header else None,
        )


def _is_filtered(kind: FrontendKind, options: RoutingOptions) -> bool:
    """Whether loadBalancerSourceRanges apply."""
    if options.strict_source_ranges:
        return kind is not FrontendKind.CLUSTER_IP
    return kind is FrontendKind.LOAD_BALANCER_IP


def _frontends(
    family: Family,
    spec: ServicePort,
    places: list[tuple[FrontendKind, str]],
    options: RoutingOptions,
) -> Iterator[tuple[FrontendKind, str, int]]:
    """Each frontend of a port once, whatever the number of fields that ask for it."""
    seen: set[tuple[str, int]] = set()
    for kind, address in places:
        seen.add((address, spec.port))
        yield kind, address, spec.port
    if spec.node_port:
        for address in options.nodeport_addresses:
            if family_of(address) == family and (address, spec.node_port) not in seen:
                yield FrontendKind.NODE_PORT, address, spec.node_port


def _sets(
    port: _Port, kind: FrontendKind
) -> tuple[tuple[Backend, ...], tuple[Backend, ...] | None]:
    """Backends for all clients, or for nearby and for outside ones: the policy of each side."""
    cluster, local = port.usable.cluster or (), port.usable.local or ()
    if kind is FrontendKind.CLUSTER_IP:
        return (local if port.policies.internal_local else cluster), None
    return cluster, (local if port.policies.external_local else None)


def _reason(port: _Port, kind: FrontendKind) -> str:
    """Why a frontend's set, or the set for its outside clients, is empty."""
    if not port.candidates:
        return "no endpoints"
    if not port.usable.anywhere:
        return "no ready endpoints"
    internal = kind is FrontendKind.CLUSTER_IP
    wants_local = port.policies.internal_local if internal else port.policies.external_local
    if not wants_local or port.usable.local:
        return ""
    ready = "ready " if any(each.local for each in port.candidates) else ""
    lack = f"TrafficPolicy Local and no {ready}endpoint on this node"
    if internal:
        return f"internal{lack}"
    return f"external{lack}: only this node and its pods are served"


def _serving(port: _Port) -> tuple[Backend, ...]:
    """Endpoints whose UDP flows stay (kube-proxy's conntrack rule, which asks for `serving`).

    A ready one counts too: with publishNotReadyAddresses it may be ready and not serving, and
    its flows would be cut at each change only to begin anew with the same backend.
    """
    if TRANSPORTS[port.name.protocol].flows_end:
        return ()
    return tuple(each.backend for each in port.candidates if each.serving or each.ready)


def _no_local(port: _Port) -> Iterator[tuple[PolicySide, Family]]:
    if port.usable.anywhere and port.usable.local == ():
        if port.policies.internal_local:
            yield "internal", port.family
        if port.policies.external_local and port.policies.external:
            yield "external", port.family


def _health_check(
    service: Service, addresses: Addresses, merged: Merged, options: RoutingOptions
) -> HealthCheck | None:
    spec = service.spec
    number = spec.health_check_node_port
    if spec.type != "LoadBalancer" or spec.external_traffic_policy != "Local" or not number:
        return None
    ready = local_ready_ips(merged)
    return HealthCheck(
        service=service.key,
        frontends=tuple(
            Frontend(TCP, address, number)
            for address in options.nodeport_addresses
            if family_of(address) in addresses.families
        ),
        port=number,
        counts={family: len(ready[family]) for family in addresses.families},
    )
