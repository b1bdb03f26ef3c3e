"""Counts what an announcer does, for the metrics."""

from __future__ import annotations

from collections.abc import Set

from msgspec.structs import replace

from uproxy.core.report.load_balancer import AnnouncingCounts


class Tally:
    """What has happened on this node since the start."""

    def __init__(self) -> None:
        self.counts = AnnouncingCounts()
        self._held: Set[str] = frozenset()

    def holds(self, addresses: Set[str]) -> None:
        """Note which addresses this node announces now."""
        if addresses != self._held:
            moved = len(addresses ^ self._held)
            self._held = frozenset(addresses)
            self.counts = replace(self.counts, transitions=self.counts.transitions + moved)

    def announced(self, address: str) -> None:
        """Note that neighbours were told of an address: by an ARP request and a reply, or by one
        neighbour advertisement."""
        frames = 1 if ":" in address else 2
        self.counts = replace(self.counts, gratuitous=self.counts.gratuitous + frames)

    def heard(self, address: str) -> None:
        """Note that another machine claims to have an address."""
        if address in self._held:
            self.counts = replace(self.counts, contradictions=self.counts.contradictions + 1)

    def write_failed(self) -> None:
        """Note that the Lease of this node could not be written."""
        self.counts = replace(self.counts, failed_renewals=self.counts.failed_renewals + 1)
