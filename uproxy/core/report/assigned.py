"""The addresses that Services have from uproxy, and who announces each of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from uproxy.core.allocation.decisions import Decision
from uproxy.core.announcing.step import AddressState
from uproxy.core.cluster.objects import ObjectName
from uproxy.core.report.load_balancer import AddressStatus, ServiceAddresses

_NOBODY = AddressState()


def service_addresses(decision: Decision) -> ServiceAddresses:
    """What is decided about one Service."""
    condition = decision.condition
    missing = condition is not None and condition.status == "False"
    return ServiceAddresses(
        service=decision.service,
        addresses=decision.addresses,
        pool=decision.pool,
        reason=condition.message if condition is not None and missing else "",
        foreign=decision.foreign,
    )


def address_statuses(
    services: Iterable[ServiceAddresses],
    states: Mapping[str, AddressState],
    *,
    node: str,
    interfaces: Mapping[str, str],
    epoch: float,
) -> tuple[AddressStatus, ...]:
    """Every address that Services have, in the order of its first Service.

    `states` says who announces them, and `interfaces` on which interface this node, `node`, does.
    `epoch` is the Unix time at which the clock of `states` was 0.
    """
    holders: dict[str, list[ServiceAddresses]] = {}
    for each in services:
        for address in each.addresses:
            holders.setdefault(address, []).append(each)
    return tuple(
        _address(address, holding, states.get(address, _NOBODY), node, interfaces, epoch)
        for address, holding in holders.items()
    )


def _address(
    address: str,
    holding: list[ServiceAddresses],
    state: AddressState,
    node: str,
    interfaces: Mapping[str, str],
    epoch: float,
) -> AddressStatus:
    names: tuple[ObjectName, ...] = tuple(each.service for each in holding)
    here = address in interfaces
    return AddressStatus(
        address=address,
        services=names,
        pool=holding[0].pool,
        node=node if here else state.announcer,
        here=here,
        interface=interfaces.get(address, ""),
        since=epoch + state.since if state.announcer else None,
        reason=state.reason,
        conflict=state.conflict,
    )
