"""Where a Service is to be reached: its addresses by family, and why some are left out."""

from __future__ import annotations

import ipaddress
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from uproxy.core.cluster.host_addresses import HostAddresses
from uproxy.core.cluster.load_balancer import Assigning, assigned_addresses
from uproxy.core.cluster.objects import EndpointSlice, LoadBalancerIngress, Service
from uproxy.core.ip import FAMILIES, Family, family_of, parse_ip
from uproxy.core.route import FrontendKind
from uproxy.core.routing.options import RoutingOptions
from uproxy.core.routing.reserved import why_reserved

_PROXY_NAME: Final = "service.kubernetes.io/service-proxy-name"
_HEADLESS: Final = "None"
_DUAL_STACK: Final = ("PreferDualStack", "RequireDualStack")


@dataclass(slots=True)
class Addresses:
    """Where one Service is reached, apart from NodePorts."""

    families: tuple[Family, ...] = ()
    """The families in which the Service exists. Its addresses of another family are left out."""
    found: list[tuple[FrontendKind, str]] = field(default_factory=list)
    """Each address once. If a load-balancer IP is also an external IP, it counts as the former,
    since loadBalancerSourceRanges concern only that, and must hold."""
    reasons: list[str] = field(default_factory=list)
    """Why some addresses were left out."""
    not_allowed: list[str] = field(default_factory=list)
    """externalIPs that are not addresses of this node, and that no option allows."""
    assigned: frozenset[str] = frozenset()
    """Those that uproxy has assigned."""
    _seen: set[str] = field(default_factory=set)

    def of(self, family: Family) -> list[tuple[FrontendKind, str]]:
        """The addresses of one family, in that order. Walks all of them, so it is called once for
        a Service and not for each port."""
        return [(kind, address) for kind, address in self.found if family_of(address) == family]

    def put(self, kind: FrontendKind, address: str) -> None:
        """Add an address, unless it is there already."""
        if address not in self._seen:
            self._seen.add(address)
            self.found.append((kind, address))


def left_to_others(service: Service, options: RoutingOptions) -> str:
    """Why a Service is meant not to be served by this proxy; "" if it is not meant so."""
    spec = service.spec
    proxy = (service.metadata.labels or {}).get(_PROXY_NAME)
    # kube-proxy leaves every Service with this label alone, even if the value is empty.
    if proxy is not None and (proxy == "" or proxy != options.service_proxy_name):
        return f'label {_PROXY_NAME} is "{proxy}", so another proxy serves it'
    if proxy is None and options.service_proxy_name:
        name = options.service_proxy_name
        return f'it has no label {_PROXY_NAME}; this uproxy serves those with "{name}"'
    if spec.type == "ExternalName":
        return "type is ExternalName; clients reach it through DNS"
    if _HEADLESS in _cluster_ips(service):
        return "it is headless (clusterIP None); clients reach its endpoints through DNS"
    return ""


def skip_reason(service: Service, options: RoutingOptions) -> str:
    """Why a Service is not served at all, as kube-proxy decides it; "" if it is served."""
    others = left_to_others(service, options)
    if others:
        return others
    if not _cluster_ips(service) and not options.serve_unallocated:
        return "it has no clusterIP yet; the API server assigns one"
    return "" if service.ports else "spec.ports is empty"


def addresses_of(
    service: Service, slices: Iterable[EndpointSlice], options: RoutingOptions, hosts: HostAddresses
) -> Addresses:
    """Every address at which a Service is to be reached, in canonical form, and reasons for those
    that are left out.

    As in kube-proxy the cluster IPs decide in which families a Service exists at all: without one
    of a family, its external IPs and load-balancer IPs of that family are not served.
    """
    found = Addresses()
    cluster = _parsed("clusterIP", _cluster_ips(service), found.reasons)
    found.families = tuple(f for f in FAMILIES if any(family_of(a) == f for a in cluster))
    if not cluster and options.serve_unallocated:
        found.families = _unallocated_families(service, slices)
    if options.assigning is not Assigning.NEVER:
        found.assigned = frozenset(assigned_addresses(service))
    unreserved = _Unreserved(options, hosts, found.reasons, found.assigned)
    for address in unreserved(FrontendKind.CLUSTER_IP, "clusterIP", cluster):
        found.put(FrontendKind.CLUSTER_IP, address)
    vips = [each.ip for each in service.ingress if _is_vip(each, found)]
    parsed = _parsed("load-balancer IP", vips, found.reasons)
    ours = (each for each in parsed if _is_served_here(each, found, options, hosts))
    for address in unreserved(FrontendKind.LOAD_BALANCER_IP, "load-balancer IP", ours):
        for each in _where_reached(address, found, options, hosts):
            _put_in_family(found, FrontendKind.LOAD_BALANCER_IP, "load-balancer IP", each)
    parsed = _parsed("externalIP", service.spec.external_ips or (), found.reasons)
    for address in unreserved(FrontendKind.EXTERNAL_IP, "externalIP", parsed):
        served_family = family_of(address) in found.families
        if not served_family or address in hosts.own or _is_allowed(address, options):
            _put_in_family(found, FrontendKind.EXTERNAL_IP, "externalIP", address)
        else:
            found.not_allowed.append(address)
            found.reasons.append(not_allowed_reason(address))
    return found


def not_allowed_reason(address: str) -> str:
    """Why an externalIP is not served, and the very option that would allow it."""
    cidr = ipaddress.ip_network(address)
    return (
        f"externalIP {address} is not an address of this node;"
        f" allow it with --external-ip-cidrs {cidr}"
    )


def _is_served_here(
    address: str, found: Addresses, options: RoutingOptions, hosts: HostAddresses
) -> bool:
    """Whether a load-balancer IP concerns this node at all. If a Service has the addresses of
    several nodes, each of them serves its own."""
    if options.assigning is not Assigning.NODE or address not in found.assigned:
        return True
    if address in options.local_addresses or address in hosts.own:
        return True
    return not hosts.nodes_at((address,))


def _where_reached(
    address: str, found: Addresses, options: RoutingOptions, hosts: HostAddresses
) -> Iterable[str]:
    """At which addresses clients of a load-balancer IP arrive.

    The external address of a rented machine is often on no interface: the provider's network
    translates it into the internal one, so that is where packets come to.
    """
    if options.assigning is not Assigning.NODE or address not in found.assigned:
        return (address,)
    if address in options.local_addresses or address not in hosts.own:
        return (address,)
    inside = hosts.own & options.local_addresses
    return sorted(each for each in inside if family_of(each) == family_of(address)) or (address,)


class _Unreserved(NamedTuple):
    """Filters addresses: those that belong to other machines are left out, with a reason."""

    options: RoutingOptions
    hosts: HostAddresses
    reasons: list[str]
    assigned: Container[str]

    def __call__(self, kind: FrontendKind, label: str, addresses: Iterable[str]) -> Iterator[str]:
        for address in addresses:
            assigned = address in self.assigned
            whose = why_reserved(address, kind, self.options, self.hosts, assigned=assigned)
            if whose:
                self.reasons.append(f"{label} {address} is {whose}; it is not claimed")
            else:
                yield address


def _cluster_ips(service: Service) -> tuple[str, ...]:
    spec = service.spec
    return tuple(filter(None, spec.cluster_ips or ())) or tuple(filter(None, (spec.cluster_ip,)))


def _unallocated_families(service: Service, slices: Iterable[EndpointSlice]) -> tuple[Family, ...]:
    """The families of a Service without a clusterIP: those of ipFamilies, else both if its policy
    says so, else those of its endpoints."""
    spec = service.spec
    if not spec.ip_families and spec.ip_family_policy in _DUAL_STACK:
        return FAMILIES
    named = spec.ip_families or {each.address_type for each in slices}
    return tuple(family for family in FAMILIES if family in named) or ("IPv4",)


def _parsed(field_name: str, texts: Iterable[str], reasons: list[str]) -> list[str]:
    found: dict[str, None] = {}
    for text in texts:
        ip = parse_ip(text)
        if ip is None:
            reasons.append(f'{field_name} "{text}" is not an IP address')
        elif not _names_one_host(ip):
            # Binding 0.0.0.0 or :: would take the port at every address of this node.
            reasons.append(f'{field_name} "{text}" is not the address of one host')
        else:
            found[ip] = None
    return list(found)


def _names_one_host(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    return not (parsed.is_unspecified or parsed.is_multicast or address == "255.255.255.255")


def _is_vip(ingress: LoadBalancerIngress, found: Addresses) -> bool:
    """Whether an entry has an address at which this node is to answer.

    An entry may have a host name only. With ipMode Proxy, traffic has to pass through the load
    balancer, for example because it terminates TLS (KEP-1860). If uproxy has assigned the address,
    it is itself the load balancer; then ipMode tells only other service proxies what to do.
    """
    if not ingress.ip:
        return False
    if ingress.ip_mode in (None, "", "VIP") or parse_ip(ingress.ip) in found.assigned:
        return True
    unknown = "" if ingress.ip_mode == "Proxy" else ", which is not known (VIP and Proxy are)"
    found.reasons.append(
        f"load-balancer IP {ingress.ip} has ipMode {ingress.ip_mode}{unknown};"
        " clients must pass through the load balancer"
    )
    return False


def _is_allowed(address: str, options: RoutingOptions) -> bool:
    """Whether the options allow an address as externalIP."""
    if options.external_ip_addresses is None or address in options.external_ip_addresses:
        return True
    parsed = ipaddress.ip_address(address)
    # All of 127.0.0.0/8 is this node's own, though an interface lists only its first address.
    return parsed.is_loopback or any(parsed in each for each in options.external_ip_cidrs)


def _put_in_family(found: Addresses, kind: FrontendKind, label: str, address: str) -> None:
    family = family_of(address)
    if family not in found.families:
        found.reasons.append(
            f"{label} {address} is left out: {family} is not among the Service's families"
        )
    else:
        found.put(kind, address)
