"""What this node holds, and what it is about to take."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from math import inf

from uproxy.core.announcing import pace
from uproxy.core.announcing.leases import AnnouncerLease
from uproxy.core.announcing.rendezvous import score
from uproxy.core.announcing.succession import Orphan


@dataclass(slots=True)
class Hold:
    """An address that is ours."""

    epoch: int
    interface: str
    since: float
    why: str = ""
    """How it came to be ours, for people."""
    mac: str = ""
    """The link-layer address at which neighbours know it."""
    silent_since: float = inf
    """Since when it is not announced although it is ours: another machine has claimed to have it
    while we were in doubt, or we were frozen for so long that another node may have taken it. inf:
    it is announced."""
    silenced: int = 0
    """How often that has happened."""

    @property
    def announced(self) -> bool:
        return self.silent_since == inf

    def place(self, interface: str, mac: str) -> bool:
        """Set the interface that it is on. Returns whether neighbours know another link-layer
        address."""
        moved = bool(self.mac) and self.mac != mac
        self.interface, self.mac = interface, mac
        return moved

    def silence(self, now: float) -> None:
        """Announce it no more, for now."""
        self.silenced += self.announced
        self.silent_since = now

    def speak(self) -> None:
        self.silent_since = inf


@dataclass(slots=True)
class Claim:
    """An address that we are about to take."""

    epoch: int
    interface: str
    since: float
    why: str
    number: int = 0
    """The renewal of our Lease that has it first; 0 as long as none has been sent."""
    sent_at: float = inf


class Holdings:
    """What this node holds, and what it is about to take, by address."""

    def __init__(self, node: str, held_over: Mapping[str, str]) -> None:
        self._node = node
        self.held = {
            address: Hold(0, interface, -inf, "it was there when uproxy started")
            for address, interface in held_over.items()
        }
        self.claims: dict[str, Claim] = {}
        self.lost: dict[str, str] = {}
        """Why addresses are ours no more, for people."""

    def announced(self) -> Mapping[str, str]:
        """The interface of each address that is announced now."""
        return {a: each.interface for a, each in self.held.items() if each.announced}

    def silenced(self) -> list[tuple[str, Hold]]:
        """Those that are ours, and not announced."""
        return [(a, each) for a, each in self.held.items() if not each.announced]

    def speaks_at(self, address: str) -> float:
        """From when on the wire is asked whether a silenced address may be announced again. It
        differs from node to node and from time to time, so that two nodes do not speak, hear each
        other, and fall silent together for ever."""
        hold = self.held[address]
        jitter = score(f"{address}#{hold.silenced}", self._node) % 1024 / 512
        return hold.silent_since + 1.0 + jitter

    def inherit(self, predecessor: AnnouncerLease | None) -> None:
        """Take over the epochs of an earlier process."""
        for address, hold in self.held.items():
            if predecessor is not None:
                hold.epoch = max(hold.epoch, predecessor.holds.get(address, 0))

    def silence(self, now: float) -> None:
        """Announce nothing, for now, and take nothing."""
        for each in self.held.values():
            each.silence(now)
        self.claims.clear()

    def yield_to_claims(self, lease: AnnouncerLease) -> None:
        """Give up what another node is about to take."""
        for address, epoch in lease.claims.items():
            if address in self.held and epoch > self.held[address].epoch:
                self.release(address, f"node {lease.node} takes it")

    def release(self, address: str, why: str) -> None:
        del self.held[address]
        self.lost[address] = why

    def drop_unwanted(self, wanted: Container[str]) -> None:
        """Give up what no Service has any more."""
        for address in [each for each in self.held if each not in wanted]:
            self.release(address, "no Service has it any more")
        for address in [each for each in self.claims if each not in wanted]:
            del self.claims[address]
        for address in [each for each in self.lost if each not in wanted]:
            del self.lost[address]

    def claim(
        self, address: str, epoch: int, orphan: Orphan, now: float, *, alone: bool = False
    ) -> None:
        """Begin to take an address. Without others, it is ours at once."""
        why = "it had no announcer"
        if orphan.holder is not None:
            why = f"node {orphan.holder.lease.node} has not renewed its Lease"
        self.claims[address] = Claim(epoch, orphan.interface, now, why)
        if alone:
            self.settle(address, now, won=True)

    def sent(self, number: int, now: float) -> None:
        """Note which renewal has the claims first."""
        for each in self.claims.values():
            if not each.number:
                each.number, each.sent_at = number, now

    def claims_up_to(self, number: int) -> Iterator[tuple[str, Claim]]:
        """The claims that a renewal which has come back has, or one before it."""
        for address, each in list(self.claims.items()):
            if 0 < each.number <= number:
                yield address, each

    def settle(self, address: str, now: float, *, won: bool) -> None:
        """End a claim."""
        claim = self.claims.pop(address)
        if won and now <= claim.sent_at + pace.CLAIM:
            self.held[address] = Hold(claim.epoch, claim.interface, now, claim.why)

    def expire_claims(self, now: float, retry_at: dict[str, float]) -> bool:
        """Give up claims that have not come back for too long; whether there were any."""
        late = [a for a, each in self.claims.items() if now > each.since + pace.CLAIM]
        for address in late:
            del self.claims[address]
            retry_at[address] = now + pace.RECONSIDER
        return bool(late)
