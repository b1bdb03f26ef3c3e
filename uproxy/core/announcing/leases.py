"""What an announcing node says of itself to the others, in a Lease of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

LARGEST_EPOCH: Final = 2**53
"""Larger numbers are not exact in every JSON reader, and are refused. Nothing but a wrong Lease of
another program comes near."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnouncerLease:
    """The Lease of one node, as it was written last."""

    node: str
    instance: str
    """Differs for each start of the program, so that a successor is recognised."""
    duration: float
    """Seconds after which the others may take the node for dead, if they see no renewal."""
    version: str = ""
    """resourceVersion; "" if it is still to be written."""
    renewals: int = 0
    """Counts them, so that each one is a change whatever the clock says."""
    interfaces: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By interface that has a carrier: its subnets, as CIDRs."""
    holds: Mapping[str, int] = field(default_factory=dict)
    """The addresses that it announces, each with its epoch: one more than that of the node from
    which it took the address over."""
    claims: Mapping[str, int] = field(default_factory=dict)
    """Addresses that it is about to take, each with the epoch that it would have. It announces
    them as soon as a watch shows that no other node was first."""
    unable: frozenset[str] = frozenset()
    """Addresses whose listeners are not open here."""
    draining: bool = False
    hears: bool = True
    """Whether it would hear another node announce an address of its own, and give way."""

    @property
    def released(self) -> bool:
        """Whether the node has said good-bye: it holds nothing and is not to be waited for."""
        return not self.instance
