"""The backends of a Service port: what the cluster says about them, what they get, and what has
become of that."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from itertools import islice
from typing import Final, NamedTuple

import msgspec

from uproxy.core.cluster.objects import Endpoint, EndpointSlice, ObjectName, Service
from uproxy.core.flows.backend_counts import BackendCounts
from uproxy.core.flows.backend_totals import BackendTotals, Exclusion
from uproxy.core.ip import FAMILIES, parse_ip
from uproxy.core.protocols import SERVED
from uproxy.core.route import Backend, FrontendKind, Route, ServicePortName
from uproxy.core.routing.table import RoutingTable
from uproxy.core.routing.topology import Candidate, PortKey, merge

_NO_COUNTS: Final = BackendCounts()
_UNKNOWN: Final = Endpoint()


class BackendState(StrEnum):
    """What a backend gets."""

    USED = "used"
    INSIDE = "inside only"
    """It is not for clients from outside, since externalTrafficPolicy is Local."""
    ASIDE = "set aside"
    """It has failed, and gets no new flow for a while."""
    NOT_READY = "not ready"
    TERMINATING = "terminating"
    ELSEWHERE = "elsewhere"
    """It is for clients of other nodes or zones."""
    UNUSED = "unused"
    REMOVED = "removed"
    """It is no endpoint any more."""


class Moment(NamedTuple):
    """A point in time on both clocks."""

    monotonic: float
    wall: float


class BackendStatus(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One backend of a Service port."""

    backend: Backend
    pod: str = ""
    """Name of its pod, which is in the namespace of the Service; "": it is not known."""
    node: str = ""
    zone: str = ""
    state: BackendState
    reason: str = ""
    exclusion: Exclusion | None = None
    """None: it is not set aside."""
    counts: BackendCounts


class PortStatus(NamedTuple):
    """One port of a Service."""

    name: ServicePortName
    number: int
    backends: Sequence[BackendStatus]


class CountedBackend(NamedTuple):
    """A backend that has had a flow."""

    port: ServicePortName
    backend: Backend
    pod: str
    node: str
    zone: str
    aside_workers: int
    counts: BackendCounts


class CountedBackends(NamedTuple):
    """Some backends that have had a flow."""

    found: Sequence[CountedBackend]
    left_out: int = 0
    """How many more there are."""


class _Uses(NamedTuple):
    """Which backends of a port are for which clients."""

    any: frozenset[Backend]
    outside: frozenset[Backend] | None
    """Those for clients from outside; None: the policy makes no difference."""
    cluster_ip: frozenset[Backend] | None
    """Those for clients of the ClusterIP; None: the port has no ClusterIP."""
    wanted: frozenset[Backend]
    """Those that the Service would have without loops."""
    local: bool
    """Whether one of its policies is Local."""


def port_statuses(
    service: Service,
    slices: Sequence[EndpointSlice],
    table: RoutingTable,
    totals: BackendTotals,
    now: float,
    *,
    node: str,
) -> Iterator[PortStatus]:
    """Each port of a Service with all of its endpoints, used or not, and those that were removed a
    short while ago. `node` is the name of this node."""
    merged = merge(slices, node).ports
    wanted = table.services[service.key].routes if service.key in table.services else ()
    policies = service.spec.internal_traffic_policy, service.spec.external_traffic_policy
    local = "Local" in policies
    for port in service.ports:
        if port.protocol not in SERVED:
            continue
        name = ServicePortName(*service.key, port.name, port.protocol)
        keys = (PortKey(family, port.name, port.protocol) for family in FAMILIES)
        candidates = [each for key in keys for each in merged.get(key, ())]
        uses = _uses([each for each in wanted if each.owner == name], table, local=local)
        counts, exclusions = totals.of(name), totals.exclusions(name, now)
        found = [
            _status(each, uses, exclusions.get(each.backend), counts.get(each.backend, _NO_COUNTS))
            for each in candidates
        ]
        there = {each.backend for each in candidates}
        found += [
            BackendStatus(
                backend=backend,
                pod=totals.pod(name, backend),
                state=BackendState.REMOVED,
                counts=total,
            )
            for backend, total in counts.items()
            if backend not in there
        ]
        yield PortStatus(name, port.port, found)


def counted_backends(
    totals: BackendTotals,
    slices_of: Callable[[ObjectName], Sequence[EndpointSlice]],
    *,
    most: int,
    now: float,
) -> CountedBackends:
    """The backends that have had a flow, but no more than `most`: those that had it first, so that
    each is in all answers, or in none, until it is gone. Their counts are copies."""
    found: list[CountedBackend] = []
    left_out = 0
    known: dict[ObjectName, dict[str, Endpoint]] = {}
    for port in totals.ports:
        counts, room = totals.of(port), most - len(found)
        left_out += max(len(counts) - room, 0)
        service = ObjectName(port.namespace, port.name)
        if room and service not in known:
            known[service] = endpoints_by_address(slices_of(service))
        exclusions = totals.exclusions(port, now) if room else {}
        for backend, each in islice(counts.items(), room):
            endpoint = known[service].get(backend.address, _UNKNOWN)
            exclusion = exclusions.get(backend)
            found.append(
                CountedBackend(
                    port=port,
                    backend=backend,
                    pod=endpoint.pod or totals.pod(port, backend),
                    node=endpoint.node_name or "",
                    zone=endpoint.zone or "",
                    aside_workers=exclusion.workers if exclusion is not None else 0,
                    counts=msgspec.structs.replace(each, failures=dict(each.failures)),
                )
            )
    return CountedBackends(found, left_out)


def pods_by_address(slices: Sequence[EndpointSlice]) -> dict[str, str]:
    """The names of pods by their addresses in canonical form."""
    found = endpoints_by_address(slices).items()
    return {address: each.pod for address, each in found if each.pod}


def endpoints_by_address(slices: Sequence[EndpointSlice]) -> dict[str, Endpoint]:
    """Endpoints by their addresses in canonical form. One that does not terminate comes before one
    that does."""
    found: dict[str, Endpoint] = {}
    ending: dict[str, Endpoint] = {}
    for endpoint in (each for slice_ in slices for each in slice_.endpoints or ()):
        address = parse_ip((endpoint.addresses or ("",))[0])
        if address is not None:
            (ending if endpoint.conditions.terminating else found)[address] = endpoint
    return ending | found


def endpoints_of(
    slices: Sequence[EndpointSlice], ports: Sequence[ServicePortName]
) -> dict[ServicePortName, dict[Backend, str]]:
    """The endpoints of some ports of a Service, each with the name of its pod."""
    merged = merge(slices, "").ports
    return {
        name: {
            each.backend: each.endpoint.pod
            for family in FAMILIES
            for each in merged.get(PortKey(family, name.port, name.protocol), ())
        }
        for name in ports
    }


def _uses(wanted: Sequence[Route], table: RoutingTable, *, local: bool) -> _Uses:
    """The loop guard decides after `wanted`, so its cuts are in the table only. A frontend that
    another Service has got says nothing about backends."""
    routes = []
    for each in wanted:
        actual = table.routes.get(each.frontend)
        routes.append(actual if actual is not None and actual.owner == each.owner else each)
    limited = [each for each in routes if each.local_backends is not None]
    inner = [each for each in routes if each.kind is FrontendKind.CLUSTER_IP]
    return _Uses(
        any=_all(routes),
        outside=frozenset(b for each in limited for b in each.local_backends or ())
        if limited
        else None,
        cluster_ip=frozenset(b for each in inner for b in each.backends) if inner else None,
        wanted=_all(wanted),
        local=local and bool(wanted),
    )


def _all(routes: Sequence[Route]) -> frozenset[Backend]:
    # Routes share their tuples of backends, and hashing those takes most of the time.
    sets = {id(each): each for route in routes for each in (route.backends, route.local_backends)}
    return frozenset(backend for each in sets.values() for backend in each or ())


def _status(
    each: Candidate, uses: _Uses, exclusion: Exclusion | None, counts: BackendCounts
) -> BackendStatus:
    state, reason = _state(each, uses, exclusion)
    return BackendStatus(
        backend=each.backend,
        pod=each.endpoint.pod,
        node=each.endpoint.node_name or "",
        zone=each.endpoint.zone or "",
        state=state,
        reason=reason,
        exclusion=exclusion,
        counts=counts,
    )


def _state(each: Candidate, uses: _Uses, exclusion: Exclusion | None) -> tuple[BackendState, str]:
    if each.backend not in uses.any:
        return _unused(each, uses)
    if exclusion is not None:
        return BackendState.ASIDE, "attempts to reach it have failed"
    if not each.ready:
        return BackendState.TERMINATING, "it still serves, and no other endpoint is ready"
    if uses.outside is not None and each.backend not in uses.outside:
        return (
            BackendState.INSIDE,
            "not for clients from outside: externalTrafficPolicy is Local, and it is on another"
            " node",
        )
    if uses.cluster_ip is not None and each.backend not in uses.cluster_ip:
        return (
            BackendState.USED,
            "not for clients of the ClusterIP: internalTrafficPolicy is Local, and it is on"
            " another node",
        )
    return BackendState.USED, ""


def _unused(each: Candidate, uses: _Uses) -> tuple[BackendState, str]:
    if each.backend in uses.wanted:
        return BackendState.UNUSED, "it leads back to uproxy itself"
    if each.terminating:
        still = each.serving
        return BackendState.TERMINATING, "it still serves, and gets no new flow" if still else ""
    if not each.ready:
        return BackendState.NOT_READY, ""
    if each.nodes or each.zones:
        places = ", ".join(each.nodes or each.zones)
        return BackendState.ELSEWHERE, f"its topology hints are for {places}"
    if uses.local and not each.local:
        return BackendState.ELSEWHERE, "the traffic policy is Local, and it is on another node"
    return BackendState.UNUSED, ""
