"""What can be said about the addresses of load balancers at one moment: pools, who announces what,
and which Services have no address, and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from uproxy.core.cluster.objects import ObjectName
from uproxy.core.ip import Family


class _Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """The msgspec options that all parts share."""


class AddressCounts(_Part, frozen=True):
    """The addresses of one family in a pool."""

    total: int = 0
    """Capped at 2 to the 63rd less one, since a pool of IPv6 may have more than JSON can say."""
    used: int = 0
    """Those that Services have. Several Services that share an address count once."""
    reserved: int = 0
    """Those that no Service has, and that are kept for one Service or for none. Addresses of nodes,
    gateways and the like are among them."""
    drained: int = 0
    """Those that no Service has, and that are handed out no more."""

    @property
    def free(self) -> int:
        """Those that any Service may get."""
        return max(0, self.total - self.used - self.reserved - self.drained)


class PoolStatus(_Part, frozen=True):
    """One pool."""

    name: str
    origin: str = ""
    """"flags", or the object that it comes from."""
    ranges: tuple[str, ...] = ()
    counts: dict[Family, AddressCounts] = {}
    """By family; a family of which it has no address is missing."""
    auto_assign: bool = True
    """Whether Services that do not ask for this pool get addresses from it."""
    reason: str = ""
    """Why the pool cannot be used, or its addresses are not announced; "" if all is well."""


class AddressStatus(_Part, frozen=True):
    """One address that Services have."""

    address: str
    services: tuple[ObjectName, ...] = ()
    pool: str = ""
    node: str = ""
    """The node that announces it; "": none does, or each node does so for itself, by routes."""
    here: bool = False
    """Whether this node announces it."""
    interface: str = ""
    """On which interface, if this node announces it."""
    since: float | None = None
    """Unix time at which the node began to announce it, or was first seen to; None: unknown."""
    reason: str = ""
    """Why it is this node, or why there is none; "" if there is nothing to say."""
    conflict: str = ""
    """The MAC address of another machine that answers for it as well, if one was heard."""


class ServiceAddresses(_Part, frozen=True):
    """One Service of type LoadBalancer."""

    service: ObjectName
    addresses: tuple[str, ...] = ()
    """Those that are decided, whether the status in the cluster says so already or not."""
    pool: str = ""
    reason: str = ""
    """Why it has no address, or fewer than it asks for, or why its status is not written."""
    foreign: str = ""
    """Why its status is left alone: another controller has written it."""


class AnnouncingCounts(_Part, frozen=True):
    """What has happened on this node since the start."""

    transitions: int = 0
    """How often it has begun or ceased to announce an address."""
    gratuitous: int = 0
    """Gratuitous ARP frames and unsolicited neighbour advertisements that were sent."""
    contradictions: int = 0
    """How often another machine was heard to have an address that this node announces."""
    failed_renewals: int = 0
    """Writes of this node's Lease that have failed."""


class LoadBalancerStatus(_Part, frozen=True):
    """All of them."""

    mode: str = ""
    """Which addresses are assigned: a value of `Assigning`."""
    announce: str = ""
    """How they are announced: a value of `Announced`."""
    allocating: bool = False
    """Whether this process hands out the addresses."""
    allocator: str = ""
    """The identity of the process that does; "" if it is not known."""
    trouble: str = ""
    """Why nothing can be handed out at present, as far as this process is concerned."""
    notes: tuple[str, ...] = ()
    """What people should know, such as a missing privilege; a sentence each."""
    pools: tuple[PoolStatus, ...] = ()
    addresses: tuple[AddressStatus, ...] = ()
    services: tuple[ServiceAddresses, ...] = ()
    counts: AnnouncingCounts = AnnouncingCounts()

    def announced(self) -> Mapping[str, AddressStatus]:
        """The addresses by themselves."""
        return {each.address: each for each in self.addresses}

    @property
    def pending(self) -> Iterable[ServiceAddresses]:
        """Services that should have an address from uproxy, and have none."""
        return (each for each in self.services if not each.addresses and not each.foreign)

    @property
    def foreign(self) -> Iterable[ServiceAddresses]:
        """Services to which another controller gives addresses."""
        return (each for each in self.services if each.foreign)


def elsewhere(status: AddressStatus) -> str:
    """Why a frontend is not served on this node although its listener is open; "": it is served, as
    far as announcing goes."""
    if status.here:
        return ""
    if status.node:
        return f"node {status.node} announces it"
    return status.reason or "no node announces it"
