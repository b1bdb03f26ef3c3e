"""Who announces which address, as seen by one node (decision 0018)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf

from uproxy.core.announcing import pace
from uproxy.core.announcing.contradictions import Contradictions
from uproxy.core.announcing.holdings import Holdings
from uproxy.core.announcing.leases import LARGEST_EPOCH, AnnouncerLease
from uproxy.core.announcing.membership import Membership
from uproxy.core.announcing.outlook import Outlook
from uproxy.core.announcing.own_lease import OwnLease
from uproxy.core.announcing.peers import Peers
from uproxy.core.announcing.reports import Reports
from uproxy.core.announcing.schedule import Schedule
from uproxy.core.announcing.standing import Standing
from uproxy.core.announcing.step import OwnState, Step
from uproxy.core.announcing.succession import Circumstances, Orphan, Succession
from uproxy.core.announcing.view import Announceable
from uproxy.core.announcing.wire_evidence import WireEvidence


class Election:
    """Who announces which address, as seen by one node.

    Times are seconds of one clock that does not stop while the machine is suspended
    (CLOCK_BOOTTIME). It is told what was seen, and `decide` says what is to be done.
    """

    def __init__(
        self,
        node: str,
        instance: str,
        *,
        held_over: Mapping[str, str] | None = None,
        alone: bool = False,
        repeat: float = 0.0,
    ) -> None:
        """`held_over` are the addresses that an earlier process of this node has left on its
        interfaces, each with its interface. If it is `alone`, there is no API server, and no Lease
        is ever written. `repeat` is after how many seconds announcements are repeated for ever; 0
        for never."""
        self.node, self.instance = node, instance
        self._peers, self._lease = Peers(), OwnLease(node, instance)
        self._outlook = Outlook(self._peers, self._lease, alone=alone)
        self._standing, self._members = Standing(node), Membership(node)
        self._wire = WireEvidence()
        self._succession = Succession(self._wire)
        self._schedule = Schedule(repeat)
        self._holdings = Holdings(node, held_over or {})
        self._contradictions = Contradictions()
        self._reports = Reports(node)
        self._alone = alone
        self._listed = alone
        self._dirty = True
        self._reconsider_at = inf
        self._decided_at = -inf

    def listed(self, leases: Iterable[AnnouncerLease], now: float) -> None:
        """Take all Leases that there are, this node's own included."""
        own = None
        others = []
        for each in leases:
            if each.node == self.node:
                own = each
            else:
                others.append(each)
        self._peers.listed(others, now)
        if own is not None:
            self._saw_own(own, now)
        else:
            self._lease.deleted()
        if not self._listed:
            self._holdings.inherit(self._lease.predecessor)
        self._listed = self._dirty = True

    def saw(self, lease: AnnouncerLease, now: float) -> None:
        """Take a Lease that a watch has delivered, in the order in which it delivers them."""
        if lease.node == self.node:
            self._saw_own(lease, now)
        elif self._peers.saw(lease, now):
            self._dirty = True
            if not self._outlook.fresh(now):
                # Had it been written while our renewals reached the others, it could not succeed.
                self._holdings.yield_to_claims(lease)

    def gone(self, node: str, now: float) -> None:
        """Note that a Lease was deleted."""
        if node == self.node:
            self._lease.deleted()
        else:
            self._peers.deleted(node)

    def wrote(self, version: str, now: float) -> None:
        """Note that the Lease was written, and which resourceVersion it has."""
        self._lease.wrote(version)

    def write_failed(self, now: float) -> None:
        """Note that a write of the Lease has failed. The server may have carried it out all the
        same."""
        self._lease.failed()

    def write_conflicted(self, current: AnnouncerLease | None, now: float) -> None:
        """Note that the Lease was not written, because there is another version of it, which was
        read now, or because it does not exist any more."""
        self._lease.conflicted(current, now)

    def heard(self, address: str, mac: str, now: float) -> None:
        """Note that another machine has announced an address. The caller may pass on what it hears
        of any address; most of them are not ours."""
        hold = self._holdings.held.get(address)
        if hold is not None or address in (self._standing.wanted or ()):
            self._wire.answered(address, now)
        if hold is None:
            return
        if not hold.announced or self._alone or not self._outlook.fresh(now):
            hold.silence(now)
            self._dirty = True
        else:
            self._schedule.contradicted(address, now)
            self._dirty |= self._contradictions.heard(address, mac, now)

    def probed(self, address: str, answered_by: str | None, now: float) -> None:
        """Take the wire's answer to a probe: a MAC address, or None if there was no answer."""
        if answered_by is None:
            self._wire.silent(address, now)
        else:
            self._wire.answered(address, now)

    def decide(self, own: OwnState, wanted: Mapping[str, Announceable] | None, now: float) -> Step:
        """What is to be done now. `wanted` is the same object as long as nothing has changed, and
        None as long as the cluster is not known: what the node has is kept until then."""
        self._notice_pause(now)
        if self._lease.superseded(now):
            self._holdings.silence(now)
            self._dirty = True
            return Step(announce={}, superseded=True, wake_at=now + pace.HEARTBEAT)
        changed = self._standing.update(own, wanted)
        if self._outlook.judge(now) or changed or self._dirty or now >= self._reconsider_at:
            self._reconsider(now)
        self._speak_again(now)
        self._take_orphans(now)
        self._dirty |= self._holdings.expire_claims(now, self._succession.retry_at)
        lease = self._write(now)
        announce = self._holdings.announced()
        if self._alone:
            self._reports.elsewhere(self._elsewhere(), self._standing)
        self._schedule.keep(announce, now)
        self._schedule.doubt(self._outlook.doubtful(now), now)
        return Step(
            announce=announce,
            lease=lease,
            gratuitous=self._schedule.take(now),
            probe=self._probes(now),
            wake_at=self._wake_at(now),
            states=self._reports.states(self._standing, self._succession.waiting),
            events=self._reports.take_events(),
        )

    def explain(self, address: str, now: float) -> Mapping[str, str]:
        """For each node why it may not announce an address; "" for those that may."""
        wanted = self._standing.wanted or {}
        each = wanted.get(address)
        return {} if each is None else self._outlook.explain(each, self._standing, now)

    def _saw_own(self, lease: AnnouncerLease, now: float) -> None:
        joined = self._outlook.joined()
        number = self._lease.saw(lease, now)
        self._dirty |= joined != self._outlook.joined()
        for address, claim in self._holdings.claims_up_to(number):
            opposed = self._outlook.opposes(address, claim.epoch, claim.sent_at)
            self._holdings.settle(address, now, won=not opposed)
            if opposed:
                self._succession.retry_at[address] = now + pace.RECONSIDER
            self._dirty = True

    def _notice_pause(self, now: float) -> None:
        """After a pause, the kernel has taken the addresses away, and others may have them."""
        if now - self._decided_at > pace.LIFETIME and self._decided_at > -inf:
            self._holdings.silence(now)
            self._dirty = True
        self._decided_at = now

    def _reconsider(self, now: float) -> None:
        """Go through all addresses. That takes a few milliseconds for a thousand of them, so it is
        done after changes only, and not at each heartbeat or renewal."""
        self._dirty, self._reconsider_at = False, inf
        wanted = self._standing.wanted
        for address, hold in list(self._holdings.held.items()):
            if rival := self._outlook.rival(address, hold.epoch):
                self._holdings.release(address, f"node {rival} has it")
            else:
                self._outlook.last_holders[address] = self.node
        if wanted is None:
            return
        self._holdings.drop_unwanted(wanted)
        self._outlook.forget(wanted)
        self._wire.keep(wanted)
        joined = self._outlook.joined()
        eligible: list[Announceable] = []
        orphans: dict[str, Orphan] = {}
        for address, each in wanted.items():
            chosen = self._standing.choose(each)
            if chosen.interface:
                eligible.append(each)
            if address in self._holdings.held:
                self._keep(each, chosen.interface, chosen.reason, now)
            elif chosen.interface and address not in self._holdings.claims:
                holder, live = self._outlook.holder(address, now)
                if joined and not live:
                    orphans[address] = Orphan(each, chosen.interface, holder, now)
        self._members.consider(eligible)
        self._succession.replace(orphans)
        self._succession.rank(self._circumstances(), self._outlook.last_holders)
        self._reports.conflicts = self._contradictions.current(now)
        self._reconsider_at = min(self._reconsider_at, self._contradictions.changes_at())
        self._reports.update(self._standing, self._holdings, self._outlook, now)

    def _keep(self, each: Announceable, interface: str, reason: str, now: float) -> None:
        """Go on holding an address, unless there is a reason not to."""
        address = each.address
        if not interface:
            self._holdings.release(address, reason)
        else:
            mac = self._standing.own.interfaces[interface].mac
            if self._holdings.held[address].place(interface, mac):
                self._schedule.restart((address,), now)
            since = self._outlook.preferred_since(each, now)
            if now >= since + pace.PREFER:
                self._holdings.release(address, "another node is preferred")
            else:
                self._reconsider_at = min(self._reconsider_at, since + pace.PREFER)

    def _speak_again(self, now: float) -> None:
        """Announce again what was silenced, once it is clear that no other node has it."""
        fresh = self._outlook.fresh(now) and not self._alone
        for address, hold in self._holdings.silenced():
            since = hold.silent_since
            proven = self._lease.proven() > since
            quiet = self._wire.silent_since(address, self._holdings.speaks_at(address))
            if proven if fresh else quiet:
                hold.speak()

    def _probes(self, now: float) -> Mapping[str, str]:
        asked = dict(self._succession.probe)
        if self._outlook.fresh(now) and not self._alone:
            return asked
        for address, hold in self._holdings.silenced():
            if now >= self._holdings.speaks_at(address) and self._wire.ask(address, now):
                asked[address] = hold.interface
        return asked

    def _take_orphans(self, now: float) -> None:
        self._succession.probe, self._succession.next_at = {}, inf
        if not self._outlook.may_take(now):
            return
        for orphan in self._succession.take(self._circumstances(), now):
            address = orphan.each.address
            del self._succession.orphans[address]
            epoch = min(self._peers.epochs.get(address, 0) + 1, LARGEST_EPOCH)
            self._holdings.claim(address, epoch, orphan, now, alone=self._alone)
            self._dirty |= self._alone

    def _elsewhere(self) -> frozenset[str]:
        """The addresses that are not announced because another machine has them."""
        silenced = self._holdings.silenced()
        lost = (a for a, each in silenced if self._wire.answered_since(a, each.silent_since))
        return frozenset((*lost, *self._succession.waiting))

    def _circumstances(self) -> Circumstances:
        own = self._standing.own
        return Circumstances(
            node=self.node,
            live=self._outlook.live,
            watched_since=self._lease.watched_since,
            settled_at=-inf if self._alone else self._lease.joined_at + pace.SETTLE,
            probes=own.probes,
            announces=own.hears,
            alone=self._alone,
        )

    def _write(self, now: float) -> AnnouncerLease | None:
        if self._alone or not self._listed:
            return None
        if self._standing.wanted is None and not self._holdings.held:
            return None
        if not self._should_be_in(now):
            return self._release(now)
        content = self._content()
        before = self._lease.written
        urgent = before is None or (content.holds, content.claims) != (before.holds, before.claims)
        lease = self._lease.write(content, now, urgent=urgent)
        if lease is not None:
            self._holdings.sent(lease.renewals, now)
        return lease

    def _should_be_in(self, now: float) -> bool:
        if self._holdings.held or self._holdings.claims:
            return True
        if self._standing.own.draining:
            return False
        if self._lease.released:
            return self._members.should_join(self._outlook.live, now)
        return not self._members.should_leave(self._outlook.live, now)

    def _release(self, now: float) -> AnnouncerLease | None:
        if self._lease.released:
            return None
        farewell = AnnouncerLease(node=self.node, instance="", duration=pace.RENEWALS)
        return self._lease.write(farewell, now, urgent=True)

    def _content(self) -> AnnouncerLease:
        own = self._standing.own
        every = pace.renewal(len(self._outlook.live) + 1)
        wanted = self._standing.wanted or {}
        return AnnouncerLease(
            node=self.node,
            instance=self.instance,
            duration=pace.duration(every),
            interfaces=self._standing.interfaces(),
            holds={address: each.epoch for address, each in self._holdings.held.items()},
            claims={address: each.epoch for address, each in self._holdings.claims.items()},
            unable=frozenset(each for each in own.unable if each in wanted),
            draining=own.draining,
            hears=own.hears,
        )

    def _wake_at(self, now: float) -> float:
        written = self._lease.written is not None
        at = min(
            now + pace.HEARTBEAT,
            self._lease.due_at() if written else self._members.next_at(),
            self._schedule.next_at(),
            self._succession.next_at,
            self._reconsider_at,
        )
        # Whatever is overdue waits for something else, which will wake us.
        return max(at, now + pace.SOON)
