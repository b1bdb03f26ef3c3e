"""Whether a Service keeps the addresses that it has."""

from __future__ import annotations

from typing import NamedTuple

from uproxy.core.allocation.holdings import Holdings
from uproxy.core.allocation.ranges import quoted
from uproxy.core.allocation.requests import Request
from uproxy.core.ip import family_of


class Loss(NamedTuple):
    """Why a Service cannot keep its addresses."""

    reason: str
    is_told: bool
    """Whether there is an Event about it. There is none where the Service itself asks for other
    addresses, as with MetalLB."""


def loss(holdings: Holdings, request: Request, addresses: tuple[str, ...]) -> Loss | None:
    """Why a Service cannot keep these addresses; None if it can."""
    families = {family_of(each) for each in addresses}
    fits = families == set(request.families) or (request.prefers_both and bool(families))
    if request.families and not (fits and len(families) == len(addresses)):
        return Loss(f"its families are {' and '.join(request.families)}", False)
    reason = holdings.refusal(request, addresses, new=False)
    if reason:
        return Loss(reason, True)
    pool = holdings.table.pool_of(addresses[0])
    if pool is not None and request.pool not in ("", pool.pool.name):
        return Loss(f"it asks for pool {quoted(request.pool)}", False)
    # A request that makes no sense takes nothing away.
    if request.addresses and not request.problem and set(request.addresses) != set(addresses):
        return Loss("it asks for other addresses", False)
    return None
