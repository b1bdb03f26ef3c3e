"""How many addresses of each pool Services have, and how many are left."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final

import msgspec

from uproxy.core.allocation.holdings import PoolUsage
from uproxy.core.allocation.pools import Pool
from uproxy.core.allocation.ranges import AddressRange, RangeSet, place
from uproxy.core.ip import FAMILIES, Family, family_of
from uproxy.core.report.load_balancer import AddressCounts, PoolStatus, ServiceAddresses

_MOST: Final = 2**63 - 1
"""The largest number that every reader of JSON understands."""
_BLOCK: Final = 256


def pool_statuses(
    pools: Iterable[Pool],
    usage: Mapping[str, Mapping[Family, PoolUsage]],
    services: Iterable[ServiceAddresses],
    *,
    origins: Mapping[str, str],
    reasons: Mapping[str, str],
) -> tuple[PoolStatus, ...]:
    """The status of each pool. `usage`, `origins` and `reasons` go by the pool's name: what the
    allocator counts, where the pool comes from, and why its addresses are not announced."""
    used: dict[str, set[str]] = {}
    for each in services:
        if each.pool:
            used.setdefault(each.pool, set()).update(each.addresses)
    return tuple(
        PoolStatus(
            name=pool.name,
            origin=origins.get(pool.name, "flags"),
            ranges=tuple(map(str, pool.ranges)),
            counts=dict(_counts(pool, usage.get(pool.name, {}), used.get(pool.name, ()))),
            auto_assign=pool.auto_assign,
            reason=reasons.get(pool.name, ""),
        )
        for pool in pools
    )


def _counts(
    pool: Pool, usage: Mapping[Family, PoolUsage], used: Collection[str]
) -> Iterable[tuple[Family, AddressCounts]]:
    for family in FAMILIES:
        ranges = RangeSet(each for each in pool.ranges if each.family == family)
        if ranges.ranges:
            counted = _counted(pool, family, ranges, used)
            yield family, _as_the_allocator_counts(counted, usage.get(family))


def _counted(pool: Pool, family: Family, ranges: RangeSet, used: Collection[str]) -> AddressCounts:
    """What follows from the ranges alone."""
    own = [each for each in used if family_of(each) == family]
    total = min(_MOST, _size(ranges.ranges, pool))
    if not pool.drained and not pool.reservations:
        return AddressCounts(total=total, used=len(own))
    numbers = [place(each)[1] for each in own]
    drained = _within(pool.drained, ranges)
    kept = _within((each.addresses for each in pool.reservations), ranges)
    reserved = RangeSet(part for each in kept.ranges for part in drained.outside(each))
    return AddressCounts(
        total=total,
        used=len(own),
        drained=min(_MOST, _unused(drained, family, numbers, pool)),
        reserved=min(_MOST, _unused(reserved, family, numbers, pool)),
    )


def _within(some: Iterable[AddressRange], ranges: RangeSet) -> RangeSet:
    """The parts of some ranges that lie in others."""
    return RangeSet(part for each in some for part in ranges.inside(each))


def _as_the_allocator_counts(counted: AddressCounts, usage: PoolUsage | None) -> AddressCounts:
    """The allocator knows more: some addresses are those of nodes or gateways, and are not handed
    out either. Such numbers are lost in those of a huge pool."""
    if usage is None or counted.total == _MOST:
        return counted
    kept = counted.total - usage.assigned - usage.available
    reserved = max(0, kept - counted.drained)
    return msgspec.structs.replace(counted, used=usage.assigned, reserved=reserved)


def _size(ranges: Iterable[AddressRange], pool: Pool) -> int:
    return sum(each.last - each.first + 1 - _buggy(each, pool) for each in ranges)


def _buggy(each: AddressRange, pool: Pool) -> int:
    """How many IPv4 addresses of a range end in .0 or .255, if the pool leaves those out."""
    if not pool.avoid_buggy_ips or each.family != "IPv4":
        return 0
    return _ending(each, 0) + _ending(each, _BLOCK - 1)


def _ending(each: AddressRange, with_: int) -> int:
    first, last = each.first - with_, each.last - with_
    return last // _BLOCK - (first - 1) // _BLOCK


def _unused(ranges: RangeSet, family: Family, used: Iterable[int], pool: Pool) -> int:
    held = sum(ranges.has(family, number) for number in used)
    return max(0, _size(ranges.ranges, pool) - held)
