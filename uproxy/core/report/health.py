"""What the health endpoints say: of the proxy as a whole (/healthz, /livez), and of the local
endpoints of one Service (healthCheckNodePort).

Load balancers and cluster operators parse these bodies, so they match kube-proxy 1.33 and later to
the byte. Times: `now` is monotonic, for ages; `wall` is seconds since the Unix epoch, for people.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from uproxy.core.cluster.objects import ObjectName
from uproxy.core.cluster.state import NodeFacts
from uproxy.core.ip import Family
from uproxy.core.printable import printable_json
from uproxy.core.report.readiness import Reason, ReasonKind

TO_BE_DELETED_TAINT = "ToBeDeletedByClusterAutoscaler"
"""The cluster autoscaler puts it on a node that it is about to remove (KEP-3836)."""

_NEVER = "0001-01-01T00:00:00Z"
"""Go's zero time."""

_HEADERS = {"Content-Type": "application/json", "X-Content-Type-Options": "nosniff"}


class HealthAnswer(NamedTuple):
    """An HTTP response, not yet sent."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _FamilyHealth(msgspec.Struct, rename="camel"):
    last_updated: str
    healthy: bool


class _Body(msgspec.Struct, rename="camel", kw_only=True, omit_defaults=True):
    last_updated: str
    current_time: str
    node_eligible: bool | None = None
    healthy: bool
    status: dict[str, _FamilyHealth] = {}


class ProxyHealth:
    """Whether changes of the cluster reach the data plane in time, for each IP family.

    A family is late when its oldest change has waited for twice the sync period. One that never
    had a sync is not judged: kube-proxy is healthy until then, and /readyz covers the start.
    Without workers nothing reaches anybody, whatever the syncs. While a start is not over, load
    balancers had better go elsewhere: unlike kube-proxy's rules, nothing of ours outlives us.
    """

    def __init__(
        self,
        *,
        sync_period: float,
        starting: Callable[[], Iterable[str]] = tuple,
        outages: Callable[[], Iterable[str]] = tuple,
        hopeless: Callable[[], bool] = lambda: False,
    ) -> None:
        """`starting`: what a start waits for; `outages`: workers for which clients wait in vain;
        `hopeless`: there has been none for so long that another process may do better."""
        self._starting = starting
        self._outages = outages
        self._hopeless = hopeless
        self._timeout = 2 * sync_period
        self._pending_since: dict[Family, float] = {}
        self._last_updated: dict[Family, float] = {}

    def queued_update(self, family: Family, *, now: float) -> None:
        """A change has arrived that is not served yet; only the oldest one counts."""
        self._pending_since.setdefault(family, now)

    def updated(self, family: Family, *, wall: float) -> None:
        """Everything that was queued is served."""
        self._pending_since.pop(family, None)
        self._last_updated[family] = wall

    def healthy(self, now: float) -> bool:
        """The proxy's own health; the fate of the node has no part in it."""
        return not any(self.problems(now))

    def problems(self, now: float) -> Iterator[Reason]:
        """Why it is not healthy; nothing: it is."""
        yield from self._delays(now)
        for missing in self._starting():
            yield Reason(ReasonKind.STARTING, f"waiting for {missing}")
        for outage in self._outages():
            yield Reason(ReasonKind.WORKER, outage)

    def healthz(self, *, now: float, wall: float, node_eligible: bool) -> HealthAnswer:
        """For load balancers: 503 also when no new connections should come to this node."""
        healthy = self.healthy(now)
        good = healthy and node_eligible
        return self._answer(good, healthy, now=now, wall=wall, node_eligible=node_eligible)

    def livez(self, *, now: float, wall: float) -> HealthAnswer:
        """For a livenessProbe: 503 only when a restart of the proxy could help (KEP-3836)."""
        good = not any(self._delays(now)) and not self._hopeless()
        return self._answer(good, good, now=now, wall=wall, node_eligible=None)

    def _delays(self, now: float) -> Iterator[Reason]:
        for family in sorted(self._last_updated):
            if self._late(family, now):
                waiting = now - self._pending_since[family]
                text = f"changes of {family} have been waiting to be served for {waiting:.0f} s"
                yield Reason(ReasonKind.DELAYED, text)

    def _late(self, family: Family, now: float) -> bool:
        since = self._pending_since.get(family)
        return since is not None and now - since >= self._timeout

    def _answer(
        self, good: bool, healthy: bool, *, now: float, wall: float, node_eligible: bool | None
    ) -> HealthAnswer:
        latest = max(self._last_updated.values(), default=None)
        body = _Body(
            # "Now" when good: clients of older releases take an old time for a hung proxy.
            last_updated=_rfc3339(wall if good else latest),
            current_time=_rfc3339(wall),
            node_eligible=node_eligible,
            healthy=healthy,
            status={
                family: _FamilyHealth(_rfc3339(updated), not self._late(family, now))
                for family, updated in sorted(self._last_updated.items())
            },
        )
        return HealthAnswer(200 if good else 503, _HEADERS, msgspec.json.encode(body))


def not_eligible(node: NodeFacts, *, watched: bool, draining: bool) -> Iterator[Reason]:
    """Why load balancers should send no new connections to this node; nothing: they should.

    A node that the cluster does not know, deletes or is about to remove is not eligible; cordons
    and other taints do not matter. Where nobody watches Nodes, not to know it means nothing.
    """
    if draining:
        yield Reason(ReasonKind.DRAINING, "draining: no new connections are accepted")
    if not node.known:
        if watched:
            yield Reason(
                ReasonKind.NODE,
                "the cluster has no Node of this name; set its name with --hostname-override",
            )
    elif node.deleting:
        yield Reason(ReasonKind.NODE, "the Node is being deleted")
    elif TO_BE_DELETED_TAINT in node.taints:
        yield Reason(
            ReasonKind.NODE,
            f"the Node is about to be removed: it has the taint {TO_BE_DELETED_TAINT}",
        )


def service_health(service: ObjectName, *, local_endpoints: int, healthy: bool) -> HealthAnswer:
    """What a healthCheckNodePort answers, whatever the method and path.

    `healthy` is the proxy's own health. A terminating endpoint is not counted, though it still
    gets traffic: load balancers go elsewhere before it is gone (KEP-1669).
    """
    body = _SERVICE_BODY % (
        printable_json(msgspec.json.encode(service.namespace)),
        printable_json(msgspec.json.encode(service.name)),
        local_endpoints,
        b"true" if healthy else b"false",
    )
    weight = {"X-Load-Balancing-Endpoint-Weight": str(local_endpoints)}
    return HealthAnswer(200 if local_endpoints and healthy else 503, _HEADERS | weight, body)


_SERVICE_BODY = b"""{
\t"service": {
\t\t"namespace": %b,
\t\t"name": %b
\t},
\t"localEndpoints": %d,
\t"serviceProxyHealthy": %b
}"""


def _rfc3339(wall: float | None) -> str:
    """As Go writes a time.Time into JSON: UTC, no trailing zeros in the fraction."""
    if wall is None:
        return _NEVER
    seconds, micros = divmod(round(wall * 1_000_000), 1_000_000)
    fraction = f".{micros:06d}".rstrip("0") if micros else ""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}{fraction}Z"
