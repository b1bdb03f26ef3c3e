"""The addresses of load balancers as /api/v1/routes shows them."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from uproxy.core.cluster.objects import ObjectName
from uproxy.core.report.load_balancer import AnnouncingCounts, LoadBalancerStatus, PoolStatus


class _View(msgspec.Struct, rename="camel", gc=False):
    """Options shared by all parts."""


class CountsOfFamilyView(_View):
    total: int
    used: int
    reserved: int
    drained: int
    free: int


class PoolView(_View):
    name: str
    origin: str
    ranges: list[str]
    counts: dict[str, CountsOfFamilyView]
    auto_assign: bool
    reason: str


class AddressView(_View):
    address: str
    services: list[str]
    pool: str
    node: str
    here: bool
    interface: str
    since: float | None
    reason: str
    conflict: str


class ServiceAddressesView(_View):
    service: str
    addresses: list[str]
    pool: str
    reason: str
    foreign: str


class LoadBalancerView(_View):
    mode: str
    announce: str
    allocating: bool
    allocator: str
    trouble: str
    notes: list[str]
    pools: list[PoolView]
    addresses: list[AddressView]
    services: list[ServiceAddressesView]
    counts: AnnouncingCounts


def load_balancer_view(
    status: LoadBalancerStatus, selects: Callable[[ObjectName], bool]
) -> LoadBalancerView:
    """What concerns the selected Services. The pools are always in it."""
    return LoadBalancerView(
        mode=status.mode,
        announce=status.announce,
        allocating=status.allocating,
        allocator=status.allocator,
        trouble=status.trouble,
        notes=list(status.notes),
        pools=[_pool(each) for each in sorted(status.pools, key=lambda each: each.name)],
        addresses=[
            AddressView(
                address=each.address,
                services=sorted(map(str, each.services)),
                pool=each.pool,
                node=each.node,
                here=each.here,
                interface=each.interface,
                since=each.since,
                reason=each.reason,
                conflict=each.conflict,
            )
            for each in status.addresses
            if any(map(selects, each.services))
        ],
        services=[
            ServiceAddressesView(
                service=str(each.service),
                addresses=list(each.addresses),
                pool=each.pool,
                reason=each.reason,
                foreign=each.foreign,
            )
            for each in sorted(status.services, key=lambda each: each.service)
            if selects(each.service)
        ],
        counts=status.counts,
    )


def _pool(each: PoolStatus) -> PoolView:
    return PoolView(
        name=each.name,
        origin=each.origin,
        ranges=list(each.ranges),
        counts={
            family: CountsOfFamilyView(
                counts.total, counts.used, counts.reserved, counts.drained, counts.free
            )
            for family, counts in sorted(each.counts.items())
        },
        auto_assign=each.auto_assign,
        reason=each.reason,
    )
