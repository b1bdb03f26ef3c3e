"""Who announces which address, as seen by one node."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from uproxy.core.announcing.leases import AnnouncerLease
from uproxy.core.announcing.step import AddressState, OwnState, Step
from uproxy.core.announcing.view import Announceable

HEARTBEAT = 0.5
"""Seconds after which `decide` is to be called at the latest, and lifetimes to be renewed."""


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
        held_over: Collection[str] = (),
        alone: bool = False,
        repeat: float = 0.0,
    ) -> None:
        """`held_over` are the addresses that an earlier process of this node has left on its
        interfaces. If it is `alone`, there is no API server, and no Lease is ever written.
        `repeat` is after how many seconds announcements are repeated for ever; 0 for never."""
        self.node = node
        self.instance = instance
        self._alone = alone
        self._leases: dict[str, AnnouncerLease] = {}
        self._states: Mapping[str, AddressState] = {}

    def listed(self, leases: Iterable[AnnouncerLease], now: float) -> None:
        """Take all Leases that there are, this node's own included."""
        self._leases = {each.node: each for each in leases}

    def saw(self, lease: AnnouncerLease, now: float) -> None:
        """Take a Lease that a watch has delivered, in the order in which it delivers them."""
        self._leases[lease.node] = lease

    def gone(self, node: str, now: float) -> None:
        """Take that a Lease was deleted."""
        self._leases.pop(node, None)

    def wrote(self, version: str, now: float) -> None:
        """Take that the Lease was written, and which resourceVersion it has."""

    def write_failed(self, now: float) -> None:
        """Take that the Lease was not written, or perhaps not."""

    def heard(self, address: str, mac: str, now: float) -> None:
        """Take that another machine says to have an address."""

    def probed(self, address: str, answered_by: str | None, now: float) -> None:
        """Take the wire's answer to a probe: a MAC address, or None if there was no answer."""

    def decide(self, own: OwnState, wanted: Mapping[str, Announceable], now: float) -> Step:
        """What is to be done now. `wanted` is the same object as long as nothing has changed."""
        announce = {
            each.address: interface
            for each in wanted.values()
            if (interface := _interface(each, own, self.node))
        }
        return Step(announce=announce, wake_at=now + HEARTBEAT, states=self._states)

    def explain(self, address: str) -> Mapping[str, str]:
        """For each node why it may not announce an address; "" for those that may."""
        return {}


def _interface(wanted: Announceable, own: OwnState, node: str) -> str:
    if wanted.reason or node not in wanted.candidates.nodes:
        return ""
    return next((name for name, each in own.interfaces.items() if each.carrier), "")
