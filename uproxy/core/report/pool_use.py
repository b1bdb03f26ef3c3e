"""How many addresses of each pool Services have, and how many are left."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from uproxy.core.allocation.pools import Pool
from uproxy.core.allocation.ranges import AddressRange
from uproxy.core.ip import FAMILIES, Family, family_of
from uproxy.core.report.load_balancer import AddressCounts, PoolStatus, ServiceAddresses

_MOST: Final = 2**63 - 1
"""The largest number that every reader of JSON understands."""
_BLOCK: Final = 256


def pool_statuses(
    pools: Iterable[Pool],
    services: Iterable[ServiceAddresses],
    origins: Mapping[str, str],
    reasons: Mapping[str, str],
) -> tuple[PoolStatus, ...]:
    """The status of each pool. `origins` and `reasons` go by the pool's name: where it comes from,
    and why its addresses are not announced."""
    used: dict[str, set[str]] = {}
    for each in services:
        if each.pool:
            used.setdefault(each.pool, set()).update(each.addresses)
    return tuple(
        PoolStatus(
            name=pool.name,
            origin=origins.get(pool.name, "flags"),
            ranges=tuple(map(str, pool.ranges)),
            counts=dict(_counts(pool, used.get(pool.name, ()))),
            auto_assign=pool.auto_assign,
            reason=reasons.get(pool.name, ""),
        )
        for pool in pools
    )


def _counts(pool: Pool, used: Collection[str]) -> Iterable[tuple[Family, AddressCounts]]:
    kept = [each.addresses for each in pool.reservations]
    for family in FAMILIES:
        ranges = [each for each in pool.ranges if each.family == family]
        if ranges:
            own = [int(ipaddress.ip_address(each)) for each in used if family_of(each) == family]
            yield family, _counted(pool, ranges, kept, own)


def _counted(
    pool: Pool, ranges: Sequence[AddressRange], kept: Sequence[AddressRange], used: Collection[int]
) -> AddressCounts:
    drained = _union(_within(pool.drained, ranges))
    reserved = _without(_union(_within(kept, ranges)), drained)
    return AddressCounts(
        total=min(_MOST, _size(_union(ranges), pool)),
        used=len(used),
        drained=min(_MOST, _unused(drained, used, pool)),
        reserved=min(_MOST, _unused(reserved, used, pool)),
    )


def _within(some: Iterable[AddressRange], ranges: Iterable[AddressRange]) -> list[AddressRange]:
    """The parts of some ranges that lie in others."""
    wanted = list(ranges)
    return [
        AddressRange(each.family, max(each.first, other.first), min(each.last, other.last))
        for each in some
        for other in wanted
        if each.overlaps(other)
    ]


def _union(ranges: Iterable[AddressRange]) -> list[AddressRange]:
    """The same addresses in ranges that do not overlap, in order."""
    found: list[AddressRange] = []
    for each in sorted(ranges):
        if found and found[-1].overlaps(each):
            found[-1] = found[-1]._replace(last=max(found[-1].last, each.last))
        else:
            found.append(each)
    return found


def _without(ranges: Sequence[AddressRange], other: Sequence[AddressRange]) -> list[AddressRange]:
    """What remains of ranges when others are taken out."""
    left = list(ranges)
    for gone in other:
        parts = []
        for each in left:
            if not each.overlaps(gone):
                parts.append(each)
                continue
            if each.first < gone.first:
                parts.append(each._replace(last=gone.first - 1))
            if gone.last < each.last:
                parts.append(each._replace(first=gone.last + 1))
        left = parts
    return left


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


def _unused(ranges: Sequence[AddressRange], used: Iterable[int], pool: Pool) -> int:
    if not ranges:
        return 0
    held = sum(any(each.first <= number <= each.last for each in ranges) for number in used)
    return max(0, _size(ranges, pool) - held)
