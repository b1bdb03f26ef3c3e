"""Whether this node should have a Lease at all.

Every Lease is delivered to every node at each renewal. So of a large cluster only some nodes have
one, which are enough to take over from each other. Preferred nodes come first, since they are to
have the addresses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import inf
from typing import Final

from uproxy.core.announcing.peers import Peer
from uproxy.core.announcing.rendezvous import score
from uproxy.core.announcing.view import Announceable, Candidates

MOST: Final = 8
"""Announcers of one pool, except for others that hold an address already."""
STEP: Final = 0.5
"""Seconds after which the next eight nodes join, if the better ones do not."""
STAY: Final = 1.0
"""Seconds for which a node has to be superfluous before it leaves. Less than `pace.SETTLE`, so that
it has not taken an address yet if too many have joined at once."""


class Membership:
    """Whether this node should have a Lease."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._groups: Sequence[Announceable] = ()
        """One address for each set of candidates to which this node belongs."""
        self._lacking_since: dict[Candidates, float] = {}
        self._superfluous_since = inf
        self._ranks: dict[Candidates, int] = {}

    def consider(self, eligible: Iterable[Announceable]) -> None:
        """Take the addresses that this node may announce."""
        groups: Mapping[Candidates, Announceable] = {each.candidates: each for each in eligible}
        self._groups = tuple(groups.values())
        self._ranks = {each: rank for each, rank in self._ranks.items() if each in groups}
        before = self._lacking_since
        self._lacking_since = {each: at for each, at in before.items() if each in groups}

    def should_join(self, live: Sequence[Peer], now: float) -> bool:
        """Whether there are too few announcers without this node. The best ones join first."""
        for each in self._groups:
            if sum(self._counts(peer, each) for peer in live) >= MOST:
                self._lacking_since.pop(each.candidates, None)
                continue
            since = self._lacking_since.setdefault(each.candidates, now)
            if now >= since + self._rank(each.candidates) // MOST * STEP:
                return True
        return False

    def should_leave(self, live: Sequence[Peer], now: float) -> bool:
        """Whether there are enough better announcers everywhere, for a while already. It is for
        the caller to know that this node holds nothing."""
        if any(self._needed(each, live) for each in self._groups):
            self._superfluous_since = inf
        else:
            self._superfluous_since = min(self._superfluous_since, now)
        return now >= self._superfluous_since + STAY

    def next_at(self) -> float:
        """When this node may have to join, if nothing changes."""
        return min(
            (since + self._rank(of) // MOST * STEP for of, since in self._lacking_since.items()),
            default=inf,
        )

    def _needed(self, each: Announceable, live: Sequence[Peer]) -> bool:
        of = each.candidates
        own = _order(self._node, of)
        able = [peer for peer in live if self._counts(peer, each)]
        better = [p for p in able if p.lease.holds or _order(p.lease.node, of) > own]
        return len(better) < MOST

    def _counts(self, peer: Peer, each: Announceable) -> bool:
        """Whether a node is an announcer that may make this one superfluous."""
        nodes = each.candidates.nodes
        return peer.able(each) and nodes[peer.lease.node].weight >= nodes[self._node].weight

    def _rank(self, of: Candidates) -> int:
        """How many of the candidates come before this node."""
        if of not in self._ranks:
            own = _order(self._node, of)
            self._ranks[of] = sum(_order(node, of) > own for node in of.nodes)
        return self._ranks[of]


def _order(node: str, of: Candidates) -> tuple[int, int]:
    """Puts nodes in order: those for which it is highest are the announcers."""
    return of.nodes[node].weight, score(of.pool, node)
