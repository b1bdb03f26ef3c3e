"""MetalLB's L2Advertisement (metallb.io/v1beta1), and what one allows."""

from __future__ import annotations

from typing import Final

import msgspec

from uproxy.core.allocation.ip_address_pools import MAX_SELECTORS, limited
from uproxy.core.announcing.advertisements import Advertisement, PreferredNodes
from uproxy.core.cluster.decode import DecodeError
from uproxy.core.cluster.labels import LabelSelector
from uproxy.core.cluster.objects import ApiObject

_WEIGHTS: Final = range(1, 101)


class PreferredNodeSelector(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """One of L2Advertisement.spec.preferredNodeSelectors."""

    weight: int
    preference: LabelSelector


class L2AdvertisementSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """L2Advertisement.spec."""

    ip_address_pools: tuple[str, ...] | None = None
    ip_address_pool_selectors: tuple[LabelSelector, ...] | None = None
    node_selectors: tuple[LabelSelector, ...] | None = None
    interfaces: tuple[str, ...] | None = None
    service_selectors: tuple[LabelSelector, ...] | None = None
    preferred_node_selectors: tuple[PreferredNodeSelector, ...] | None = None


class L2Advertisement(ApiObject, frozen=True):
    """The object."""

    spec: L2AdvertisementSpec = L2AdvertisementSpec()


def advertisement_from_object(obj: L2Advertisement) -> Advertisement:
    """What an object allows. Raises DecodeError, which names the field that cannot be used."""
    spec = obj.spec
    return Advertisement(
        name=obj.metadata.name,
        pools=frozenset(spec.ip_address_pools or ()),
        pool_selectors=limited(spec.ip_address_pool_selectors, "spec.ipAddressPoolSelectors"),
        node_selectors=limited(spec.node_selectors, "spec.nodeSelectors"),
        interfaces=_interfaces(spec.interfaces or ()),
        service_selectors=limited(spec.service_selectors, "spec.serviceSelectors"),
        preferred=_preferred(spec.preferred_node_selectors or ()),
    )


def _interfaces(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(names) > MAX_SELECTORS:
        raise DecodeError(
            f"{len(names)} are too many; give at most {MAX_SELECTORS}", "spec.interfaces"
        )
    return tuple(dict.fromkeys(names))


def _preferred(selectors: tuple[PreferredNodeSelector, ...]) -> tuple[PreferredNodes, ...]:
    path = "spec.preferredNodeSelectors"
    limited(tuple(each.preference for each in selectors), path)
    for index, each in enumerate(selectors):
        if each.weight not in _WEIGHTS:
            raise DecodeError(f"{each.weight} is not from 1 to 100", f"{path}[{index}].weight")
    return tuple(PreferredNodes(each.preference, each.weight) for each in selectors)
