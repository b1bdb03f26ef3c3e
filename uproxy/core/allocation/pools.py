"""Pools of addresses, from flags or from MetalLB's IPAddressPool objects."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from uproxy.core.allocation.ranges import AddressRange, place
from uproxy.core.cluster.labels import LabelSelector
from uproxy.core.cluster.objects import ObjectName


class Reservation(NamedTuple):
    """Addresses of pools that are not handed out, except to one Service if that is named."""

    addresses: AddressRange
    service: ObjectName | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAllocation:
    """For which Services a pool is (IPAddressPool.spec.serviceAllocation)."""

    priority: int = 0
    """Lower numbers are tried first; 0, which stands for "not set", last."""
    namespaces: frozenset[str] = frozenset()
    namespace_selectors: tuple[LabelSelector, ...] = ()
    service_selectors: tuple[LabelSelector, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Where addresses come from."""

    name: str
    ranges: tuple[AddressRange, ...]
    """In the order in which they are used up. They overlap with no other pool's."""
    auto_assign: bool = True
    """Whether Services that do not ask for this pool, or for an address in it, may get one."""
    avoid_buggy_ips: bool = False
    """Whether IPv4 addresses that end in .0 or .255 are left out."""
    allocation: ServiceAllocation | None = None
    """None: it is for every Service."""
    reservations: tuple[Reservation, ...] = ()
    drained: tuple[AddressRange, ...] = ()
    """Addresses that stay with their holders, and are handed out no more."""
    labels: tuple[tuple[str, str], ...] = ()
    """Those of the object, which advertisements may select by."""


class PoolsByAddress:
    """Finds the pool of an address by bisection, as pools may have thousands of ranges.

    These must not overlap.
    """

    def __init__(self, pools: Iterable[Pool] = ()) -> None:
        places = ((each, pool) for pool in pools for each in pool.ranges)
        self._places = sorted(places, key=lambda each: each[0])
        self._starts = [(each.family, each.first) for each, _ in self._places]

    def pool_of(self, address: str) -> Pool | None:
        """The pool to which an address in canonical form belongs; None: it belongs to none."""
        family, number = place(address)
        index = bisect_right(self._starts, (family, number)) - 1
        if index < 0:
            return None
        found, pool = self._places[index]
        return pool if found.family == family and number <= found.last else None


Owned = tuple[str, AddressRange]
"""A range with the name of its pool."""


def overlap(ranges: Iterable[Owned]) -> tuple[Owned, Owned] | None:
    """Two ranges that overlap; None if no two do."""
    by_place = sorted(ranges, key=lambda owned: owned[1])
    return next((pair for pair in pairwise(by_place) if pair[0][1].overlaps(pair[1][1])), None)


def without_overlaps(
    pools: Iterable[Pool],
) -> tuple[tuple[Pool, ...], tuple[tuple[Pool, str], ...]]:
    """The pools that can be used together, in the order of their names, and the others, each with
    the reason. Of two that overlap the one with the later name is refused, and of two with the same
    name the later one."""
    kept, refused = dict[str, Pool](), list[tuple[Pool, str]]()
    places = list[tuple[AddressRange, str]]()
    for pool in sorted(pools, key=lambda each: each.name):
        reason = "another pool has this name" if pool.name in kept else _clash(pool, places)
        if reason:
            refused.append((pool, reason))
            continue
        kept[pool.name] = pool
        for each in pool.ranges:
            insort(places, (each, pool.name))
    return tuple(kept.values()), tuple(refused)


def _clash(pool: Pool, places: list[tuple[AddressRange, str]]) -> str:
    """Why a pool cannot be used beside others, whose ranges are given in order."""
    for each in pool.ranges:
        after = bisect_right(places, each, key=lambda each: each[0])
        for other, name in places[max(after - 1, 0) : after + 1]:
            if each.overlaps(other):
                return f'{each} overlaps {other} of pool "{name}"; leave one out'
    return ""
