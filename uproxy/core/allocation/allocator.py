"""Which Service holds which addresses, and what is decided about each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from uproxy.core.allocation.decisions import Decision
from uproxy.core.allocation.pools import Pool
from uproxy.core.cluster.objects import ObjectName, Service
from uproxy.core.ip import Family


class PoolUsage(NamedTuple):
    """How many addresses of one family a pool has given away, and how many it still has."""

    assigned: int
    available: int


class Allocator:
    """Hands out the addresses of pools.

    Changes are collected by the other methods and take effect in `converge`. `taken` says why an
    address may not be handed out at all, for example "an address of node worker-2"; "" if it may.
    """

    def __init__(self, taken: Callable[[str], str] = lambda _: "") -> None:
        self._taken = taken
        self.decisions: dict[ObjectName, Decision] = {}
        """What holds for each Service that is, or was, for uproxy. Without Events."""

    def put(self, service: Service) -> None:
        """Take note of a Service, as it is in the cluster now."""

    def remove(self, name: ObjectName) -> None:
        """Forget a Service that has been deleted."""

    def set_pools(self, pools: Iterable[Pool]) -> None:
        """Set all pools. They must not overlap (see `pools.without_overlaps`)."""

    def set_namespaces(self, labels: Mapping[str, Mapping[str, str]]) -> None:
        """Set the labels of all namespaces, by which pools may select."""

    def recheck(self, addresses: Iterable[str]) -> None:
        """Ask `taken` again about these addresses."""

    def converge(self, *, complete: bool) -> Sequence[Decision]:
        """Decide about all that has changed. Returns the decisions that are new, that differ from
        those before, or whose Service has changed, so that it may have to be written again.

        `complete` says that every Service and pool is known, and that it is this process that
        decides. Before, what statuses hold is adopted, and nothing is cleared or handed out.
        When it becomes true, all is built up again from the statuses.
        """
        return []

    def usage(self) -> Mapping[str, Mapping[Family, PoolUsage]]:
        """The use of each pool, by the pool's name."""
        return {}
