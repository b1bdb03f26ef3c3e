"""What uproxy writes on a Service of type LoadBalancer, by which it recognises its own work."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from uproxy.core.cluster.objects import Service
from uproxy.core.ip import parse_ip

ADDRESSES: Final = "loadBalancerIPs"
"""Annotation, with one of several prefixes: the addresses that a Service asks for."""
ADDRESS_POOL: Final = "address-pool"
"""The same: the pool from which it wants an address."""
SHARING: Final = "allow-shared-ip"
"""The same: the word by which Services share an address."""

CLASS: Final = "uproxy.dev/lb"
"""The loadBalancerClass of Services that are meant for uproxy alone. Those without a class are
uproxy's as well."""

ASSIGNED: Final = "uproxy.dev/assigned-ips"
"""Annotation: the addresses that uproxy has written into the status, separated by commas. It comes
with the same request as the status. If the two differ, another controller wrote the status, which
is left alone then."""

POOL: Final = "metallb.io/ip-allocated-from-pool"
"""Annotation: the pool of these addresses, under the name by which MetalLB's users know it."""

CONDITION: Final = "uproxy.dev/AddressAssigned"
"""Type of the condition that says why a Service has its addresses, or why it has none."""


class Assigning(StrEnum):
    """Which addresses uproxy assigns to Services of type LoadBalancer."""

    NEVER = "never"
    NODE = "node"
    """Those of nodes."""
    LOCALHOST = "localhost"
    """127.0.0.1 and ::1."""
    POOLS = "pools"
    """Those of pools from flags."""
    METALLB = "metallb"
    """Those of pools from MetalLB's objects, and from flags."""

    @property
    def from_pools(self) -> bool:
        """Whether they come from pools, so that they have to be announced."""
        return self in (Assigning.POOLS, Assigning.METALLB)


def is_ours(service: Service) -> bool:
    """Whether uproxy may give addresses to a Service, by its type and class."""
    spec = service.spec
    return spec.type == "LoadBalancer" and spec.load_balancer_class in (None, "", CLASS)


def recorded_addresses(service: Service) -> tuple[str, ...]:
    """What the annotation says that uproxy has assigned, in canonical form.

    `kubectl replace`, and tools that know all annotations of their objects, remove it, but cannot
    touch the status. Then those of its addresses are meant that the condition names.
    """
    text = (service.metadata.annotations or {}).get(ASSIGNED)
    if text is None:
        return tuple(each for each in status_addresses(service) if _is_named(each, service))
    return tuple(filter(None, (parse_ip(each.strip()) for each in text.split(","))))


def _is_named(address: str, service: Service) -> bool:
    """Whether the condition begins by naming an address. Its rest may quote those of others."""
    assigned = (
        each.message.partition("]")[0]
        for each in service.status.conditions or ()
        if each.type == CONDITION and each.status == "True"
    )
    return any(f'"{address}"' in each for each in assigned)


def status_addresses(service: Service) -> tuple[str, ...]:
    """The addresses in the status, whoever wrote them, in canonical form."""
    return tuple(filter(None, (parse_ip(each.ip) for each in service.ingress)))


def assigned_addresses(service: Service) -> tuple[str, ...]:
    """The addresses in the status that uproxy has assigned; they are served and announced."""
    recorded = recorded_addresses(service)
    return tuple(each for each in status_addresses(service) if each in recorded)
