"""Looks for addresses that a Service could have."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple

from uproxy.core.allocation.holdings import Holdings
from uproxy.core.allocation.pool_table import PoolAddresses
from uproxy.core.allocation.ranges import quoted
from uproxy.core.allocation.requests import Request
from uproxy.core.allocation.sharing import Sharing
from uproxy.core.ip import Family, family_of

_FEW: Final = 3
"""Of a pool with so few addresses the reason names every holder. With more, it would change each
time one of them changes, and with it the condition of every Service that waits."""


class Choice(NamedTuple):
    """The addresses that a Service gets, or the reason why it gets none."""

    addresses: tuple[str, ...] = ()
    pool: str = ""
    reason: str = ""


class Search:
    """One search for many Services, during which addresses are handed out and none comes free.

    So what failed for one Service is not tried again for the next one like it.
    """

    def __init__(self, holdings: Holdings) -> None:
        self._holdings = holdings
        self._table = holdings.table
        self.failures: dict[Hashable, Choice] = {}
        """By kind of Service (see `PoolTable.kind`): what has come to nothing."""
        self._used_up: set[tuple[PoolAddresses, tuple[Family, ...]]] = set()
        self._not_shared: dict[tuple[str, Family, Sharing], int] = {}
        """How many of the first addresses of a group have been found not to fit."""

    def choose(self, request: Request, preferred: Iterable[str]) -> Choice:
        """What a Service without addresses gets. Of those `preferred` it gets what it may have:
        they are those that it had before."""
        if request.problem:
            return Choice(reason=request.problem)
        if request.addresses:
            return self._requested(request)
        if request.pool:
            return self._named(request, preferred)
        own = self._table.reserved_for(request.name)
        if own:
            choice = self._from(request, own, preferred)
            if choice.addresses:
                return choice
        return self._automatic(request, preferred)

    def additional(self, request: Request, address: str, preferred: Iterable[str]) -> Choice:
        """An address of the other family from the pool of the one that a Service has."""
        pool = self._table.pool_of(address)
        assert pool is not None
        families = [each for each in request.families if each != family_of(address)]
        found = self._complete(request, pool, families, preferred)
        if found is None:
            return Choice(reason=self._exhausted(request, [pool], families))
        return Choice((address, *found), pool.pool.name)

    def _requested(self, request: Request) -> Choice:
        addresses = request.addresses
        text = " ".join(f'"{each}"' for each in addresses)
        if {family_of(each) for each in addresses} != set(request.families):
            return Choice(
                reason=f"requested loadBalancer IP(s) [{text}] does not match the ipFamily of the "
                f"service, which is {' and '.join(request.families)}"
            )
        reason = self._holdings.refusal(request, addresses, new=True)
        if reason:
            return Choice(reason=reason)
        pool = self._table.pool_of(addresses[0])
        assert pool is not None
        if request.pool and request.pool != pool.pool.name:
            return Choice(
                reason=f"requested loadBalancer IP(s) [{text}] is not compatible with requested "
                f"address pool {quoted(request.pool)}"
            )
        return Choice(addresses, pool.pool.name)

    def _named(self, request: Request, preferred: Iterable[str]) -> Choice:
        pool = self._table.by_name.get(request.pool)
        if pool is None:
            return Choice(reason=f"unknown pool {quoted(request.pool)}")
        misfit = pool.misfit(request)
        if misfit:
            return Choice(reason=f'pool "{pool.pool.name}" is {misfit}')
        return self._from(request, [pool], preferred)

    def _automatic(self, request: Request, preferred: Iterable[str]) -> Choice:
        kind = self._table.kind(request)
        choice = self.failures.get(kind)
        if choice is None:
            choice = self._from(request, self._table.candidates(request), preferred)
            if choice.reason and kind is not None:
                self.failures[kind] = choice
        return choice

    def _from(
        self, request: Request, pools: Sequence[PoolAddresses], preferred: Iterable[str]
    ) -> Choice:
        """From the first pool that has every family; with PreferDualStack, else from the first
        that has the primary one, else the other."""
        wishes: list[tuple[Family, ...]] = [request.families]
        if request.prefers_both:
            wishes += [(each,) for each in request.families]
        plain = self._table.kind(request) is not None
        for families in wishes:
            for pool in pools:
                if plain and (pool, families) in self._used_up:
                    continue
                found = self._complete(request, pool, families, preferred)
                if found is not None:
                    return Choice(found, pool.pool.name)
                if plain:
                    self._used_up.add((pool, families))
        return Choice(reason=self._exhausted(request, pools, request.families))

    def _complete(
        self,
        request: Request,
        pool: PoolAddresses,
        families: Iterable[Family],
        preferred: Iterable[str],
    ) -> tuple[str, ...] | None:
        """One address of each family; None if the pool lacks one of them."""
        found = list[str]()
        for family in families:
            address = self._first(request, pool, family, preferred)
            if not address:
                return None
            found.append(address)
        return tuple(found)

    def _first(
        self, request: Request, pool: PoolAddresses, family: Family, preferred: Iterable[str]
    ) -> str:
        for address in preferred:
            if family_of(address) == family and self._is_for(request, pool, address):
                return address
        own = pool.own_free(request.name, family)
        found = own.first(self._holdings.is_free) if own else None
        if found is not None:
            return found[1]
        free = pool.free(family).first(self._holdings.is_free)
        found = min(filter(None, (free, self._shared(request, pool, family))), default=None)
        return found[1] if found else ""

    def _is_for(self, request: Request, pool: PoolAddresses, address: str) -> bool:
        return self._table.pool_of(address) is pool and not self._holdings.refusal(
            request, (address,), new=True
        )

    def _shared(
        self, request: Request, pool: PoolAddresses, family: Family
    ) -> tuple[int, str] | None:
        """The position of the first address in use that the Service may share, and the address."""
        key = pool.pool.name, family, request.sharing
        known = self._not_shared.get(key, 0)
        fitting = list[tuple[int, str]]()
        for address in islice(self._holdings.holders.of_group(request.sharing), known, None):
            position = self._position(request, pool, family, address)
            if position is not None:
                fitting.append((position, address))
            elif not fitting:
                self._not_shared[key] = known = known + 1
        return min(fitting, default=None)

    def _position(
        self, request: Request, pool: PoolAddresses, family: Family, address: str
    ) -> int | None:
        if family_of(address) != family or not self._is_for(request, pool, address):
            return None
        return pool.position(address)

    def _exhausted(
        self, request: Request, pools: Sequence[PoolAddresses], families: Sequence[Family]
    ) -> str:
        """Why these pools have no address for a Service."""
        if not self._table.pools:
            return "no available IPs: there are no pools"
        if not pools:
            return "no available IPs: no pool is for this Service"
        if len(pools) > 1:
            text = f"no available IPs in {len(pools)} pools for {' and '.join(families)}"
            sharers = (each for family in families for each in self._sharers(request, family))
            return _explained(text, sharers)
        [pool] = pools
        lacking = [each for each in families if not self._first(request, pool, each, ())]
        text = f'no available IPs in pool "{pool.pool.name}" for {" and ".join(lacking)}'
        return _explained(text, self._in_the_way(request, pool, lacking))

    def _in_the_way(
        self, request: Request, pool: PoolAddresses, families: Iterable[Family]
    ) -> Iterator[str]:
        for family in families:
            if pool.free(family).capacity <= _FEW:
                yield from self._holders(request, pool.free(family))
            else:
                yield from self._sharers(request, family)

    def _holders(self, request: Request, addresses: Iterable[str]) -> Iterator[str]:
        """Who holds the addresses of a small pool."""
        for address in addresses:
            holders = self._holdings.holders
            names = [str(name) for name in islice(holders[address], _FEW)]
            if names and request.sharing.key:
                yield holders.refusal(address, request.name, request.sharing)
            elif names:
                yield f"{address} is in use by {', '.join(names)}"
            elif taken := self._holdings.taken(address):
                yield f"{address} is {taken}"

    def _sharers(self, request: Request, family: Family) -> Iterator[str]:
        """Why an address that others share by the same key cannot be shared."""
        holders = self._holdings.holders
        shared = (each for each in holders.of_group(request.sharing) if family_of(each) == family)
        for address in islice(shared, 1):
            yield holders.refusal(address, request.name, request.sharing)


def _explained(text: str, reasons: Iterable[str]) -> str:
    return ": ".join(filter(None, (text, "; ".join(reasons))))
