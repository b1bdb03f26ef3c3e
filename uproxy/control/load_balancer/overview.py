"""What can be said about pools at one moment."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from uproxy.core.allocation.holdings import MOST, PoolUsage
from uproxy.core.allocation.pools import Pool
from uproxy.core.allocation.ranges import AddressRange
from uproxy.core.ip import FAMILIES, Family
from uproxy.core.report.load_balancer import AddressCounts, PoolStatus

FLAGS = "flags"


def pool_statuses(
    pools: Iterable[Pool],
    usage: Mapping[str, Mapping[Family, PoolUsage]],
    from_flags: Collection[str],
) -> Iterator[PoolStatus]:
    """The pools in effect. `from_flags`: the names of those that come from no object."""
    for pool in pools:
        used = usage.get(pool.name, {})
        yield PoolStatus(
            name=pool.name,
            origin=FLAGS if pool.name in from_flags else f"IPAddressPool {pool.name}",
            ranges=tuple(map(str, pool.ranges)),
            counts=dict(_counts(pool, used)),
            auto_assign=pool.auto_assign,
        )


def _counts(
    pool: Pool, usage: Mapping[Family, PoolUsage]
) -> Iterator[tuple[Family, AddressCounts]]:
    for family in FAMILIES:
        total = _size(pool.ranges, family)
        if not total:
            continue
        found = usage.get(family, PoolUsage(0, total))
        # What no Service has, and none may get.
        kept = max(0, total - found.assigned - found.available)
        drained = min(kept, _size(pool.drained, family))
        yield (
            family,
            AddressCounts(
                total=min(total, MOST),
                used=found.assigned,
                reserved=min(kept - drained, MOST),
                drained=min(drained, MOST),
            ),
        )


def _size(ranges: Iterable[AddressRange], family: Family) -> int:
    return sum(each.last - each.first + 1 for each in ranges if each.family == family)
