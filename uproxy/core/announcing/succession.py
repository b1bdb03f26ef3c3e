"""How addresses are taken that no live node holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final

from uproxy.core.announcing import pace
from uproxy.core.announcing.contest import ranking
from uproxy.core.announcing.peers import Peer
from uproxy.core.announcing.view import Announceable
from uproxy.core.announcing.wire_evidence import SAMPLE, WireEvidence

EARLY: Final = 0.7
"""Seconds before a Lease expires from which on the wire is asked, so that its answer is there in
time."""
LATER: Final = 5.0
"""Seconds after which the wire is asked again for an address that another machine has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What taking an address depends on."""

    node: str
    live: Sequence[Peer]
    watched_since: float
    settled_at: float
    """From when on this node takes addresses that it has not held itself, and no other node has."""
    probes: bool
    announces: bool
    """Whether announcements of this node reach others (CAP_NET_RAW)."""
    alone: bool = False
    """Whether there are no Leases that could say who has an address, so that only the wire can."""


@dataclass(slots=True)
class Orphan:
    """An address that this node may announce, and that no live node holds."""

    each: Announceable
    interface: str
    holder: Peer | None
    """The node whose Lease has expired, or is about to; None if no Lease has the address."""
    since: float
    """Since when it is known to have no holder."""
    rank: int = 0
    """How many other nodes should rather take it."""
    ours: bool = False
    """Whether this node had it last."""


class Succession:
    """The addresses that this node may have to take."""

    def __init__(self, wire: WireEvidence) -> None:
        self.orphans: dict[str, Orphan] = {}
        self.waiting: dict[str, str] = {}
        """Why an address has not been taken yet, for people."""
        self.retry_at: dict[str, float] = {}
        self.probe: dict[str, str] = {}
        """What to ask the wire for, and on which interface."""
        self.next_at = inf
        self._wire = wire

    def replace(self, orphans: Mapping[str, Orphan]) -> None:
        """Set all orphans. Those that were there before keep their times."""
        for address, each in orphans.items():
            before = self.orphans.get(address)
            if before is not None and before.holder is each.holder:
                each.since = before.since
        self.orphans = dict(orphans)
        self.waiting = {a: why for a, why in self.waiting.items() if a in orphans}
        self.retry_at = {a: at for a, at in self.retry_at.items() if a in orphans}

    def rank(self, where: Circumstances, last_holders: Mapping[str, str]) -> None:
        """Work out who should take each of them."""
        for address, orphan in self.orphans.items():
            others = [peer for peer in where.live if _can_succeed(peer, orphan.holder, where)]
            last = last_holders.get(address, "")
            order = ranking(orphan.each, where.node, others, last)
            orphan.rank, orphan.ours = order.index(where.node), last == where.node

    def take(self, where: Circumstances, now: float) -> Sequence[Orphan]:
        """The addresses to claim now."""
        self.probe, self.next_at = {}, inf
        taken: list[Orphan] = []
        by_holder: dict[str, list[Orphan]] = {}
        for orphan in self.orphans.values():
            at = self._starts_at(orphan, where)
            if orphan.holder is not None and now >= at - EARLY:
                by_holder.setdefault(orphan.holder.lease.node, []).append(orphan)
            elif orphan.holder is None and now >= at:
                if not where.alone or self._unused(orphan, where, now):
                    taken.append(orphan)
            else:
                self._again(at if orphan.holder is None else at - EARLY)
        for orphans in by_holder.values():
            taken += self._from_expired(orphans, where, now)
        return taken

    def _starts_at(self, orphan: Orphan, where: Circumstances) -> float:
        """When an address may be taken, if the wire allows it."""
        if orphan.holder is not None:
            at = orphan.holder.expires_at(where.watched_since)
        else:
            at = orphan.since if orphan.ours else max(orphan.since, where.settled_at)
        return max(at + orphan.rank * pace.STAND_IN, self.retry_at.get(orphan.each.address, -inf))

    def _unused(self, orphan: Orphan, where: Circumstances, now: float) -> bool:
        """Whether the wire says that no machine has an address, or cannot be asked."""
        address = orphan.each.address
        verdict = self._wire.verdict((address,), now) if where.probes else "silent"
        if verdict == "answered":
            self.waiting[address] = "another machine answers for it"
            self.retry_at[address] = now + LATER
        elif verdict == "unknown":
            self._ask({address: orphan.interface}, now)
        return verdict == "silent"

    def _from_expired(
        self, orphans: Sequence[Orphan], where: Circumstances, now: float
    ) -> Sequence[Orphan]:
        """Those of one node whose Lease has expired, or is about to, as far as the wire says that
        the node is dead."""
        holder = orphans[0].holder
        assert holder is not None
        expired = now - holder.expires_at(where.watched_since)
        why = self._obstacle(orphans, holder, expired, where, now)
        for orphan in orphans:
            if why:
                self.waiting[orphan.each.address] = why
            else:
                self._again(self._starts_at(orphan, where))
        return [] if why else [each for each in orphans if now >= self._starts_at(each, where)]

    def _obstacle(
        self,
        orphans: Sequence[Orphan],
        holder: Peer,
        expired: float,
        where: Circumstances,
        now: float,
    ) -> str:
        """Why the addresses of a node are not taken yet."""
        name = holder.lease.node
        if not where.probes:
            self._again(now + pace.UNKNOWN - expired)
            return f"node {name} may be restarting" if expired < pace.UNKNOWN else ""
        sample = {each.each.address: each.interface for each in orphans[:SAMPLE]}
        self._ask(sample, now)
        verdict = self._wire.verdict(sample, now)
        if verdict == "silent":
            return ""
        if verdict == "unknown":
            return "" if expired >= pace.UNKNOWN else f"the wire is asked whether {name} has it"
        if not (holder.lease.hears and where.announces):
            return f"node {name} does not renew its Lease, but answers for it, and would not hear"
        if expired >= pace.RESTART:
            return ""
        return f"node {name} does not renew its Lease, but answers for it"

    def _ask(self, sample: Mapping[str, str], now: float) -> None:
        for address, interface in sample.items():
            if self._wire.ask(address, now):
                self.probe[address] = interface
            self._again(self._wire.next_at(address))

    def _again(self, at: float) -> None:
        self.next_at = min(self.next_at, at)


def _can_succeed(peer: Peer, holder: Peer | None, where: Circumstances) -> bool:
    """Whether a node has been there for long enough to know that a holder is dead. One that joins
    because of the very death would be waited for in vain."""
    if holder is None:
        return True
    expires_at = holder.expires_at(where.watched_since)
    return peer is not holder and peer.since + holder.lease.duration <= expires_at
