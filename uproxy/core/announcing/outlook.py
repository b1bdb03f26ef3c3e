"""What this node knows of the others, and how far that can be relied on."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from math import inf

from uproxy.core.announcing.contest import preferred
from uproxy.core.announcing.own_lease import OwnLease
from uproxy.core.announcing.peers import Peer, Peers
from uproxy.core.announcing.standing import Standing
from uproxy.core.announcing.succession import EARLY
from uproxy.core.announcing.view import Announceable


class Outlook:
    """Who is alive, and who holds what."""

    def __init__(self, peers: Peers, own: OwnLease, *, alone: bool) -> None:
        self.live: Sequence[Peer] = ()
        self.last_holders: dict[str, str] = {}
        """The node that each address was last seen at; all nodes should agree on it."""
        self._peers, self._own, self._alone = peers, own, alone
        self._dead: frozenset[str] = frozenset()
        self._suspects: frozenset[str] = frozenset()
        self._preferred_since: dict[str, float] = {}
        self._version = -1

    def fresh(self, now: float) -> bool:
        """Whether what is known is up to date."""
        return self._alone or self._own.fresh(now)

    def doubtful(self, now: float) -> bool:
        """Whether another node may have taken our addresses without our knowing."""
        return not self.fresh(now)

    def joined(self) -> bool:
        """Whether this node is one of the announcers, and all nodes can know."""
        return self._alone or self._own.joined_at < inf

    def may_take(self, now: float) -> bool:
        """Whether this node may take addresses: it can write, and sees what others write."""
        return self._alone or (self._own.fresh(now) and self.joined())

    def judge(self, now: float) -> bool:
        """Find out which nodes are alive. Returns whether that has changed, or anything that Leases
        say."""
        dead = frozenset(p.lease.node for p in self._peers if self._is_dead(p, now))
        suspects = frozenset(p.lease.node for p in self._peers if self._is_suspect(p, now))
        for node in [p.lease.node for p in self._peers if p.gone and p.lease.node in dead]:
            self._peers.forget(node)
        changed = (dead, suspects, self._peers.version) != (
            self._dead,
            self._suspects,
            self._version,
        )
        if changed:
            self._dead, self._suspects, self._version = dead, suspects, self._peers.version
            self.live = tuple(
                p for p in self._peers if not p.lease.released and p.lease.node not in dead
            )
            for p in self.live:
                self.last_holders.update(dict.fromkeys(p.lease.holds, p.lease.node))
        return changed

    def forget(self, wanted: Container[str]) -> None:
        """Drop what is known of addresses that no Service has any more."""
        self._peers.forget_epochs(wanted)
        for known in (self.last_holders, self._preferred_since):
            for address in [each for each in known if each not in wanted]:
                del known[address]

    def holder(self, address: str, now: float) -> tuple[Peer | None, bool]:
        """The node that holds an address, and whether it is alive and well. A node that is about to
        hold it is alive as well."""
        found = [self._peers.get(node) for node in self._peers.holders.get(address, ())]
        holders = [each for each in found if each is not None]
        holders.sort(key=lambda each: -each.lease.holds[address])
        for each in holders:
            if each.lease.node not in self._dead and each.lease.node not in self._suspects:
                return each, True
        for each in self.live:
            if address in each.lease.claims and each.lease.node not in self._suspects:
                return each, True
        return (holders[0] if holders else None), False

    def rival(self, address: str, epoch: int) -> str:
        """The node that has a better right to an address than this one; "" if there is none."""
        for node in self._peers.holders.get(address, ()):
            peer = self._peers.get(node)
            if peer is None or node in self._dead:
                continue
            theirs = peer.lease.holds[address]
            if theirs > epoch or (theirs == epoch and node < self._own.node):
                return node
        return ""

    def opposes(self, address: str, epoch: int, sent_at: float) -> bool:
        """Whether another node had an address, or was about to take it, before we were. It counts
        who was alive when our claim was sent: had such a node changed its Lease later, that would
        have been seen by now."""
        for peer in self._peers:
            lease = peer.lease
            if lease.released or sent_at >= peer.expires_at(self._own.watched_since):
                continue
            if address in lease.holds or lease.claims.get(address, -1) >= epoch:
                return True
        return False

    def preferred_since(self, each: Announceable, now: float) -> float:
        """Since when a node may have an address that is preferred to this one; inf if none may."""
        if not preferred(each, self._own.node, self.live):
            self._preferred_since.pop(each.address, None)
            return inf
        return self._preferred_since.setdefault(each.address, now)

    def explain(self, each: Announceable, standing: Standing, now: float) -> Mapping[str, str]:
        """For each node why it may not announce an address; "" if it may."""
        nodes = {*each.candidates.nodes, *each.candidates.refused, self._own.node}
        return {node: self.reason(node, each, standing, now) for node in sorted(nodes)}

    def reason(self, node: str, each: Announceable, standing: Standing, now: float) -> str:
        """Why a node may not announce an address; "" if it may."""
        if node == self._own.node:
            return standing.choose(each).reason
        refusal = each.reason or each.candidates.refusal(node)
        peer = self._peers.get(node)
        if refusal:
            return refusal
        if peer is None or peer.lease.released:
            return "it is not one of the announcers"
        if node in self._dead:
            return f"it has not renewed its Lease for {now - peer.changed_at:.0f} s"
        if peer.lease.draining:
            return "uproxy on it is stopping"
        if each.address in peer.lease.unable:
            return "its listeners are not open"
        return peer.reach.choose(each.address, each.candidates.nodes[node].interfaces).reason

    def _is_dead(self, peer: Peer, now: float) -> bool:
        node = peer.lease.node
        if self._own.joined_at == inf:
            # Nothing proves that renewals would be seen. What is decided by this is only whether to
            # join the announcers, which does no harm.
            return now >= peer.changed_at + peer.lease.duration + 1.0
        if not self._own.fresh(now):
            return node in self._dead and now >= peer.changed_at + peer.lease.duration
        return now >= peer.expires_at(self._own.watched_since)

    def _is_suspect(self, peer: Peer, now: float) -> bool:
        return self._own.fresh(now) and now >= peer.expires_at(self._own.watched_since) - EARLY
