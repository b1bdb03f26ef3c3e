"""What is reported about addresses: which node announces them, why, and Events."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Final

from uproxy.core.announcing.candidates import EXCLUDED
from uproxy.core.announcing.holdings import Holdings
from uproxy.core.announcing.outlook import Outlook
from uproxy.core.announcing.standing import Standing
from uproxy.core.announcing.step import AddressState, AnnounceEvent
from uproxy.core.announcing.view import Announceable
from uproxy.core.cluster.objects import ObjectName

_SHOWN: Final = 3
"""Names of nodes in a reason."""


class Reports:
    """What is reported about addresses."""

    def __init__(self, node: str) -> None:
        self._node = node
        self.conflicts: Mapping[str, str] = {}
        self._states: dict[str, AddressState] = {}
        self._waiting: Mapping[str, str] = {}
        self._told: set[tuple[ObjectName, str, str]] = set()
        """Events by Service, reason and text, so that each is sent once as long as it is true."""
        self._events: list[AnnounceEvent] = []
        self._elsewhere: frozenset[str] = frozenset()

    def update(self, standing: Standing, holdings: Holdings, outlook: Outlook, now: float) -> None:
        """Take note of what has changed."""
        before, self._states = self._states, {}
        self._waiting = {}
        true: set[tuple[ObjectName, str, str]] = set()
        for address, each in (standing.wanted or {}).items():
            state = self._state(each, standing, holdings, outlook, now)
            old = before.get(address)
            if old is not None and old.announcer == state.announcer:
                state = state._replace(since=old.since)
            self._states[address] = old if old == state else state
            true |= self._tell(each, state, standing)
        self._told &= true

    def states(self, standing: Standing, waiting: Mapping[str, str]) -> Mapping[str, AddressState]:
        """Who announces what. The same object as long as nothing has changed."""
        if waiting != self._waiting:
            self._waiting = dict(waiting)
            self._states = {
                address: each._replace(reason=waiting[address]) if address in waiting else each
                for address, each in self._states.items()
            }
        return self._states

    def elsewhere(self, addresses: frozenset[str], standing: Standing) -> None:
        """Take which addresses are not announced because another machine has them, where no Lease
        could say that this is as it should be. Each is told once."""
        for address in sorted(addresses - self._elsewhere):
            if each := (standing.wanted or {}).get(address):
                note = f"another machine has {address}, so that this one does not announce it"
                event = AnnounceEvent(each.services, "Warning", "addressConflict", note)
                self._events.append(event)
        self._elsewhere = addresses

    def take_events(self) -> tuple[AnnounceEvent, ...]:
        events, self._events = tuple(self._events), []
        return events

    def _state(
        self,
        each: Announceable,
        standing: Standing,
        holdings: Holdings,
        outlook: Outlook,
        now: float,
    ) -> AddressState:
        address = each.address
        hold = holdings.held.get(address)
        if hold is not None and hold.announced:
            conflict = self.conflicts.get(address, "")
            # What was held over has no beginning that this process knows.
            since = hold.since if hold.since > -inf else now
            return AddressState(self._node, since, hold.why, conflict)
        if hold is not None:
            return AddressState("", now, "another machine has claimed to have it")
        holder, live = outlook.holder(address, now)
        if holder is not None and live:
            return AddressState(holder.lease.node, now)
        if each.reason:
            return AddressState("", now, each.reason)
        if holder is not None:
            return AddressState("", now, f"node {holder.lease.node} has not renewed its Lease")
        return AddressState("", now, self._why_none(each, standing, outlook, now))

    def _why_none(
        self, each: Announceable, standing: Standing, outlook: Outlook, now: float
    ) -> str:
        """Why no node holds an address that the cluster's objects allow to be announced. Only
        announcers are asked for their reasons, of which there are few."""
        may = each.candidates.nodes
        others = sorted(p.lease.node for p in outlook.live if p.lease.node in may)
        names = dict.fromkeys([*[self._node] * (self._node in may), *others])
        reasons = {name: outlook.reason(name, each, standing, now) for name in names}
        for name, reason in reasons.items():
            if not reason and (name != self._node or outlook.joined()):
                return "no node has taken it yet"
        for name, reason in reasons.items():
            if reason:
                return f"node {name} cannot: {reason}"
        listed = ", ".join(sorted(may)[:_SHOWN]) + ", ..." * (len(may) > _SHOWN)
        return f"uproxy announces on none of the nodes that may announce it: {listed}"

    def _tell(
        self, each: Announceable, state: AddressState, standing: Standing
    ) -> set[tuple[ObjectName, str, str]]:
        """The Events that are true of an address now; those that are new will be sent."""
        found: list[AnnounceEvent] = []
        if state.announcer == self._node:
            note = f'announcing {each.address} from node "{self._node}" with protocol "layer2"'
            found.append(AnnounceEvent(each.services, "Normal", "nodeAssigned", note))
            if each.candidates.exclusion_ignored:
                note = f"all nodes that may announce {each.address} have the label {EXCLUDED}"
                note += ", so that it is ignored"
                found.append(AnnounceEvent(each.services, "Warning", "exclusionIgnored", note))
            if state.conflict:
                note = f"{state.conflict} claims to have {each.address} as well"
                found.append(AnnounceEvent(each.services, "Warning", "addressConflict", note))
        found += self._failures(each, standing)
        keys = {(name, e.reason, e.note): e for e in found for name in each.services}
        new = [key for key in keys if key not in self._told]
        self._events += [keys[key]._replace(services=(key[0],)) for key in new]
        self._told |= keys.keys()
        return set(keys)

    def _failures(self, each: Announceable, standing: Standing) -> list[AnnounceEvent]:
        """An advertisement names interfaces, and this node has none of them."""
        allowed = each.candidates.nodes.get(self._node)
        if each.reason or allowed is None or not allowed.interfaces:
            return []
        if any(name in standing.own.interfaces for name in allowed.interfaces):
            return []
        names = ", ".join(allowed.interfaces)
        note = f"node {self._node} has none of the interfaces {names}, so it cannot announce"
        return [AnnounceEvent(each.services, "Warning", "announceFailed", f"{note} {each.address}")]
