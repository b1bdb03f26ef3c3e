"""What is wrong, or odd, with the Services of manifests, as the routing table has them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from uproxy.core.cluster.load_balancer import CONDITION, Assigning
from uproxy.core.cluster.objects import ObjectName, Service
from uproxy.core.cluster.state import ClusterState
from uproxy.core.ip import family_of
from uproxy.core.report.endpoint_findings import no_endpoints_reason, orphan
from uproxy.core.report.findings import Finding, Locate, Severity, finding
from uproxy.core.route import Frontend, Route, ServicePortName
from uproxy.core.routing.annotations import PROXY_PROTOCOL, annotated
from uproxy.core.routing.derive import NOWHERE
from uproxy.core.routing.frontend_requests import HEALTH_CHECK_PORT, FrontendRequest
from uproxy.core.routing.frontends import left_to_others
from uproxy.core.routing.nodeports import ANY
from uproxy.core.routing.options import RoutingOptions
from uproxy.core.routing.port_backends import NO_ENDPOINTS, NOT_LOCAL, NOT_READY
from uproxy.core.routing.table import RoutingTable

_WILDCARDS: Final = frozenset(ANY.values())
_HEALTH_CHECK_FIELD: Final = "spec.healthCheckNodePort"
_ERROR, _WARNING = Severity.ERROR, Severity.WARNING


def service_findings(
    state: ClusterState,
    table: RoutingTable,
    locate: Locate,
    own_ports: Mapping[Frontend, str] = MappingProxyType({}),
) -> Iterator[Sequence[Finding]]:
    """The findings about each Service, EndpointSlice and Endpoints, one object after the other.
    Most objects have none.

    `own_ports` are those at which uproxy itself listens, each with the option that says so. Objects
    may come and go meanwhile; the table may not change.
    """
    options = table.options or RoutingOptions()
    lost = _lost(table)
    names: dict[str, set[str]] = {}
    for name in sorted(state.service_names()):
        names.setdefault(name.namespace, set()).add(name.name)
        service = state.service(name)
        if service is not None and not left_to_others(service, options):
            about = _About(service, state, table, locate)
            yield (
                *about.whole(),
                *about.annotations(),
                *about.ports(),
                *about.taken(own_ports),
                *about.conflicts(lost.get(name, ())),
            )
    for obj in state.all_objects():
        yield tuple(orphan(obj, names, locate))


class _Lost(NamedTuple):
    """A frontend that another Service port has."""

    winner: FrontendRequest
    loser: FrontendRequest


def _lost(table: RoutingTable) -> Mapping[ObjectName, Sequence[_Lost]]:
    """By Service: the frontends that it does not get."""
    found: dict[ObjectName, list[_Lost]] = {}
    for conflict in table.conflicts.values():
        winner, *losers = conflict.requests
        for loser in losers:
            found.setdefault(loser.service, []).append(_Lost(winner, loser))
    return found


class _About:
    """Finds what is wrong, or odd, with one Service."""

    def __init__(
        self, service: Service, state: ClusterState, table: RoutingTable, locate: Locate
    ) -> None:
        self._service = service
        self._state = state
        self._table = table
        self._locate = locate
        self._wanted = table.services.get(service.key)
        self._annotated = annotated(service)

    def whole(self) -> Iterator[Finding]:
        """What concerns the whole Service."""
        key = self._service.key
        if key in self._table.underived:
            yield self._finding(_ERROR, self._table.underived[key])
        if self._wanted is None:
            return
        severity = _WARNING if self._wanted.routes else _ERROR
        unassigned = self._unassigned()
        if unassigned:
            yield self._finding(severity, f"no address of a load balancer: {unassigned}")
        said = {problem.reason for problem in self._annotated.problems}
        if unassigned:
            said.add(NOWHERE)
        for reason in self._wanted.reasons:
            if reason not in said:
                advice = self._address_advice() if reason == NOWHERE else ""
                yield self._finding(severity, reason + advice, self._port_in(reason))

    def annotations(self) -> Iterator[Finding]:
        """Annotations that do not have the effect that their author wanted."""
        for name, reason in self._annotated.problems:
            refused = name == PROXY_PROTOCOL and self._annotated.no_header
            yield self._finding(
                _ERROR if refused else _WARNING,
                reason.removeprefix(f"annotation {name} "),
                f"metadata.annotations[{name}]",
            )

    def _port_in(self, reason: str) -> str:
        """The field of the port that a reason begins with."""
        for index, port in enumerate(self._service.ports):
            if reason.startswith(f'port "{port.name or port.port}": '):
                return f"spec.ports[{index}]"
        return ""

    def _address_advice(self) -> str:
        """How a Service gets an address that has none at all."""
        options = self._table.options
        never = options is not None and options.assigning is Assigning.NEVER
        wanted = self._service.spec.type == "LoadBalancer" and never
        return "; with --lb it gets an address" if wanted else ""

    def _unassigned(self) -> str:
        """Why uproxy gives a Service no address of a load balancer; "" if it does, or need not."""
        options = self._table.options
        if options is None or options.assigning is Assigning.NEVER:
            return ""
        for each in self._service.status.conditions or ():
            if each.type == CONDITION and each.status == "False":
                return each.message or each.reason
        return ""

    def ports(self) -> Iterator[Finding]:
        """Ports without usable backends."""
        routes: dict[ServicePortName, list[Route]] = {}
        for wanted in self._wanted.routes if self._wanted is not None else ():
            route = self._table.routes.get(wanted.frontend)
            if route is not None and route.owner == wanted.owner:
                routes.setdefault(route.owner, []).append(route)
        for port, those in routes.items():
            yield from self._port(port, those)

    def taken(self, own_ports: Mapping[Frontend, str]) -> Iterator[Finding]:
        """Frontends, and places of the health check, at ports of uproxy's own."""
        for frontend, field in self._listening() if own_ports else ():
            for own, option in own_ports.items():
                if _meet(frontend, own):
                    reason = f"{frontend} is a port of uproxy itself ({option})"
                    yield self._finding(_ERROR, reason, field)

    def _listening(self) -> Iterator[tuple[Frontend, str]]:
        """Where something is to listen for the Service, and the field that asks for it."""
        if self._wanted is None:
            return
        for route in self._wanted.routes:
            yield route.frontend, _port_field(self._service, route.owner)
        check = self._wanted.health_check
        for frontend in check.frontends if check is not None else ():
            yield frontend, _HEALTH_CHECK_FIELD

    def _port(self, port: ServicePortName, routes: Sequence[Route]) -> Iterator[Finding]:
        by_reason: dict[str, list[Route]] = {}
        for route in routes:
            if route.reason and route.reason != self._annotated.no_header:
                by_reason.setdefault(route.reason, []).append(route)
        served = any(route.usable for route in routes)
        for reason, those in by_reason.items():
            passing = reason == NOT_READY or NOT_LOCAL in reason
            yield self._finding(
                _WARNING if served or passing else _ERROR,
                self._port_reason(port, reason, _at(those, routes)),
                _port_field(self._service, port),
            )

    def _port_reason(self, port: ServicePortName, reason: str, where: str) -> str:
        if reason == NO_ENDPOINTS:
            slices = self._state.slices_of(self._service.key)
            return no_endpoints_reason(self._service, port, slices) + where
        if NOT_LOCAL in reason:
            name = self._state.node.name
            return f"{reason}{where}; this is node {name}, unless you set --hostname-override"
        return reason + where

    def conflicts(self, lost: Iterable[_Lost]) -> Iterator[Finding]:
        """Frontends that another Service port has, one of each pair of ports."""
        said: set[tuple[ServicePortName, ServicePortName, int]] = set()
        for winner, loser in lost:
            pair = winner.owner, loser.owner, loser.frontend.port
            if pair in said:
                continue
            said.add(pair)
            place = self._locate(Service, winner.service, _field_of(winner, self._state))
            reason = f"{loser.frontend} is served for {winner.owner}, and not for this one"
            yield self._finding(_ERROR, reason, _field_of(loser, self._state), see=str(place))

    def _finding(self, severity: Severity, reason: str, field: str = "", see: str = "") -> Finding:
        key = self._service.key
        file, line = self._locate(Service, key, field)
        name = f"Service {key}"
        return finding(severity, reason, file=file, line=line, obj=name, field=field, see=see)


def _field_of(request: FrontendRequest, state: ClusterState) -> str:
    """The field that asks for a frontend."""
    if request.owner.port == HEALTH_CHECK_PORT:
        return _HEALTH_CHECK_FIELD
    service = state.service(request.service)
    if service is None or not isinstance(request.want, Route):
        return ""
    return _port_field(service, request.owner)


def _meet(one: Frontend, other: Frontend) -> bool:
    """Whether only one of two listeners can be opened."""
    if (one.protocol, one.port) != (other.protocol, other.port):
        return False
    if family_of(one.address) != family_of(other.address):
        return False
    return one.address == other.address or not {one.address, other.address}.isdisjoint(_WILDCARDS)


def _port_field(service: Service, port: ServicePortName) -> str:
    for index, each in enumerate(service.ports):
        if (each.name, each.protocol) == (port.port, port.protocol):
            return f"spec.ports[{index}]"
    return ""


def _at(those: Sequence[Route], routes: Sequence[Route]) -> str:
    """To which frontends a reason applies; nothing if it applies to all."""
    if len(those) == len(routes):
        return ""
    more = f" and {len(those) - 1} more" if len(those) > 1 else ""
    return f" (at {those[0].frontend}{more})"
