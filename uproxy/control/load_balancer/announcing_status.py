"""What an announcer knows, in the words of the status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from uproxy.core.announcing.step import AddressState
from uproxy.core.announcing.view import Announceable
from uproxy.core.cluster.objects import ObjectName
from uproxy.core.report.load_balancer import AddressStatus

_UNKNOWN = AddressState()


class Found(NamedTuple):
    """How things stand on this node."""

    states: Mapping[str, AddressState]
    """Who announces what."""
    held: Mapping[str, str]
    """The interface of each address that is announced here."""
    failures: Mapping[str, str]
    """Why interfaces could not be given addresses."""


def address_statuses(
    wanted: Mapping[str, Announceable], found: Found, now: float, wall: float
) -> Sequence[AddressStatus]:
    """Who announces which address, and why. `now` is by the clock of the states, `wall` Unix
    time."""
    return [
        _status(each, found, found.states.get(address, _UNKNOWN), wall - now)
        for address, each in wanted.items()
    ]


def _status(each: Announceable, found: Found, state: AddressState, began: float) -> AddressStatus:
    address = each.address
    reasons = (found.failures.get(address, ""), state.reason)
    return AddressStatus(
        address=address,
        services=each.services,
        pool=each.candidates.pool,
        node=state.announcer,
        here=address in found.held,
        interface=found.held.get(address, ""),
        since=began + state.since if state.announcer else None,
        reason="; ".join(filter(None, reasons)),
        conflict=state.conflict,
    )


def announced_services(
    wanted: Mapping[str, Announceable], held: Mapping[str, str]
) -> Mapping[ObjectName, tuple[str, ...]]:
    """The Services that are announced here, and on which interfaces."""
    found: dict[ObjectName, set[str]] = {}
    for address, interface in held.items():
        for name in wanted[address].services if address in wanted else ():
            found.setdefault(name, set()).add(interface)
    return {name: tuple(sorted(interfaces)) for name, interfaces in found.items()}
