"""What a Service asks of its addresses, by its annotations and its spec."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from uproxy.core.allocation.ranges import quoted
from uproxy.core.allocation.sharing import Sharing
from uproxy.core.cluster.load_balancer import ADDRESS_POOL, ADDRESSES, SHARING
from uproxy.core.cluster.objects import ObjectName, Service, ServiceSpec
from uproxy.core.cluster.own_annotations import PREFIX
from uproxy.core.ip import FAMILIES, Family, family_of, parse_ip

PREFIXES: Final = (PREFIX, "metallb.io/", "metallb.universe.tf/")
"""Of annotations. Where several are there, the first of these counts."""
DEPRECATED: Final = PREFIXES[-1]


class Unservable(NamedTuple):
    """A Service that cannot have addresses as it is, and loses those that it has."""

    reason: Literal["NoClusterIPs", "NotEnoughClusterIPs"]
    """As it is in the condition."""
    event: str
    """The reason of the Event; "" if there is none."""
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What one Service asks for."""

    name: ObjectName
    labels: Mapping[str, str]
    families: tuple[Family, ...]
    """The primary one first."""
    prefers_both: bool
    """PreferDualStack: one of two families will do."""
    sharing: Sharing
    addresses: tuple[str, ...] = ()
    pool: str = ""
    deprecated: tuple[str, ...] = ()
    """The annotations that have a deprecated prefix."""
    problem: str = ""
    """What is wrong with the request. A Service keeps what it has, and gets nothing new."""


def read_request(service: Service) -> Request | Unservable:
    """What a Service of type LoadBalancer asks for."""
    spec = service.spec
    unservable = _unservable(spec)
    if unservable is not None:
        return unservable
    found = _Annotations(service.metadata.annotations or {})
    families, problem = _families(spec), ""
    addresses: tuple[str, ...] = ()
    try:
        if not families:
            raise ValueError(
                f"its ClusterIPs {_listed(_cluster_ips(spec))} are not one of a family"
            )
        addresses = _addresses(spec, found)
    except ValueError as error:
        problem = str(error)
    return Request(
        name=service.key,
        labels=service.metadata.labels or {},
        families=families,
        prefers_both=len(families) == 2 and spec.ip_family_policy == "PreferDualStack",
        sharing=_sharing(service, found.value(SHARING)),
        addresses=addresses,
        pool=found.value(ADDRESS_POOL),
        deprecated=found.deprecated,
        problem=problem,
    )


class _Annotations:
    """Reads annotations that may have several prefixes."""

    def __init__(self, annotations: Mapping[str, str]) -> None:
        self._annotations = annotations
        self.deprecated: tuple[str, ...] = ()
        """Those with the deprecated prefix that have been read."""

    def name(self, name: str) -> str:
        """The full name of an annotation; "" if it is not there."""
        names = (f"{prefix}{name}" for prefix in PREFIXES)
        return next((each for each in names if each in self._annotations), "")

    def value(self, name: str) -> str:
        full_name = self.name(name)
        if full_name.startswith(DEPRECATED):
            self.deprecated = (*self.deprecated, full_name)
        return self._annotations.get(full_name, "").strip()


def _unservable(spec: ServiceSpec) -> Unservable | None:
    cluster_ips = _cluster_ips(spec)
    if cluster_ips == ("None",):
        return Unservable("NoClusterIPs", "", "a Service without a ClusterIP cannot have any")
    # A manifest need not have ClusterIPs; an API server has added them.
    if cluster_ips and len(cluster_ips) < 2 and spec.ip_family_policy == "RequireDualStack":
        message = f"Service requires dual stack but not enough clusterips {_listed(cluster_ips)}"
        return Unservable("NotEnoughClusterIPs", "not enough clusterips", message)
    return None


def _cluster_ips(spec: ServiceSpec) -> tuple[str, ...]:
    return spec.cluster_ips or tuple(filter(None, (spec.cluster_ip,)))


def _families(spec: ServiceSpec) -> tuple[Family, ...]:
    """Those of the ClusterIPs, the primary one first; () if they make no sense. In manifests,
    which may have no ClusterIPs, what the API server would choose by the other fields."""
    named = tuple(each for each in FAMILIES if each in (spec.ip_families or ()))
    cluster_ips = _cluster_ips(spec)
    if cluster_ips:
        parsed = [parse_ip(each) for each in cluster_ips]
        families = {family_of(each) for each in parsed if each is not None}
        if not len(families) == len(parsed) == len(cluster_ips) <= 2:
            return ()
    elif named:
        families = set(named)
    else:
        both = spec.ip_family_policy in ("PreferDualStack", "RequireDualStack")
        families = set(FAMILIES) if both else {"IPv4"}
    primary = next(iter(spec.ip_families or ()), "IPv4")
    return tuple(sorted(families, key=lambda each: (each != primary, each)))


def _addresses(spec: ServiceSpec, found: _Annotations) -> tuple[str, ...]:
    """The addresses that are asked for. Raises ValueError."""
    annotated = _annotated(found)
    if not spec.load_balancer_ip.strip():
        return annotated
    address = parse_ip(spec.load_balancer_ip.strip())
    if address is None:
        raise ValueError(f"invalid spec.loadBalancerIP {quoted(spec.load_balancer_ip)}")
    if annotated and set(annotated) != {address}:
        raise ValueError(
            f"service can not have both {found.name(ADDRESSES)} and spec.loadBalancerIP, unless "
            f"they are the same; now they are {_listed(annotated)} and {_listed((address,))}"
        )
    return (address,)


def _annotated(found: _Annotations) -> tuple[str, ...]:
    text = found.value(ADDRESSES)
    if not text:
        return ()
    # No more than 2 addresses are allowed, and the text may have 256 KiB.
    parsed = [parse_ip(each.strip()) for each in text.split(",", 3)]
    addresses = tuple(each for each in parsed if each is not None)
    if len(addresses) != len(parsed):
        raise ValueError(f"invalid {found.name(ADDRESSES)}: {quoted(text)}")
    if len({family_of(each) for each in addresses}) != len(addresses):
        raise ValueError(
            f"invalid {found.name(ADDRESSES)}: {quoted(text)}; "
            "give one address, or one of each family"
        )
    return addresses


def _sharing(service: Service, key: str) -> Sharing:
    spec = service.spec
    local = spec.external_traffic_policy == "Local"
    selector = sorted((spec.selector or {}).items()) if local else ()
    return Sharing(
        key=key,
        local=local,
        selector=",".join(f"{name}={value}" for name, value in selector),
        ports=frozenset((port.protocol, port.port) for port in service.ports),
    )


def _listed(addresses: tuple[str, ...]) -> str:
    # More than 3 make no sense, and each may be of any length.
    texts = " ".join(quoted(each)[1:-1] for each in addresses[:3])
    return f"[{texts}]"
