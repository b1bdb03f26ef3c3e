"""The addresses that Services have from uproxy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from uproxy.core.report.load_balancer import AddressStatus, ServiceAddresses


def held_addresses(
    services: Iterable[ServiceAddresses], announced: Iterable[AddressStatus] = ()
) -> tuple[AddressStatus, ...]:
    """Every address that Services have, in the order of its first Service. `announced` says of some
    of them who announces them."""
    known: Mapping[str, AddressStatus] = {each.address: each for each in announced}
    holders: dict[str, list[ServiceAddresses]] = {}
    for each in services:
        for address in each.addresses:
            holders.setdefault(address, []).append(each)
    return tuple(
        msgspec.structs.replace(
            known.get(address) or AddressStatus(address=address),
            services=tuple(each.service for each in holding),
            pool=holding[0].pool,
        )
        for address, holding in holders.items()
    )
