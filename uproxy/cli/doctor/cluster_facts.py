"""Facts about the cluster, as its API server tells them to this user. Asking changes nothing."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final

import msgspec

from uproxy.apiserver.client import ApiClient
from uproxy.apiserver.discovery import KnownAddresses, find_access, find_addresses
from uproxy.apiserver.failover_client import FailoverClient
from uproxy.apiserver.request import ApiServer, Request
from uproxy.apiserver.unreachable import ApiUnreachable
from uproxy.core.allocation.node_addresses import EXCLUDED
from uproxy.core.errors import SourceError

_PATIENCE: Final = 10.0
_MOST: Final = 1 << 26
_PAGE: Final = 500
_MOST_PAGES: Final = 20
_WORKLOADS: Final = ("/apis/apps/v1/daemonsets", "/apis/apps/v1/deployments")
_SERVICE_LB: Final = "svccontroller.k3s.cattle.io/svcname"
_BY_APP: Final = {
    "metallb": "MetalLB",
    "kube-vip": "kube-vip",
    "kube-vip-cloud-provider": "kube-vip",
    "purelb": "PureLB",
    "openelb": "OpenELB",
    "openelb-controller": "OpenELB",
    "openelb-manager": "OpenELB",
}
"""Programs that hand out addresses of load balancers, by the labels of their workloads."""
_CLOUD: Final = "cloud-controller-manager"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """What an API server has answered. They are the only input of the checks."""

    ahead: float | None = None
    """Seconds by which this machine's clock is ahead of the server's; None: it does not say."""
    nodes: int | None = 0
    """How many Nodes there are at least; None: they may not be listed."""
    all_excluded: bool = False
    """Whether all Nodes have the label that keeps load balancers away from them."""
    controllers: Sequence[str] | None = ()
    """Other programs that hand out addresses of load balancers; None: they may not be listed."""


class _Metadata(msgspec.Struct):
    name: str = ""
    labels: dict[str, str] | None = None


class Workload(msgspec.Struct):
    """A DaemonSet or a Deployment."""

    metadata: _Metadata = msgspec.field(default_factory=_Metadata)


class _ListMetadata(msgspec.Struct, rename="camel"):
    continue_: str = msgspec.field(default="", name="continue")
    remaining_item_count: int = 0


class _List(msgspec.Struct):
    metadata: _ListMetadata = msgspec.field(default_factory=_ListMetadata)
    items: list[Workload] | None = None


def ask_cluster(
    given: Sequence[str], kubelet_kubeconfig: Path, clock: Callable[[], float] = time.time
) -> Cluster:
    """Ask at the first address that answers; for ten seconds at most. Raises SourceError."""
    access = find_access()
    if access is None:
        advice = "name a kubeconfig in KUBECONFIG, or run this in a Pod of uproxy"
        raise SourceError(f"there are no credentials with which to ask it; {advice}")
    candidates = find_addresses(access, KnownAddresses(given, kubelet_kubeconfig))

    async def ask() -> Cluster:
        api = ApiClient(access) if candidates is None else FailoverClient(access, candidates)
        async with asyncio.timeout(_PATIENCE), api:
            return await _ask(api, clock)

    try:
        return asyncio.run(ask())
    except (ApiUnreachable, TimeoutError) as error:
        raise SourceError(f"{access.origin}: {error or 'no answer in time'}") from None


async def _ask(api: ApiServer, clock: Callable[[], float]) -> Cluster:
    nodes, all_excluded = await _ask_nodes(api)
    return Cluster(
        ahead=await _ask_time(api, clock),
        nodes=nodes,
        all_excluded=all_excluded,
        controllers=await _ask_controllers(api),
    )


async def _ask_time(api: ApiServer, clock: Callable[[], float]) -> float | None:
    """The connection is open already, so that the answer comes at once."""
    before = clock()
    async with api.send(Request("GET", "/version")) as answer:
        after = clock()
        await answer.read(_MOST)
        return ahead(answer.headers, before, after)


def ahead(headers: Mapping[str, str], before: float, after: float) -> float | None:
    """By how much the clock that said `before` and `after` a request is ahead of that of the
    server, which leaves the fraction of a second out."""
    with contextlib.suppress(KeyError, ValueError, TypeError):
        there = parsedate_to_datetime(headers["Date"]).timestamp() + 0.5
        return (before + after) / 2 - there
    return None


async def _ask_nodes(api: ApiServer) -> tuple[int | None, bool]:
    """How many there are at least, and whether all of them have the label."""
    some = await _page(api, "/api/v1/nodes", limit=1, labelSelector=f"!{EXCLUDED}")
    if some is None or some.items:
        return (None if some is None else 1), False
    every = await _page(api, "/api/v1/nodes", limit=1)
    if every is None or not every.items:
        return 0, False
    return 1 + every.metadata.remaining_item_count, True


async def _ask_controllers(api: ApiServer) -> Sequence[str] | None:
    found: dict[str, None] = {}
    for path in _WORKLOADS:
        following = ""
        for _ in range(_MOST_PAGES):
            page = await _page(api, path, limit=_PAGE, **{"continue": following})
            if page is None:
                return None
            found |= dict.fromkeys(controllers(page.items or ()))
            following = page.metadata.continue_
            if not following:
                break
    return tuple(found)


def controllers(workloads: Iterable[Workload]) -> Iterator[str]:
    """The programs among DaemonSets and Deployments that hand out addresses."""
    for each in workloads:
        name, labels = each.metadata.name, each.metadata.labels or {}
        app = labels.get("app.kubernetes.io/name") or labels.get("app", "")
        if _SERVICE_LB in labels:
            yield "k3s ServiceLB"
        elif app in _BY_APP or name in _BY_APP:
            yield _BY_APP.get(app) or _BY_APP[name]
        elif name.endswith(_CLOUD):
            yield name


async def _page(api: ApiServer, path: str, **query: str | int) -> _List | None:
    """Some objects; None: they may not be listed. A kind that the cluster does not have has
    none. Raises ApiUnreachable."""
    wanted = {name: value for name, value in query.items() if value}
    async with api.send(Request("GET", path, wanted)) as answer:
        status, body = answer.status, await answer.read(_MOST)
    if status in (401, 403):
        return None
    if status == 404:
        return _List()
    if status >= 300:
        raise ApiUnreachable(f"{path}: HTTP {status}")
    try:
        return msgspec.json.decode(body, type=_List)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiUnreachable(f"{path}: {error}") from None
