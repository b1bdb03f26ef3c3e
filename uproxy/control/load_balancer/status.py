"""What can be said about the addresses of load balancers at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from uproxy.core.cluster.objects import ObjectName


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAddresses:
    """One Service of type LoadBalancer."""

    addresses: tuple[str, ...] = ()
    """Those that are decided, whether the status in the cluster says so already or not."""
    pool: str = ""
    reason: str = ""
    """Why it has no address, or fewer than it asks for, or why its status is not written."""
    foreign: str = ""
    """Why its status is left alone: another controller has written it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadBalancerStatus:
    """All of them."""

    allocating: bool = False
    """Whether this process hands out the addresses."""
    allocator: str = ""
    """The identity of the process that does; "" if it is not known."""
    trouble: str = ""
    """Why nothing can be handed out at present, as far as this process is concerned."""
    services: Mapping[ObjectName, ServiceAddresses] = field(default_factory=dict)
