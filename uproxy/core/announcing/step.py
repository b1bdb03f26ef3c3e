"""What an election is told about its own node, and what it says is to be done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from uproxy.core.announcing.leases import AnnouncerLease
from uproxy.core.cluster.objects import ObjectName


class LocalInterface(NamedTuple):
    """An interface of this node on which addresses may be announced."""

    subnets: tuple[str, ...]
    """CIDRs."""
    carrier: bool = True
    mac: str = ""
    """At which neighbours know the addresses on it. If it changes, they have to be told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnState:
    """What this node can do at the moment."""

    interfaces: Mapping[str, LocalInterface] = field(default_factory=dict)
    unable: frozenset[str] = frozenset()
    """Addresses whose listeners are not open here."""
    draining: bool = False
    """Whether the program is about to stop, or is to take no new flows."""
    hears: bool = True
    """Whether announcements of other machines are received (CAP_NET_RAW)."""
    probes: bool = True
    """Whether the wire can be asked who has an address."""


class AnnounceEvent(NamedTuple):
    """An Event to send for each of some Services."""

    services: tuple[ObjectName, ...]
    type: Literal["Normal", "Warning"]
    reason: str
    note: str


class AddressState(NamedTuple):
    """Who announces one address."""

    announcer: str = ""
    """The node; "" if there is none."""
    since: float = 0.0
    """Since when, by the clock of the election, as far as this node has seen it."""
    reason: str = ""
    """Why this node announces the address, or why no node does; "" if there is nothing to say."""
    conflict: str = ""
    """The MAC address of another machine that answers for it as well, if one was heard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What is to be done now, in the order of the fields."""

    announce: Mapping[str, str]
    """The interface of each address that is to be on it now. Those that are ours and not in here
    are taken off first, before `lease` is written: whoever sees the Lease may take them at once.
    Their lifetimes are renewed only directly after a call of `decide`, since a process that was
    frozen may have lost them to another node meanwhile."""
    lease: AnnouncerLease | None = None
    """To be written now: created if its version is "", otherwise replaced if it still has that
    version. Exactly one of `wrote` and `write_failed` has to be called afterwards, within a second
    or so; until then, no other Lease is asked for."""
    gratuitous: tuple[str, ...] = ()
    """Addresses for which announcements are to be sent now, after they are on the interface."""
    probe: Mapping[str, str] = field(default_factory=dict)
    """Addresses for which the wire is to be asked now, and on which interface. The answer goes to
    `probed`."""
    wake_at: float = 0.0
    """When `decide` is to be called again if nothing happens before."""
    states: Mapping[str, AddressState] = field(default_factory=dict)
    """Who announces which address. The same object as before if nothing has changed."""
    events: tuple[AnnounceEvent, ...] = ()
    superseded: bool = False
    """Whether another process announces in the name of this node. It is on another machine, as one
    on this machine would wait for the lock, so what is on the interfaces here is taken off."""
