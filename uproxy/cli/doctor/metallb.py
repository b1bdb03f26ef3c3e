"""MetalLB's objects, which no webhook checks where MetalLB itself is not installed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec

from uproxy.apiserver.access import Access
from uproxy.apiserver.client import ApiClient
from uproxy.apiserver.discovery import find_access
from uproxy.apiserver.request import ApiServer, Request
from uproxy.apiserver.unreachable import ApiUnreachable
from uproxy.cli.doctor.findings import Finding, Result, fit_to_print
from uproxy.core.allocation.ip_address_pools import IPAddressPool, pool_from_object
from uproxy.core.allocation.pools import Pool, without_overlaps
from uproxy.core.announcing.advertisements import Advertisement
from uproxy.core.announcing.l2_advertisements import L2Advertisement, advertisement_from_object
from uproxy.core.cluster.decode import DecodeError, from_json
from uproxy.core.cluster.objects import ApiObject
from uproxy.core.errors import SourceError

_GROUP: Final = "/apis/metallb.io/v1beta1"
_POOLS, _ADS = "ipaddresspools", "l2advertisements"
_CHECK: Final = "MetalLB's objects"
_MOST: Final = 1 << 26
_PATIENCE: Final = 10.0
_SHOWN: Final = 3

T = TypeVar("T", bound=ApiObject)


class _List(msgspec.Struct):
    items: list[msgspec.Raw] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class MetalLBObjects:
    """All objects of the cluster, or those of one namespace if no more may be listed."""

    pools: Sequence[IPAddressPool] = ()
    advertisements: Sequence[L2Advertisement] = ()
    unreadable: Sequence[str] = ()
    """Objects that cannot be read, and why."""
    installed: bool = True
    """Whether the cluster knows these kinds."""
    everywhere: bool = True
    """Whether these are the objects of all namespaces."""


def check_metallb(found: MetalLBObjects, namespace: str) -> Finding:
    """Whether what the objects say takes effect, if uproxy reads those of this namespace."""
    if not found.installed:
        text = "this cluster has none, as their CRDs are not installed"
        return Finding(_CHECK, Result.WARN, text, "install MetalLB's CRDs, or use --lb-pool")
    wrong = [*_misplaced(found, namespace), *found.unreadable, *_unusable(found, namespace)]
    if wrong:
        more = len(wrong) - _SHOWN
        text = "; ".join(wrong[:_SHOWN]) + (f"; and {more:,} more" if more > 0 else "")
        return fit_to_print(Finding(_CHECK, Result.WARN, text, "correct these objects"))
    pools = sum(each.metadata.namespace == namespace for each in found.pools)
    text = f"pools in {namespace}: {pools}; all take effect and are announced"
    if not found.everywhere:
        text += "; other namespaces were not looked at, as listing them is not allowed"
    return fit_to_print(Finding(_CHECK, Result.OK, text))


def ask_metallb(namespace: str) -> MetalLBObjects:
    """What the cluster has. Raises SourceError if it cannot be asked."""
    access = find_access()
    if access is None:
        advice = "name a kubeconfig in KUBECONFIG, or run this in a Pod of uproxy"
        raise SourceError(f"there are no credentials with which to ask it; {advice}")
    return asyncio.run(_ask(access, namespace))


async def _ask(access: Access, namespace: str) -> MetalLBObjects:
    try:
        async with asyncio.timeout(_PATIENCE), ApiClient(access) as api:
            return await _listed(api, namespace)
    except (ApiUnreachable, TimeoutError) as error:
        raise SourceError(f"{access.origin}: {error or 'no answer in time'}") from None


async def _listed(api: ApiServer, namespace: str) -> MetalLBObjects:
    unreadable: list[str] = []
    pools, everywhere = await _items(api, _POOLS, namespace)
    ads, _ = await _items(api, _ADS, namespace)
    if pools is None or ads is None:
        return MetalLBObjects(installed=False)
    return MetalLBObjects(
        pools=list(_read(pools, IPAddressPool, unreadable)),
        advertisements=list(_read(ads, L2Advertisement, unreadable)),
        unreadable=unreadable,
        everywhere=everywhere,
    )


async def _items(
    api: ApiServer, plural: str, namespace: str
) -> tuple[list[msgspec.Raw] | None, bool]:
    """The objects of a kind, and whether they are those of all namespaces. None: the kind is not
    known."""
    status, body = await _get(api, f"{_GROUP}/{plural}")
    everywhere = status != 403
    if not everywhere:
        status, body = await _get(api, f"{_GROUP}/namespaces/{namespace}/{plural}")
    if status == 404:
        return None, everywhere
    if status >= 300:
        raise ApiUnreachable(f"{plural} cannot be listed: HTTP {status}")
    try:
        return msgspec.json.decode(body, type=_List).items, everywhere
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiUnreachable(f"{plural}: {error}") from None


async def _get(api: ApiServer, path: str) -> tuple[int, bytes]:
    async with api.send(Request("GET", path)) as answer:
        return answer.status, await answer.read(_MOST)


def _read(items: Sequence[msgspec.Raw], kind: type[T], unreadable: list[str]) -> Iterator[T]:
    for raw in items:
        try:
            yield from_json(raw, kind)
        except DecodeError as error:
            unreadable.append(f"{kind.__name__} {_name(raw)}: {error}")


def _name(raw: msgspec.Raw) -> str:
    data: Any = msgspec.json.decode(raw)
    metadata = data.get("metadata") if isinstance(data, dict) else None
    return str(metadata.get("name", "")) if isinstance(metadata, dict) else ""


def _misplaced(found: MetalLBObjects, namespace: str) -> Iterator[str]:
    for kind, objects in (
        ("IPAddressPool", found.pools),
        ("L2Advertisement", found.advertisements),
    ):
        for each in objects:
            if each.metadata.namespace != namespace:
                yield f"{kind} {each.key}: only those in {namespace} count"


def _unusable(found: MetalLBObjects, namespace: str) -> Iterator[str]:
    reasons: list[str] = []
    pools: list[Pool] = []
    ads: list[Advertisement] = []
    for pool in found.pools:
        if pool.metadata.namespace == namespace:
            try:
                pools.append(pool_from_object(pool))
            except DecodeError as error:
                reasons.append(f"IPAddressPool {pool.key}: {error}")
    for ad in found.advertisements:
        if ad.metadata.namespace == namespace:
            try:
                ads.append(advertisement_from_object(ad))
            except DecodeError as error:
                reasons.append(f"L2Advertisement {ad.key}: {error}")
    kept, refused = without_overlaps(pools)
    yield from reasons
    yield from (f"IPAddressPool {namespace}/{each.name}: {reason}" for each, reason in refused)
    for each in kept:
        if not any(ad.concerns(each.name, dict(each.labels)) for ad in ads):
            yield f"IPAddressPool {namespace}/{each.name}: no L2Advertisement is for it"
