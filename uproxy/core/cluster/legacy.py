"""v1 Endpoints as EndpointSlices, so that all other code has to know only slices."""

from __future__ import annotations

from collections.abc import Iterable

from uproxy.core.cluster.objects import (
    Endpoint,
    EndpointAddress,
    EndpointConditions,
    EndpointPort,
    Endpoints,
    EndpointSlice,
    EndpointSubset,
)
from uproxy.core.ip import Family, family_of, parse_ip

_READY = EndpointConditions(ready=True, serving=True, terminating=False)
_NOT_READY = EndpointConditions(ready=False, serving=False, terminating=False)


def as_slices(legacy: Endpoints) -> tuple[EndpointSlice, ...]:
    """One slice for each subset and address family.

    A port without a name gets the name "", since in a slice a missing name would mean that the port
    is not for Services. An address that cannot be parsed goes to the IPv4 slice, for which
    `topology.merge` then reports it.
    """
    return tuple(
        EndpointSlice(
            metadata=legacy.metadata,
            address_type=family,
            endpoints=tuple(endpoints),
            ports=tuple(
                EndpointPort(name=port.name or "", protocol=port.protocol, port=port.port)
                for port in subset.ports or ()
            ),
        )
        for subset in legacy.subsets or ()
        for family, endpoints in _by_family(subset).items()
    )


def _by_family(subset: EndpointSubset) -> dict[Family, list[Endpoint]]:
    found: dict[Family, list[Endpoint]] = {}
    _sort_in(found, subset.addresses or (), _READY)
    _sort_in(found, subset.not_ready_addresses or (), _NOT_READY)
    return found


def _sort_in(
    found: dict[Family, list[Endpoint]],
    addresses: Iterable[EndpointAddress],
    conditions: EndpointConditions,
) -> None:
    for address in addresses:
        found.setdefault(family_of(parse_ip(address.ip) or ""), []).append(
            Endpoint(
                addresses=(address.ip,),
                conditions=conditions,
                node_name=address.node_name,
                target_ref=address.target_ref,
            )
        )
