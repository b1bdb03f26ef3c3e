"""What the health endpoints answer: /healthz and /livez for the proxy as a whole, and a
healthCheckNodePort for the local endpoints of one Service.

Load balancers and cluster operators parse these bodies, so they are the same as those of kube-proxy
1.33 and later, byte by byte. `now` is monotonic time, for ages; `wall` is Unix time, for people.
Both are in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from uproxy.core.cluster.objects import TO_BE_DELETED_TAINT, ObjectName
from uproxy.core.cluster.state import NodeFacts
from uproxy.core.ip import Family
from uproxy.core.printable import printable_json
from uproxy.core.report.readiness import Reason, ReasonKind

_NEVER = "0001-01-01T00:00:00Z"
"""Go's zero time, for a family that has never been updated."""

_HEADERS = {"Content-Type": "application/json", "X-Content-Type-Options": "nosniff"}


class HealthAnswer(NamedTuple):
    """An HTTP response to be sent."""

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

    As in kube-proxy a family is unhealthy once its oldest change has waited for twice the sync
    period. A family that has never been synced counts as healthy; /readyz covers the start.

    Two rules go further than kube-proxy's. Workers that do not serve make the proxy unhealthy. So
    does a start that is not over: kube-proxy's rules in the kernel outlive it, while nothing serves
    clients here until the start is over, so load balancers have to go elsewhere.
    """

    def __init__(
        self,
        *,
        sync_period: float,
        starting: Callable[[], Iterable[str]] = tuple,
        unavailable_workers: Callable[[], Iterable[str]] = tuple,
        needs_restart: Callable[[], bool] = lambda: False,
    ) -> None:
        """`starting` says what the start still waits for, and `unavailable_workers` which workers
        leave clients without service. `needs_restart` says whether no worker has served for so long
        that restarting the process may help."""
        self._starting = starting
        self._unavailable_workers = unavailable_workers
        self._needs_restart = needs_restart
        self.sync_period = sync_period
        self._pending_since: dict[Family, float] = {}
        self._last_updated: dict[Family, float] = {}

    def queued_update(self, family: Family, *, now: float) -> None:
        """Note that a change has arrived that is not served yet. Only the oldest one counts."""
        self._pending_since.setdefault(family, now)

    def updated(self, family: Family, *, wall: float) -> None:
        """Note that all changes of a family are served."""
        self._pending_since.pop(family, None)
        self._last_updated[family] = wall

    def healthy(self, now: float) -> bool:
        """Whether the proxy itself is healthy, whatever becomes of the node."""
        return not any(self.problems(now))

    def problems(self, now: float) -> Iterator[Reason]:
        """Why the proxy is not healthy; nothing: it is healthy."""
        yield from self._delays(now)
        for missing in self._starting():
            yield Reason(ReasonKind.STARTING, f"waiting for {missing}")
        for outage in self._unavailable_workers():
            yield Reason(ReasonKind.WORKER, outage)

    def healthz(self, *, now: float, wall: float, node_eligible: bool) -> HealthAnswer:
        """The answer for load balancers: 503 also if this node should get no new connections."""
        healthy = self.healthy(now)
        good = healthy and node_eligible
        return self._answer(good, healthy, now=now, wall=wall, node_eligible=node_eligible)

    def alive(self, now: float) -> bool:
        """Whether the proxy works; if it does not, restarting it may help."""
        return not any(self._delays(now)) and not self._needs_restart()

    def livez(self, *, now: float, wall: float) -> HealthAnswer:
        """The answer for a livenessProbe: 503 only if restarting the proxy could help
        (KEP-3836)."""
        good = self.alive(now)
        return self._answer(good, good, now=now, wall=wall, node_eligible=None)

    def _delays(self, now: float) -> Iterator[Reason]:
        for family in sorted(self._last_updated):
            if self._late(family, now):
                waiting = now - self._pending_since[family]
                text = f"changes of {family} have been waiting to be served for {waiting:.0f} s"
                yield Reason(ReasonKind.DELAYED, text)

    def _late(self, family: Family, now: float) -> bool:
        since = self._pending_since.get(family)
        return since is not None and now - since >= 2 * self.sync_period

    def _answer(
        self, good: bool, healthy: bool, *, now: float, wall: float, node_eligible: bool | None
    ) -> HealthAnswer:
        latest = max(self._last_updated.values(), default=None)
        body = _Body(
            # "Now" if healthy, as in kube-proxy: clients of older releases take an old time for a
            # hang.
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


def not_eligible(
    node: NodeFacts, *, watched: bool, draining: bool, candidates: Sequence[str] = ()
) -> Iterator[Reason]:
    """Why load balancers should send no new connections to this node; nothing if they may.

    A node is not eligible if its Node does not exist, is being deleted, or has the autoscaler's
    taint. A cordon and other taints do not matter (KEP-3836). If Nodes are not `watched`, an
    unknown Node means nothing. `candidates`: the names of other Nodes that have an address of this
    machine; one of them may be the name that was meant.
    """
    if draining:
        yield Reason(ReasonKind.DRAINING, "draining: no new connections are accepted")
    if not node.known:
        if watched:
            yield Reason(ReasonKind.NODE, _no_node(node.name, candidates))
    elif node.deleting:
        yield Reason(ReasonKind.NODE, "the Node is being deleted")
    elif TO_BE_DELETED_TAINT in node.taints:
        yield Reason(
            ReasonKind.NODE,
            f"the Node is about to be removed: it has the taint {TO_BE_DELETED_TAINT}",
        )


def _no_node(name: str, candidates: Sequence[str]) -> str:
    if not candidates:
        return (
            f"the cluster has no Node {name}: it was deleted, or this node has another name, to be"
            " set with --hostname-override"
        )
    have = "has" if len(candidates) == 1 else "have"
    return (
        f"the cluster has no Node {name}, but {' and '.join(candidates)} {have} an address of this"
        " machine: set the name with --hostname-override"
    )


def service_health(service: ObjectName, *, local_endpoints: int, healthy: bool) -> HealthAnswer:
    """What a healthCheckNodePort answers, whatever the method and path: 200 if this node has a
    ready endpoint and the proxy is healthy, otherwise 503.

    `healthy` is the proxy's own health, without that of the node. A terminating endpoint does not
    count, though it still gets traffic, so that load balancers go elsewhere before it ends
    (KEP-1669). The header with the weight is kube-proxy's since 1.28.
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
    """A time as Go writes it into JSON: in UTC, without trailing zeros in the fraction."""
    if wall is None:
        return _NEVER
    seconds, micros = divmod(round(wall * 1_000_000), 1_000_000)
    fraction = f".{micros:06d}".rstrip("0") if micros else ""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}{fraction}Z"
