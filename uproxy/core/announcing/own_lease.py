"""The Lease of this node: when it is written, and what its coming back proves."""

from __future__ import annotations

from dataclasses import replace
from math import inf

from uproxy.core.announcing import pace
from uproxy.core.announcing.leases import AnnouncerLease
from uproxy.core.announcing.peers import is_older


class OwnLease:
    """The Lease of this node.

    A watch delivers changes in the order in which they were made. So when it delivers a renewal of
    ours, everything that was written before we sent it has been delivered as well. From then on it
    is known that whatever has not been seen had not happened when we sent it.
    """

    def __init__(self, node: str, instance: str) -> None:
        self.node, self.instance = node, instance
        self.every = pace.RENEWAL
        """Seconds between two renewals."""
        self.joined_at = inf
        """When a Lease of ours came back for the first time since it was released."""
        self.watched_since = inf
        """Since when every renewal has come back in time."""
        self.written: AnnouncerLease | None = None
        """What was sent last; None if there is nothing of ours."""
        self._version = ""
        self._number = 0
        self._sent: dict[int, float] = {}
        self._in_flight = False
        self._last_sent = -inf
        self._failed = False
        self._proven = -inf
        self._known: AnnouncerLease | None = None
        self._superseded_until = -inf

    @property
    def predecessor(self) -> AnnouncerLease | None:
        """The Lease of an earlier process of this node."""
        known = self._known
        return known if known is not None and known.instance != self.instance else None

    def fresh(self, now: float) -> bool:
        """Whether our view can be relied on: renewals come back."""
        return now - self._proven <= self.every + pace.SLACK

    def doubts_at(self) -> float:
        """Until when the view is fresh if nothing comes back."""
        return self._proven + self.every + pace.SLACK

    def proven(self) -> float:
        """What was written before this time has been seen."""
        return self._proven

    def superseded(self, now: float) -> bool:
        """Whether another process writes this Lease. If it does so no more, it may have died."""
        return now < self._superseded_until

    def saw(self, lease: AnnouncerLease, now: float) -> int:
        """Note this node's own Lease, as the watch delivered it. Returns the number of the renewal
        that has come back, or 0 if it is not one of ours."""
        if self._known is not None and is_older(lease, self._known):
            return 0
        self._known, self._version = lease, lease.version
        self._note_writer(lease, now)
        if lease.instance != self.instance:
            return 0
        sent = self._sent.get(lease.renewals)
        if sent is None:
            return 0
        self._sent = {number: at for number, at in self._sent.items() if number >= lease.renewals}
        if sent - self._proven > self.every + pace.SLACK:
            self.watched_since = sent
        self._proven = max(self._proven, sent)
        if self.joined_at == inf and self.written is not None and not self.written.released:
            self.joined_at = now
        return lease.renewals

    @property
    def released(self) -> bool:
        """Whether there is nothing of ours that others could wait for."""
        return self.written is None

    def deleted(self) -> None:
        """Note that there is no such Lease any more, so that it is created again."""
        self._version, self._known = "", None
        self._last_sent = -inf

    def wrote(self, version: str) -> None:
        self._in_flight = self._failed = False
        self._version = version
        if self.written is not None and self.written.released:
            self.written = None

    def failed(self) -> None:
        self._in_flight, self._failed = False, True

    def conflicted(self, current: AnnouncerLease | None, now: float) -> None:
        """Note the Lease that is there in place of the one that we thought was there. It did not
        come in the order of the watch, so it proves nothing."""
        self.failed()
        self._version = current.version if current is not None else ""
        if current is not None and current.instance not in ("", self.instance):
            self._known = current  # What we wrote before it may still come.
            self._note_writer(current, now)

    def due_at(self) -> float:
        """When it is to be written next, if nothing else changes."""
        if self._in_flight:
            return inf
        return self._last_sent + (pace.RETRY * self.every if self._failed else self.every)

    def write(self, content: AnnouncerLease, now: float, *, urgent: bool) -> AnnouncerLease | None:
        """The Lease to send now; None if it is not due yet. `content` is what it should say."""
        if self._in_flight or not self._is_due(content, now, urgent):
            return None
        self._number += 1
        self._in_flight, self._last_sent = True, now
        self._sent[self._number] = now
        self.every = content.duration / pace.RENEWALS
        lease = replace(content, version=self._version, renewals=self._number)
        self.written = lease
        if lease.released:
            self.joined_at = inf
        return lease

    def _note_writer(self, lease: AnnouncerLease, now: float) -> None:
        self._superseded_until = -inf
        if lease.instance not in ("", self.instance) and self.joined_at < inf:
            self._superseded_until = now + lease.duration + pace.RESTART

    def _is_due(self, content: AnnouncerLease, now: float, urgent: bool) -> bool:
        if now >= self.due_at():
            return True
        if self._failed:
            return False
        return urgent or (self._differs(content) and now >= self._last_sent + pace.RETRY)

    def _differs(self, content: AnnouncerLease) -> bool:
        before = self.written
        if before is None:
            return True
        return replace(content, version=before.version, renewals=before.renewals) != before
