"""The pools and advertisements that are in effect, from flags and from objects of the cluster."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Generic, NamedTuple, TypeVar

from uproxy.control.load_balancer.objects import LoadBalancerObjects
from uproxy.core.allocation.ip_address_pools import (
    MAX_RANGES,
    IPAddressPool,
    misspelt_annotations,
    pool_from_object,
)
from uproxy.core.allocation.pools import Pool, without_overlaps
from uproxy.core.allocation.ranges import AddressRange, RangeSet
from uproxy.core.announcing.advertisements import EVERYWHERE, Advertisement
from uproxy.core.announcing.l2_advertisements import advertisement_from_object
from uproxy.core.brief import brief
from uproxy.core.cluster.decode import DecodeError
from uproxy.core.cluster.objects import ApiObject, ObjectName
from uproxy.core.report.status import ObjectStatus
from uproxy.core.report.unusable_objects import bounded, log_lines

log = logging.getLogger(__name__)

T = TypeVar("T", bound=ApiObject)
V = TypeVar("V")


class InEffect(NamedTuple):
    """What is in effect at one moment."""

    pools: tuple[Pool, ...]
    """By name. No two overlap."""
    advertisements: tuple[Advertisement, ...]
    errors: tuple[ObjectStatus, ...]
    """The objects that are not, or only in part, and why."""


class Catalog:
    """Combines the pools of flags with the objects, and keeps out what cannot be used.

    Addresses that Services have are taken away from them as late as possible. An object that was
    usable before stays in effect as it was. Otherwise an unusable pool hands out nothing, but its
    Services keep their addresses, as far as its ranges can be read and belong to no other pool.
    """

    def __init__(self, flags: Sequence[Pool], objects: LoadBalancerObjects | None = None) -> None:
        """`flags`: the pools that come from flags, or from the configuration file."""
        self._flags = tuple(flags)
        self._objects = objects
        self._pools = _LastGood(pool_from_object)
        self._advertisements = _LastGood(advertisement_from_object)
        self._observers: list[Callable[[], None]] = []
        self._in_effect: InEffect | None = None
        self._logged: tuple[ObjectStatus, ...] = ()
        if objects is not None:
            objects.observe(self._changed)

    def set_flags(self, flags: Sequence[Pool]) -> None:
        """The configuration was reloaded."""
        if tuple(flags) != self._flags:
            self._flags = tuple(flags)
            self._changed()

    @property
    def flags(self) -> tuple[Pool, ...]:
        """Those that no object describes."""
        return self._flags

    def observe(self, changed: Callable[[], None]) -> None:
        """Have `changed` called when something may have changed. It must not raise."""
        self._observers.append(changed)

    @property
    def pools(self) -> tuple[Pool, ...]:
        """All that are in effect; the same object as long as nothing changes."""
        return self._current().pools

    @property
    def advertisements(self) -> tuple[Advertisement, ...]:
        """All that are in effect; the same object as long as nothing changes."""
        return self._current().advertisements

    @property
    def namespaces(self) -> Mapping[str, Mapping[str, str]]:
        """The labels of each namespace, if pools may select by them."""
        return self._objects.namespaces if self._objects is not None else {}

    @property
    def complete(self) -> bool:
        """Whether all objects are known. Before, none may be missed."""
        return self._objects is None or self._objects.complete

    @property
    def errors(self) -> Sequence[ObjectStatus]:
        """Objects that cannot be used, and why."""
        found = self._current().errors
        if self._objects is not None:
            found = (*(each for some in self._objects.errors.values() for each in some), *found)
        return bounded(found, "objects of load balancers")

    def _changed(self) -> None:
        self._in_effect = None
        for changed in self._observers:
            changed()

    def _current(self) -> InEffect:
        if self._in_effect is None:
            self._in_effect = self._combined()
            for line in log_lines(self._logged, self._in_effect.errors):
                log.warning("%s", line)
            self._logged = self._in_effect.errors
        return self._in_effect

    def _combined(self) -> InEffect:
        if self._objects is None:
            return InEffect(self._flags, (EVERYWHERE,) if self._flags else (), ())
        read, errors = self._pools.read(self._objects.pools)
        found = list(read.values())
        found += _kept(each for name, each in self._objects.pools.items() if name not in read)
        # Of two with the same name the first is used.
        pools, refused = without_overlaps((*self._flags, *found))
        advertisements, unusable = self._advertisements.read(self._objects.advertisements)
        announced = list(advertisements.values())
        if self._flags:
            # Only they need no object to be announced.
            names = frozenset(each.name for each in self._flags)
            announced.append(replace(EVERYWHERE, pools=names))
        errors += (*unusable, *(_clash(pool, reason) for pool, reason in refused))
        errors += _misspelt(self._objects.pools)
        return InEffect((*pools, *_remains(pools, refused)), tuple(announced), tuple(errors))


class _LastGood(Generic[T, V]):
    """Reads objects of one kind, and remembers what those said last that could be read."""

    def __init__(self, parse: Callable[[T], V]) -> None:
        self._parse = parse
        self._known: dict[ObjectName, tuple[T, V]] = {}

    def read(
        self, objects: Mapping[ObjectName, T]
    ) -> tuple[dict[ObjectName, V], list[ObjectStatus]]:
        """What is in effect of each object, and why an object is not."""
        for name in self._known.keys() - objects.keys():
            del self._known[name]
        errors = [error for name in sorted(objects) for error in self._error(name, objects[name])]
        return {name: value for name, (_, value) in sorted(self._known.items())}, errors

    def _error(self, name: ObjectName, obj: T) -> Iterator[ObjectStatus]:
        known = self._known.get(name)
        if known is not None and known[0] == obj:
            return
        try:
            self._known[name] = obj, self._parse(obj)
        except DecodeError as error:
            yield ObjectStatus(
                where=brief(f"{type(obj).__name__} {name}"),
                field=brief(error.path),
                reason=brief(error.what),
            )


def _misspelt(pools: Mapping[ObjectName, IPAddressPool]) -> Iterator[ObjectStatus]:
    """Annotations that have no effect. Their pools have."""
    for name, pool in sorted(pools.items()):
        for annotation, reason in misspelt_annotations(pool.metadata.annotations or ()):
            yield ObjectStatus(
                where=brief(f"IPAddressPool {name}"),
                field=brief(f"metadata.annotations[{annotation}]"),
                reason=reason,
            )


def _kept(objects: Iterator[IPAddressPool]) -> Iterator[Pool]:
    """What is left of pools that cannot be used."""
    for each in objects:
        ranges = tuple(_readable(each.spec.addresses or ()))
        if ranges:
            yield Pool(
                name=each.metadata.name,
                ranges=ranges,
                auto_assign=False,
                drained=ranges,
                # Advertisements may select by them: what Services keep has to be announced.
                labels=tuple(sorted((each.metadata.labels or {}).items())),
            )


def _readable(texts: Sequence[str]) -> Sequence[AddressRange]:
    found = list[AddressRange]()
    # A pool with more is unusable for that reason alone, and 60,000 of them fit into an object.
    for text in texts[:MAX_RANGES]:
        with contextlib.suppress(ValueError):
            found.append(AddressRange.parse(text))
    return RangeSet(found).ranges


def _remains(pools: Sequence[Pool], refused: Sequence[tuple[Pool, str]]) -> Iterator[Pool]:
    """The addresses of pools that were refused, as far as they belong to no other pool."""
    names = {each.name for each in pools}
    taken = RangeSet(each for pool in pools for each in pool.ranges)
    for pool, _ in refused:
        ranges = tuple(part for each in pool.ranges for part in taken.outside(each))
        if ranges and pool.name not in names:
            names.add(pool.name)
            taken = RangeSet((*taken.ranges, *ranges))
            yield replace(pool, ranges=ranges, auto_assign=False, drained=ranges)


def _clash(pool: Pool, reason: str) -> ObjectStatus:
    return ObjectStatus(where=brief(f"pool {pool.name}"), field="", reason=brief(reason))
