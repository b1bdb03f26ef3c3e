"""All addresses that may have to be announced, kept up to date Service by Service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from uproxy.core.allocation.pools import Pool, PoolsByAddress
from uproxy.core.announcing.advertisements import Advertisement
from uproxy.core.announcing.candidates import candidates, for_pool, for_service, only_at
from uproxy.core.announcing.service_needs import ServiceNeeds, service_needs
from uproxy.core.announcing.view import Announceable, Candidates, ClusterNode
from uproxy.core.cluster.objects import EndpointSlice, ObjectName, Service
from uproxy.core.ip import Family, family_of


class Announceables:
    """All addresses that may have to be announced.

    A change of one Service works out its addresses only, since a rollout changes endpoints many
    times in a second, and a cluster may have thousands of addresses.
    """

    def __init__(self) -> None:
        self._services: dict[ObjectName, ServiceNeeds] = {}
        self._by_address: dict[str, set[ObjectName]] = {}
        self._pools: Sequence[Pool] = ()
        self._advertisements: Sequence[Advertisement] = ()
        self._nodes: Mapping[str, ClusterNode] = {}
        self._candidates: dict[tuple[str, tuple[str, ...]], Candidates] = {}
        """By pool, and the names of the advertisements that concern the Service."""
        self._pools_by_address = PoolsByAddress()
        self._stale: set[str] = set()
        self._current: Mapping[str, Announceable] = {}

    def put(self, service: Service, slices: Sequence[EndpointSlice]) -> None:
        """Add or replace a Service, with all of its EndpointSlices."""
        needs = service_needs(service, slices)
        if needs is None:
            self.remove(service.key)
        elif needs != self._services.get(service.key):
            self.remove(service.key)
            self._services[service.key] = needs
            self._stale.update(needs.addresses)
            for address in needs.addresses:
                self._by_address.setdefault(address, set()).add(service.key)

    def remove(self, name: ObjectName) -> None:
        """Remove a Service, if it is there."""
        needs = self._services.pop(name, None)
        if needs is None:
            return
        self._stale.update(needs.addresses)
        for address in needs.addresses:
            names = self._by_address[address]
            names.discard(name)
            if not names:
                del self._by_address[address]

    def configure(
        self,
        pools: Sequence[Pool],
        advertisements: Sequence[Advertisement],
        nodes: Mapping[str, ClusterNode],
    ) -> None:
        """Set everything that concerns all Services. Advertisements have different names."""
        if (pools, advertisements, nodes) == (self._pools, self._advertisements, self._nodes):
            return
        if pools != self._pools:
            self._pools_by_address = PoolsByAddress(pools)
        self._pools, self._advertisements, self._nodes = pools, advertisements, nodes
        self._candidates.clear()
        self._stale.update(self._by_address)

    def current(self) -> Mapping[str, Announceable]:
        """Every address, by itself. The same object as before if nothing has changed."""
        if self._stale:
            changed = {each: self._announceable(each) for each in self._stale}
            self._stale = set()
            after = {**self._current, **{a: each for a, each in changed.items() if each}}
            for address, each in changed.items():
                if each is None:
                    after.pop(address, None)
            self._current = after
        return self._current

    def _announceable(self, address: str) -> Announceable | None:
        pool = self._pools_by_address.pool_of(address)
        names = sorted(self._by_address.get(address, ()))
        if pool is None or not names:
            return None
        needs = [self._services[name] for name in names]
        found, reason = self._allowed(address, pool, needs)
        return Announceable(address=address, services=tuple(names), candidates=found, reason=reason)

    def _allowed(
        self, address: str, pool: Pool, needs: Sequence[ServiceNeeds]
    ) -> tuple[Candidates, str]:
        """Who may announce an address, or why no node may."""
        of_pool = for_pool(pool, self._advertisements)
        nobody = Candidates(pool=pool.name, otherwise="no node may")
        if not of_pool:
            return nobody, f"no L2Advertisement is for pool {pool.name}"
        if len(needs) > 1 and any(each.service_selectors for each in of_pool):
            others = " and ".join(str(each.name) for each in needs)
            return nobody, (
                f"{others} share {address}, which an L2Advertisement with serviceSelectors does not"
                " allow"
            )
        ads = for_service(of_pool, dict(needs[0].labels))
        if not ads:
            return nobody, f"no L2Advertisement of pool {pool.name} selects {needs[0].name}"
        key = pool.name, tuple(each.name for each in ads)
        if key not in self._candidates:
            self._candidates[key] = candidates(pool.name, ads, self._nodes)
        return _by_policy(self._candidates[key], needs, family_of(address))


def _by_policy(
    found: Candidates, needs: Sequence[ServiceNeeds], family: Family
) -> tuple[Candidates, str]:
    """The candidates that have the endpoints that externalTrafficPolicy asks for."""
    if not any(family in each.served for each in needs):
        names = " and ".join(str(each.name) for each in needs)
        return found, f"no endpoint of {names} is ready"
    local = [each for each in needs if each.local]
    if not local:
        return found, "" if found.nodes else _nobody(found)
    nodes = frozenset.intersection(*(each.nodes_of(family) for each in local))
    names = " and ".join(str(each.name) for each in local)
    reason = f"it has no ready endpoint of {names} (externalTrafficPolicy Local)"
    chosen = only_at(found, nodes, reason)
    if chosen.nodes:
        return chosen, ""
    if not found.nodes:
        return chosen, _nobody(found)
    each_has_some = all(each.nodes_of(family) for each in local)
    if len(local) > 1 and each_has_some and not nodes:
        return chosen, (
            f"{names} share it with externalTrafficPolicy Local, and no node has ready endpoints of"
            " all of them"
        )
    return chosen, (
        f"no node that may announce it has a ready endpoint of {names} (externalTrafficPolicy"
        " Local)"
    )


def _nobody(found: Candidates) -> str:
    """Why the cluster's objects allow no node."""
    reasons = sorted(set(found.refused.values()))
    return f"no node may announce it: {'; '.join(reasons)}" if reasons else "there are no nodes"
