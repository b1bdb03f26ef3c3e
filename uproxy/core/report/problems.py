"""What is wrong on this node with a Service, as Events that `kubectl describe` shows.

`problems` says what is wrong at one moment. `new_events` compares two moments: Events are sent for
problems that have begun, and for those that are over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

from uproxy.core.cluster.objects import ObjectName
from uproxy.core.flows.backend_reachability import Failing
from uproxy.core.route import Frontend, ServicePortName
from uproxy.core.routing.frontends import not_allowed_reason
from uproxy.core.routing.retries import Failure
from uproxy.core.routing.service_routes import HealthCheck
from uproxy.core.routing.table import RoutingTable

_SHOWN: Final = 3
"""How many reasons a note has. A Service may have hundreds of frontends, all with the same
problem."""

CONFLICT: Final = "PortConflict"
FAILED: Final = "FailedToListen"
HEALTH_CHECK: Final = "FailedToStartServiceHealthcheck"
"""kube-proxy's name for it."""
NOT_ALLOWED: Final = "ExternalIPNotAllowed"
UNREACHABLE: Final = "BackendsUnreachable"
ABSENT: Final = "AddressesNotOnNode"
RECOVERED: Final = "Recovered"
STARTING: Final = "Starting"
HEALTH_SERVER: Final = "FailedToStartProxierHealthcheck"
"""kube-proxy's name for it."""
METRICS_SERVER: Final = "FailedToStartMetricsServer"

_NOTHING: Final[Mapping[Any, Any]] = MappingProxyType({})


class Reference(NamedTuple):
    """The object that an Event is about."""

    kind: Literal["Service", "Node"]
    namespace: str
    name: str


class Event(NamedTuple):
    """An Event to be sent, with the fields of events.k8s.io/v1."""

    regarding: Reference
    type: Literal["Normal", "Warning"]
    reason: str
    action: str
    note: str


class Problem(NamedTuple):
    """The identity of a problem. What its Event says may change meanwhile."""

    regarding: Reference
    reason: str


Problems = Mapping[Problem, Event]


def node_reference(node: str) -> Reference:
    """The Node of this name, for an Event about it."""
    return Reference("Node", "", node)


def starting(node: str, version: str) -> Event:
    """The Event on the Node when the program starts, as kube-proxy sends it."""
    return Event(
        node_reference(node), "Normal", STARTING, "StartUproxy", f"uproxy {version} is starting"
    )


def problems(
    node: str,
    table: RoutingTable,
    failures: Mapping[Frontend, Failure],
    health_check_failures: Mapping[ObjectName, str],
    failing: Mapping[ServicePortName, Failing] = _NOTHING,
    servers: Mapping[str, str] = _NOTHING,
) -> Problems:
    """Everything that is wrong at this moment.

    `failing` has the Service ports with backends that do not answer; it is a problem of the Service
    if none does. `servers` says why one of
    the program's own HTTP servers cannot listen, by the reason that the Event gets.

    Addresses of Services that are not on this node are a single problem of the Node. A node
    without the right to add addresses is always in that state, and would otherwise send an Event
    for each of its Services.
    """
    found = dict[Problem, Event]()
    for reason, concerned in (
        (CONFLICT, _conflicts(table)),
        (FAILED, _failures(table, failures)),
        (NOT_ALLOWED, _not_allowed(table)),
        (UNREACHABLE, _unreachable(failing)),
    ):
        for name, lines in concerned.items():
            _put(found, _service(name), reason, f"node {node}: {_some(lines)}")
    for reason, text in servers.items():
        _put(found, node_reference(node), reason, f"node {node}: {text}; retrying")
    for name, text in health_check_failures.items():
        check = table.health_checks.get(name)
        if check is not None:
            _put(found, _service(name), HEALTH_CHECK, _health_check_note(node, check, text))
    absent = {frontend.address for frontend, failure in failures.items() if failure.absent}
    if absent:
        note = f"{len(absent)} Service addresses are not on this node, for example {min(absent)}"
        _put(found, node_reference(node), ABSENT, note)
    return found


def new_events(
    before: Problems, now: Problems, *, exists: Callable[[Reference], bool], node: str
) -> Iterator[Event]:
    """The Events to send when the problems were `before` and are `now`.

    A problem that is only described differently gets no new Event, since with many frontends the
    description changes all the time. Nor does a problem that has ended with its object, of which
    `exists` says whether it is still there.
    """
    for problem, event in now.items():
        if problem not in before:
            yield event
    for problem, event in before.items():
        if problem not in now and exists(problem.regarding):
            note = f"node {node}: {problem.reason} has been resolved"
            yield event._replace(type="Normal", reason=RECOVERED, note=note)


def _conflicts(table: RoutingTable) -> dict[ObjectName, list[str]]:
    found = dict[ObjectName, list[str]]()
    for conflict in table.conflicts.values():
        for name in dict.fromkeys(request.service for request in conflict.requests[1:]):
            found.setdefault(name, []).append(conflict.message)
    return found


def _failures(
    table: RoutingTable, failures: Mapping[Frontend, Failure]
) -> dict[ObjectName, list[str]]:
    found = dict[ObjectName, list[str]]()
    for frontend, failure in failures.items():
        route = table.routes.get(frontend)
        if route is not None and not failure.absent:
            name = ObjectName(route.owner.namespace, route.owner.name)
            found.setdefault(name, []).append(failure.reason)
    return found


def _not_allowed(table: RoutingTable) -> dict[ObjectName, list[str]]:
    return {
        name: [not_allowed_reason(address) for address in table.services[name].not_allowed]
        for name in table.not_allowed
    }


def _unreachable(failing: Mapping[ServicePortName, Failing]) -> dict[ObjectName, list[str]]:
    found = dict[ObjectName, list[str]]()
    for name, port in failing.items():
        if port.none_answers:
            found.setdefault(ObjectName(name.namespace, name.name), []).append(
                f"port {name.port or '(unnamed)'}/{name.protocol}: {port.reason}"
            )
    return found


def _health_check_note(node: str, check: HealthCheck, reason: str) -> str:
    return (
        f'node {node} failed to start healthcheck "{check.service}" on port {check.port}: {reason}'
    )


def _service(name: ObjectName) -> Reference:
    return Reference("Service", name.namespace, name.name)


def _put(found: dict[Problem, Event], regarding: Reference, reason: str, note: str) -> None:
    found[Problem(regarding, reason)] = Event(regarding, "Warning", reason, "Listen", note)


def _some(lines: Iterable[str]) -> str:
    different = list(dict.fromkeys(lines))
    more = len(different) - _SHOWN
    return "; ".join(different[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
