"""The routes that one Service wants, from its objects alone; other Services play no part here."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple

from uproxy.core.cluster.host_addresses import HostAddresses
from uproxy.core.cluster.objects import EndpointSlice, Service, ServicePort
from uproxy.core.cluster.state import NodeFacts
from uproxy.core.ip import Family, family_of
from uproxy.core.protocols import SERVED, TCP, TRANSPORTS
from uproxy.core.route import (
    Announced,
    Backend,
    BalancerKind,
    ClientIPMode,
    Frontend,
    FrontendKind,
    ProxyProtocol,
    Route,
)
from uproxy.core.routing import service_limits
from uproxy.core.routing.annotations import annotated
from uproxy.core.routing.frontends import Addresses, addresses_of, skip_reason
from uproxy.core.routing.loops import backend_ports, has_local_backend
from uproxy.core.routing.options import RoutingOptions
from uproxy.core.routing.port_backends import AddressesByFamily, PortBackends, port_backends
from uproxy.core.routing.service_routes import NO_TIMESTAMP, HealthCheck, ServiceRoutes
from uproxy.core.routing.sourceranges import SourceRanges
from uproxy.core.routing.topology import Merged, local_ready_ips, merge

_DEFAULT_AFFINITY: Final = 10800
"""Seconds; what the API server fills in for sessionAffinityConfig.clientIP.timeoutSeconds (3 h)."""

_NAMED: Final = 3
"""How many ports a reason names, if it holds for many."""

NOWHERE: Final = "it has no clusterIP, externalIP, load-balancer IP or nodePort to listen on"
_BAD_ENDPOINT: Final = "not a host address of its slice's addressType; it is left out"


class _Settings(NamedTuple):
    """What all ports of a Service have in common."""

    affinity_timeout: int
    balancer: BalancerKind
    proxy_protocol: ProxyProtocol | None
    no_header: str
    """Why the ports that may have a PROXY header refuse their clients; "": they do not."""
    client_ip: ClientIPMode
    ranges: SourceRanges
    node_addresses: tuple[str, ...]
    announced: frozenset[str]
    """Which addresses of the Service are announced."""


def derive(
    service: Service,
    slices: Sequence[EndpointSlice],
    node: NodeFacts,
    options: RoutingOptions,
    hosts: HostAddresses,
) -> ServiceRoutes:
    """Everything that a Service wants on this node, with a reason for whatever it cannot have.

    `slices` are the EndpointSlices of the Service, `node` is this node, and `hosts` has addresses
    of machines, which no Service may take from them.
    """
    created = service.metadata.creation_timestamp or NO_TIMESTAMP
    skip = skip_reason(service, options)
    if skip:
        return ServiceRoutes(service=service.key, created=created, reasons=(skip,))
    addresses = addresses_of(service, slices, options, hosts)
    merged = merge(slices, node.name)
    announced = frozenset(filter(_can_be_announced, addresses.assigned))
    settings, reasons = _settings(service, node, options, announced)
    by_family = {family: addresses.of(family) for family in addresses.families}
    most = _most(settings, options)
    ports = list(islice(port_backends(service, by_family, merged, node), most))
    all_routes = (
        route
        for port, spec in ports
        for route in _routes(port, spec, by_family[port.family], settings, options)
    )
    routes = tuple(islice(all_routes, most))
    reasons = [*addresses.reasons, *reasons, *_port_reasons(service, options)]
    if len(routes) == most:
        reasons += service_limits.left_out_reasons(_total(service, by_family, options), most)
    reasons += [f'endpoint address "{text}" is {_BAD_ENDPOINT}' for text in merged.unparsable]
    if not routes and not reasons:
        reasons.append(_nowhere(service))
    return ServiceRoutes(
        service=service.key,
        created=created,
        routes=routes,
        reasons=service_limits.shortened(reasons),
        health_check=_health_check(service, addresses, merged, options),
        has_local_backend=has_local_backend(routes, options.local_addresses),
        backend_ports=backend_ports(routes),
        no_local=tuple(side for port, _ in ports for side in port.no_local()),
        not_allowed=tuple(addresses.not_allowed),
    )


def _settings(
    service: Service, node: NodeFacts, options: RoutingOptions, announced: frozenset[str]
) -> tuple[_Settings, list[str]]:
    ranges = SourceRanges.parse(service.spec.load_balancer_source_ranges or ())
    reasons = [f'loadBalancerSourceRanges: "{text}" is not a CIDR' for text in ranges.unparsable]
    if ranges.unparsable and not ranges.networks:
        reasons.append("loadBalancerSourceRanges has no valid entry, so no client is let in")
    wanted = annotated(service)
    reasons += [each.reason for each in wanted.problems]
    # Without a Node object the machine itself says what its addresses are.
    node_addresses = node.addresses or tuple(sorted(options.local_addresses))
    return _Settings(
        affinity_timeout=_affinity_timeout(service),
        balancer=wanted.balancer or options.balancer,
        proxy_protocol=wanted.proxy_protocol,
        no_header=wanted.no_header,
        client_ip=options.preserve_client_ip.stricter(wanted.client_ip),
        ranges=ranges,
        node_addresses=node_addresses,
        announced=announced,
    ), reasons


def _can_be_announced(address: str) -> bool:
    """Whether another machine could reach an address at all. A pool may consist of loopback
    addresses, for Services that only this machine uses."""
    return not ipaddress.ip_address(address).is_loopback


def _most(settings: _Settings, options: RoutingOptions) -> int:
    """How many frontends the Service may have. Each carries its source ranges, and with them may
    carry every address of this node."""
    ranges = len(settings.ranges.networks)
    each = ranges + len(options.local_addresses) if ranges else 0
    return service_limits.frontends_with_ranges(options.frontends, each)


def _total(service: Service, addresses: AddressesByFamily, options: RoutingOptions) -> int:
    """How many frontends the Service would have without a limit."""
    ports = [port for port in service.ports if port.protocol in SERVED]
    node_ports = sum(1 for port in ports if port.node_port)
    nodes = sum(family_of(address) in addresses for address in options.nodeport_addresses)
    return len(ports) * sum(map(len, addresses.values())) + node_ports * nodes


def _affinity_timeout(service: Service) -> int:
    if service.spec.session_affinity != "ClientIP":
        return 0
    config = service.spec.session_affinity_config
    client_ip = config.client_ip if config is not None else None
    seconds = client_ip.timeout_seconds if client_ip is not None else None
    return seconds or _DEFAULT_AFFINITY


def _port_reasons(service: Service, options: RoutingOptions) -> Iterator[str]:
    unsupported: dict[str, list[str]] = {}
    for port in service.ports:
        label = f'"{port.name or port.port}"'
        if port.protocol not in SERVED:
            unsupported.setdefault(port.protocol, []).append(label)
        elif options.serve_unallocated and service.spec.type == "NodePort" and not port.node_port:
            yield f"port {label}: type is NodePort; set nodePort, which only an API server assigns"
    for protocol, labels in unsupported.items():
        word, served = "port" if len(labels) == 1 else "ports", " and ".join(SERVED)
        yield f"{word} {_some(labels)}: protocol {protocol} is not supported; {served} are"


def _nowhere(service: Service) -> str:
    """Why a Service has no frontend, though nothing is wrong with it."""
    if any(port.node_port for port in service.ports):
        return "its nodePort is not served, as no address of this node is in --nodeport-addresses"
    return NOWHERE


def _some(labels: list[str]) -> str:
    more = len(labels) - _NAMED
    return ", ".join(labels[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def _routes(
    port: PortBackends,
    spec: ServicePort,
    addresses: list[tuple[FrontendKind, str]],
    settings: _Settings,
    options: RoutingOptions,
) -> Iterator[Route]:
    transport, serving = TRANSPORTS[spec.protocol], port.serving()
    for kind, address, number in _frontends(port.family, spec, addresses, options):
        backends, local_backends = port.sets(kind)
        reason = port.reason(kind)
        if settings.no_header and transport.may_have_proxy_header:
            backends, local_backends = (), None if local_backends is None else ()
            reason = settings.no_header
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
            reason=reason,
            proxy_protocol=settings.proxy_protocol if transport.may_have_proxy_header else None,
            preserves_outside=_preserves_outside(settings.client_ip, local_backends),
            preserves_pods=_preserves_pods(settings.client_ip, kind, local_backends),
            announced=_announced(kind, address, settings, options),
        )


def _announced(
    kind: FrontendKind, address: str, settings: _Settings, options: RoutingOptions
) -> Announced:
    """How an address is announced. Those of nodes need no announcing."""
    if kind is not FrontendKind.LOAD_BALANCER_IP or address not in settings.announced:
        return Announced.NEVER
    return options.announce if options.assigning.from_pools else Announced.NEVER


def _preserves_outside(mode: ClientIPMode, local_backends: tuple[Backend, ...] | None) -> bool:
    """Clients from outside are shown where their backends are on this node: the replies of others
    would not come by here."""
    return mode is not ClientIPMode.NEVER and local_backends is not None


def _preserves_pods(
    mode: ClientIPMode, kind: FrontendKind, local_backends: tuple[Backend, ...] | None
) -> bool:
    """kube-proxy masquerades a pod that calls a NodePort, an external IP or a load-balancer IP of
    policy Cluster."""
    short_circuited = kind is FrontendKind.CLUSTER_IP or local_backends is not None
    return mode is ClientIPMode.AUTO and short_circuited


def _is_filtered(kind: FrontendKind, options: RoutingOptions) -> bool:
    """Whether loadBalancerSourceRanges apply. In kube-proxy they do at load-balancer IPs only."""
    if options.strict_source_ranges:
        return kind is not FrontendKind.CLUSTER_IP
    return kind is FrontendKind.LOAD_BALANCER_IP


def _frontends(
    family: Family,
    spec: ServicePort,
    addresses: list[tuple[FrontendKind, str]],
    options: RoutingOptions,
) -> Iterator[tuple[FrontendKind, str, int]]:
    """Each frontend of a port once, whatever the number of fields that ask for it."""
    seen: set[tuple[str, int]] = set()
    for kind, address in addresses:
        seen.add((address, spec.port))
        yield kind, address, spec.port
    if spec.node_port:
        for address in options.nodeport_addresses:
            if family_of(address) == family and (address, spec.node_port) not in seen:
                yield FrontendKind.NODE_PORT, address, spec.node_port


def _health_check(
    service: Service, addresses: Addresses, merged: Merged, options: RoutingOptions
) -> HealthCheck | None:
    """The healthCheckNodePort, which exists for type LoadBalancer with externalTrafficPolicy Local.

    It listens where NodePorts do, as in kube-proxy.
    """
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
