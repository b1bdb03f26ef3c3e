"""All pools together: which has an address, and which a Service may use."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Final

from uproxy.core.allocation.free_addresses import FreeAddresses, is_buggy
from uproxy.core.allocation.pools import Pool, PoolsByAddress
from uproxy.core.allocation.ranges import AddressRange, RangeSet, place
from uproxy.core.allocation.requests import Request
from uproxy.core.cluster.objects import ObjectName
from uproxy.core.ip import FAMILIES, Family

_NEAREST: Final = 10
"""How many reservations are looked at to say for which Service an address is reserved."""

Namespaces = Mapping[str, Mapping[str, str]]
"""The labels of each namespace."""


class PoolAddresses:
    """One pool, with what of it is free, reserved or drained."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.namespaces: frozenset[str] | None = None
        """Those that it is for; None: all."""
        self._drained = RangeSet(pool.drained)
        self._reservations = sorted(pool.reservations, key=lambda each: each.addresses)
        self._reserved = RangeSet(each.addresses for each in pool.reservations)
        exceptions = RangeSet((*pool.drained, *self._reserved.ranges))
        self._free = _free(pool, (p for each in pool.ranges for p in exceptions.outside(each)))
        own = dict[ObjectName, list[AddressRange]]()
        for addresses, service in pool.reservations:
            if service is not None:
                own.setdefault(service, []).append(addresses)
        self._own = {name: RangeSet(ranges) for name, ranges in own.items()}
        whole = RangeSet(pool.ranges)
        self._own_free = {
            name: _free(pool, _own_free(each, whole, self._drained))
            for name, each in self._own.items()
        }

    @property
    def priority(self) -> tuple[bool, float, str]:
        """Where it stands among the pools that a Service may use. Those with a serviceAllocation
        come first, by their numbers; 0 stands for none, and comes last."""
        allocation = self.pool.allocation
        number = (allocation.priority if allocation else 0) or float("inf")
        return allocation is None, number, self.pool.name

    @property
    def reserved_for(self) -> Iterable[ObjectName]:
        """The Services for which some of it is reserved."""
        return self._own

    def free(self, family: Family) -> FreeAddresses:
        """What may be handed out to every Service that may use the pool."""
        return self._free[family]

    def own_free(self, name: ObjectName, family: Family) -> FreeAddresses | None:
        """What is reserved for a Service; None if nothing is."""
        own = self._own_free.get(name)
        return None if own is None else own[family]

    def give_back(self, address: str, name: ObjectName | None = None) -> None:
        """Note that an address may have become free. `name` held it, if it is known."""
        family, number = place(address)
        self._free[family].give_back(number)
        concerned = self._own_free if name is None else self._own_free.keys() & {name}
        for each in concerned:
            self._own_free[each][family].give_back(number)

    def position(self, address: str) -> int | None:
        """Where an address stands among those that every Service may get; None if it is none."""
        family, number = place(address)
        return self._free[family].position(number)

    def misfit(self, request: Request) -> str:
        """Why the pool is not for a Service; "" if it is."""
        allocation = self.pool.allocation
        if self.namespaces is not None and request.name.namespace not in self.namespaces:
            return f"not for namespace {request.name.namespace}"
        selectors = allocation.service_selectors if allocation else ()
        if selectors and not any(each.matches(request.labels) for each in selectors):
            return "not for the labels of this Service"
        return ""

    def exception(self, address: str, name: ObjectName, *, new: bool) -> str:
        """Why a Service may not have an address of this pool, or not if it is `new`."""
        family, number = place(address)
        if self.pool.avoid_buggy_ips and family == "IPv4" and is_buggy(number):
            return "the pool avoids addresses that end in .0 and .255"
        if new and self._drained.has(family, number):
            return "it is drained"
        own = self._own.get(name)
        if self._reserved.has(family, number) and not (own and own.has(family, number)):
            return self._reservation(family, number)
        return ""

    def _reservation(self, family: Family, number: int) -> str:
        key = AddressRange(family, number, number)
        after = bisect_right(
            self._reservations, (family, number, float("inf")), key=lambda each: each.addresses
        )
        for each in reversed(self._reservations[max(0, after - _NEAREST) : after]):
            if each.service is not None and each.addresses.overlaps(key):
                return f"it is reserved for {each.service}"
        return "it is reserved"


class PoolTable:
    """All pools. They do not overlap."""

    def __init__(self, pools: Iterable[Pool]) -> None:
        self.pools = tuple(sorted(pools, key=lambda each: each.name))
        self.by_name = {pool.name: PoolAddresses(pool) for pool in self.pools}
        self._by_address = PoolsByAddress(self.pools)
        automatic = sorted(
            (each for each in self.by_name.values() if each.pool.auto_assign),
            key=lambda each: each.priority,
        )
        self._pinned = [each for each in automatic if each.pool.allocation is not None]
        self._others = [each for each in automatic if each.pool.allocation is None]
        self._reserved_for = dict[ObjectName, list[PoolAddresses]]()
        for each in self.by_name.values():
            for name in each.reserved_for:
                self._reserved_for.setdefault(name, []).append(each)

    def set_namespaces(self, namespaces: Namespaces) -> bool:
        """Say which namespaces there are. Returns whether it makes a difference."""
        changed = False
        for each in self.by_name.values():
            found = _namespaces(each.pool, namespaces)
            changed = changed or found != each.namespaces
            each.namespaces = found
        return changed

    def pool_of(self, address: str) -> PoolAddresses | None:
        """The pool that has an address."""
        found = self._by_address.pool_of(address)
        return None if found is None else self.by_name[found.name]

    def reserved_for(self, name: ObjectName) -> list[PoolAddresses]:
        """The pools some of which is reserved for a Service, in the order of their names."""
        return self._reserved_for.get(name, [])

    def candidates(self, request: Request) -> list[PoolAddresses]:
        """The pools from which a Service may get an address, in the order in which they are
        tried: first those that are meant for it."""
        return [*self._meant_for(request), *self._others]

    def kind(self, request: Request) -> Hashable:
        """Equal for Services that can get the same addresses; None for one that can get what no
        other can."""
        special = request.addresses or request.pool or request.sharing.key or request.problem
        if special or request.name in self._reserved_for:
            return None
        meant = tuple(each.pool.name for each in self._meant_for(request))
        return request.families, request.prefers_both, meant

    def _meant_for(self, request: Request) -> list[PoolAddresses]:
        return [each for each in self._pinned if not each.misfit(request)]


def _namespaces(pool: Pool, namespaces: Namespaces) -> frozenset[str] | None:
    allocation = pool.allocation
    if allocation is None or not (allocation.namespaces or allocation.namespace_selectors):
        return None
    selected = (
        name
        for name, labels in namespaces.items()
        if any(each.matches(labels) for each in allocation.namespace_selectors)
    )
    return allocation.namespaces.union(selected)


def _free(pool: Pool, ranges: Iterable[AddressRange]) -> dict[Family, FreeAddresses]:
    parts = list(ranges)
    return {
        family: FreeAddresses(
            (each for each in parts if each.family == family),
            avoid_buggy=pool.avoid_buggy_ips and family == "IPv4",
        )
        for family in FAMILIES
    }


def _own_free(own: RangeSet, whole: RangeSet, drained: RangeSet) -> Iterator[AddressRange]:
    """What of the ranges that are reserved for a Service can be handed out to it."""
    inside = (part for each in own.ranges for part in whole.inside(each))
    return (part for each in inside for part in drained.outside(each))
