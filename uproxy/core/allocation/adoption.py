"""Whether a Service keeps the addresses that it has."""

from __future__ import annotations

from typing import NamedTuple

from uproxy.core.allocation import conditions
from uproxy.core.allocation.conditions import listed
from uproxy.core.allocation.decisions import ServiceEvent
from uproxy.core.allocation.holdings import Holdings
from uproxy.core.allocation.ranges import quoted
from uproxy.core.allocation.requests import Request
from uproxy.core.ip import family_of


class Loss(NamedTuple):
    """Why a Service cannot keep its addresses."""

    reason: str
    event: ServiceEvent | None = None
    """There is none where the Service itself asks for other addresses, as with MetalLB."""


def loss(holdings: Holdings, request: Request, addresses: tuple[str, ...]) -> Loss | None:
    """Why a Service cannot keep these addresses; None if it can."""
    families = {family_of(each) for each in addresses}
    if len(families) < len(addresses):
        reason = f"{listed(addresses)} has several of one family"
        return Loss(reason, conditions.family_event(reason))
    if request.families and families != set(request.families) and not request.prefers_both:
        return Loss(f"its families are {' and '.join(request.families)}")
    reason = holdings.refusal(request, addresses, new=False)
    if reason:
        return Loss(reason, conditions.cleared_event(request.name, reason))
    pool = holdings.table.pool_of(addresses[0])
    if pool is not None and request.pool not in ("", pool.pool.name):
        return Loss(f"it asks for pool {quoted(request.pool)}")
    # A request that makes no sense takes nothing away.
    if request.addresses and not request.problem and set(request.addresses) != set(addresses):
        return Loss("it asks for other addresses")
    return None
