"""The Leases of the other nodes, and since when they have not changed."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass

from uproxy.core.announcing.leases import AnnouncerLease
from uproxy.core.announcing.reach import Reach
from uproxy.core.announcing.view import Announceable


@dataclass(slots=True)
class Peer:
    """Another node that announces, or has announced."""

    lease: AnnouncerLease
    changed_at: float
    """When its Lease was last seen to change."""
    since: float
    """When this run of its program was first seen."""
    reach: Reach
    gone: bool = False
    """Whether its Lease has been deleted. It counts until it would have expired: the node may be
    alive, and about to write it again."""

    def expires_at(self, watched_since: float) -> float:
        """When it may be taken for dead, if its Lease does not change before. Only time counts
        during which a change would have been seen."""
        return max(self.changed_at, watched_since) + self.lease.duration

    def able(self, each: Announceable) -> bool:
        """Whether it may announce an address, as far as it has said."""
        allowance = each.candidates.nodes.get(self.lease.node)
        if allowance is None or self.lease.released or self.lease.draining:
            return False
        if each.address in self.lease.unable:
            return False
        return bool(self.reach.choose(each.address, allowance.interfaces).interface)


class Peers:
    """The other nodes, by name."""

    def __init__(self) -> None:
        self._peers: dict[str, Peer] = {}
        self.holders: Mapping[str, tuple[str, ...]] = {}
        """By address: the nodes whose Leases say that they hold it."""
        self.version = 0
        """A number that increases with each change of more than renewals."""
        self.epochs: dict[str, int] = {}
        """The highest epoch seen of each address."""

    def __iter__(self) -> Iterator[Peer]:
        return iter(self._peers.values())

    def get(self, node: str) -> Peer | None:
        return self._peers.get(node)

    def listed(self, leases: Iterable[AnnouncerLease], now: float) -> None:
        """Take all Leases that there are. Those that are missing have been deleted."""
        found = {each.node: each for each in leases}
        for each in found.values():
            self.saw(each, now)
        for node, peer in self._peers.items():
            peer.gone = node not in found

    def saw(self, lease: AnnouncerLease, now: float) -> bool:
        """Note a Lease. Returns whether more than its renewal is new. A list may come from a cache
        that is behind, so an older state is ignored."""
        known = self._peers.get(lease.node)
        if known is None:
            reach = Reach.of_lease(lease.interfaces)
            self._peers[lease.node] = Peer(lease, now, now, reach)
            self._index()
            return True
        before = known.lease
        known.gone = False
        if is_older(lease, before):
            return False
        if (lease.instance, lease.renewals) != (before.instance, before.renewals):
            known.changed_at = now
        if lease.instance != before.instance:
            known.since = now
        known.lease = lease
        if lease.interfaces != before.interfaces:
            known.reach = Reach.of_lease(lease.interfaces)
        if _content(lease) == _content(before):
            return False
        self._index()
        return True

    def deleted(self, node: str) -> None:
        if node in self._peers:
            self._peers[node].gone = True

    def forget(self, node: str) -> None:
        """Drop a node whose Lease is gone and would have expired."""
        del self._peers[node]
        self._index()

    def forget_epochs(self, wanted: Container[str]) -> None:
        """Drop those of addresses that no Service has any more, and no Lease."""
        for address in [each for each in self.epochs if each not in wanted]:
            leases = (each.lease for each in self._peers.values())
            if not any(address in each.holds or address in each.claims for each in leases):
                del self.epochs[address]

    def _index(self) -> None:
        holders: dict[str, tuple[str, ...]] = {}
        for node, peer in self._peers.items():
            if peer.lease.released:
                continue
            for address, epoch in peer.lease.holds.items():
                holders[address] = (*holders.get(address, ()), node)
                self.epochs[address] = max(self.epochs.get(address, 0), epoch)
            for address, epoch in peer.lease.claims.items():
                self.epochs[address] = max(self.epochs.get(address, 0), epoch)
        self.holders = holders
        self.version += 1


def is_older(lease: AnnouncerLease, than: AnnouncerLease) -> bool:
    """Whether a Lease was written before another one of the same node. Versions are compared where
    they are numbers, as those of every API server are (KEP-5504)."""
    if lease.version.isdecimal() and than.version.isdecimal():
        return int(lease.version) < int(than.version)
    return lease.instance == than.instance and lease.renewals < than.renewals


def _content(lease: AnnouncerLease) -> tuple[object, ...]:
    """Everything but the renewal."""
    own = lease.instance, lease.duration, lease.draining, lease.hears, lease.unable
    return (*own, lease.interfaces, lease.holds, lease.claims)
