"""Updates the routing table when the cluster or this machine changes, a few Services at a time."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator, Sequence, Set
from typing import TypeVar

from uproxy.control.service_addresses import ServiceAddresses
from uproxy.core.backoff import Backoff
from uproxy.core.cluster.objects import ObjectName
from uproxy.core.cluster.state import ClusterState
from uproxy.core.retry import RetrySchedule
from uproxy.core.route import Frontend
from uproxy.core.routing.build import advance, needs_deriving
from uproxy.core.routing.options import RoutingOptions
from uproxy.core.routing.options_change import OptionsChange
from uproxy.core.routing.table import RoutingTable

_AT_ONCE = 64
"""Services that are derived before other tasks of the event loop run, about 5 ms."""

_LOOKED_AT = 1000
"""Services or frontends that are looked at before other tasks run, about 5 ms as well."""

T = TypeVar("T")


class TableBuilder:
    """Owns the routing table."""

    def __init__(
        self,
        state: ClusterState,
        service_addresses: ServiceAddresses,
        options: RoutingOptions,
        retry: Backoff,
    ) -> None:
        self.table = RoutingTable(options=options)
        self.retry = RetrySchedule(retry)
        """When to derive the Services again that could not be derived."""
        self._state = state
        self._service_addresses = service_addresses
        self._own = state.hosts.own
        self._here = options.local_addresses
        """Addresses that need not be claimed: those of interfaces, and of our Node."""
        self._all_addresses = False
        self._pending: set[Frontend] = set()
        """What `update` is going to return. It is kept here, so that nothing is lost if a call is
        cancelled or fails half-way."""

    def look_at_all_addresses(self) -> None:
        """Claims have become possible: the next update finds out for all addresses."""
        self._all_addresses = True

    async def update(self, options: RoutingOptions) -> set[Frontend]:
        """Derive again the routes of what has changed; returns the frontends whose routes may
        differ from before."""
        if self.retry.due(time.monotonic()):
            self._state.mark_dirty(self.table.underived)
        dirty = self._state.take_dirty()
        try:
            await self._update(dirty, options)
        except BaseException:
            self._state.mark_dirty(dirty)
            raise
        if self.table.underived:
            self.retry.failed(time.monotonic(), random.random())
        else:
            self.retry.succeeded()
        pending, self._pending = self._pending, set()
        return pending

    async def _update(self, dirty: set[ObjectName], options: RoutingOptions) -> None:
        table = self.table
        change = OptionsChange(table.options or options, options)
        own = self._state.hosts.own
        moved = change.moved | (self._own ^ own)
        if moved:
            self._here = options.local_addresses | own
        if table.options != options:
            dirty = dirty | await self._affected(change)
            table = advance(self._state, options, table, ())
        for few in _chunks(list(dirty), _AT_ONCE):
            table = advance(self._state, options, table, few)
            self._pending |= table.changed
            self._service_addresses.update(table, table.changed, self._here)
            await asyncio.sleep(0)
        await self._look_at_addresses(table, moved)
        self.table, self._own = table, own

    async def _affected(self, change: OptionsChange) -> set[ObjectName]:
        table, found = self.table, set[ObjectName]()
        for few in _chunks(list(table.services), _LOOKED_AT):
            found.update(each for each in few if needs_deriving(change, self._state, table, each))
            await asyncio.sleep(0)
        return found

    async def _look_at_addresses(self, table: RoutingTable, moved: Set[str]) -> None:
        """Find out which addresses have to be claimed now, or no longer."""
        everything = self._all_addresses
        if not everything and not moved:
            return
        for few in _chunks(list(table.routes), _LOOKED_AT):
            some = few if everything else [each for each in few if each.address in moved]
            self._pending |= self._service_addresses.update(table, some, self._here)
            await asyncio.sleep(0)
        self._all_addresses = False


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
