"""Which Service holds which addresses of pools, and what forbids it to hold others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from uproxy.core.allocation.pool_table import PoolAddresses, PoolTable
from uproxy.core.allocation.requests import Request
from uproxy.core.allocation.sharing import Holders, Sharing
from uproxy.core.cluster.objects import ObjectName
from uproxy.core.ip import FAMILIES, Family, family_of

MOST: Final = 2**63 - 1
"""What the status of an IPAddressPool says of pools with more addresses."""


class PoolUsage(NamedTuple):
    """How many addresses of one family a pool has given away, and how many it still has."""

    assigned: int
    available: int


class Holdings:
    """What all Services hold.

    `taken` says why an address may not be handed out at all; "" if it may. `known` has addresses
    that are known to be taken, for they are not counted as free.
    """

    def __init__(
        self, table: PoolTable, taken: Callable[[str], str], known: Iterable[str] = ()
    ) -> None:
        self.table = table
        self.taken = taken
        self.holders = Holders()
        self._assigned = dict.fromkeys(
            ((name, family) for name in table.by_name for family in FAMILIES), 0
        )
        self._lost = dict(self._assigned)
        """How many of these are not available any more to others."""
        self._withheld: dict[str, tuple[str, Family]] = {}
        """The pool and family of each address of which it is known that it is taken."""
        for address in known:
            self._withhold(address)

    def hold(self, name: ObjectName, addresses: Iterable[str], sharing: Sharing) -> None:
        """Make a Service hold addresses, which `refusal` must allow."""
        for address in addresses:
            if address not in self.holders:
                self._count(address, 1)
            self.holders.put(address, name, sharing)

    def release(self, name: ObjectName, addresses: Iterable[str]) -> None:
        """Take addresses from a Service that holds them."""
        for address in addresses:
            self.holders.remove(address, name)
            if address not in self.holders:
                self._count(address, -1)
                pool = self.table.pool_of(address)
                if pool is not None:
                    pool.give_back(address, name)

    def recheck(self, address: str) -> bool:
        """Note that `taken` may say something else of an address than before. Returns whether a
        pool has it."""
        pool = self.table.pool_of(address)
        if pool is None:
            return False
        pool.give_back(address)
        self._withhold(address)
        return True

    def is_free(self, address: str) -> bool:
        """Whether an address of a pool can be handed out to a Service that shares with none."""
        return address not in self.holders and not self.taken(address)

    def refusal(self, request: Request, addresses: tuple[str, ...], *, new: bool) -> str:
        """Why a Service may not hold addresses, or not if they are `new` to it; "" if it may."""
        pools = {each: self.table.pool_of(each) for each in addresses}
        for address, pool in pools.items():
            reason = self._exception(request, address, pool, new=new)
            if reason:
                return reason
        if len(set(pools.values())) > 1:
            names = ", ".join(f"{each} of {pool.pool.name}" for each, pool in pools.items() if pool)
            return f"{names} are in different pools"
        found = (self.holders.refusal(each, request.name, request.sharing) for each in addresses)
        return next(filter(None, found), "")

    def usage(self) -> Mapping[str, Mapping[Family, PoolUsage]]:
        """The use of each pool, by its name."""
        return {
            name: {
                family: self._usage(name, family, pool.free(family).capacity) for family in FAMILIES
            }
            for name, pool in self.table.by_name.items()
        }

    def _exception(
        self, request: Request, address: str, pool: PoolAddresses | None, *, new: bool
    ) -> str:
        if pool is None:
            return f'"{address}" is not allowed in config: no pool has it'
        misfit = pool.misfit(request)
        if misfit:
            return f'pool "{pool.pool.name}" not compatible for ip assignment: it is {misfit}'
        reason = pool.exception(address, request.name, new=new)
        # A holder keeps what has since become the address of a node: then the node is likely to
        # have taken over what this program announces there.
        if not reason and new:
            reason = self.taken(address)
        return f'"{address}" is not allowed in config: {reason}' if reason else ""

    def _usage(self, name: str, family: Family, capacity: int) -> PoolUsage:
        available = capacity - self._lost[name, family]
        available -= sum(
            where == (name, family) and address not in self.holders
            for address, where in self._withheld.items()
        )
        return PoolUsage(self._assigned[name, family], min(available, MOST))

    def _withhold(self, address: str) -> None:
        pool = self.table.pool_of(address)
        self._withheld.pop(address, None)
        if pool is not None and pool.position(address) is not None and self.taken(address):
            self._withheld[address] = (pool.pool.name, family_of(address))

    def _count(self, address: str, more: int) -> None:
        pool = self.table.pool_of(address)
        if pool is not None:
            key = pool.pool.name, family_of(address)
            self._assigned[key] += more
            self._lost[key] += more * (pool.position(address) is not None)
