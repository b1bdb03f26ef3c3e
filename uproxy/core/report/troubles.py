"""What goes wrong on this node with a Service, as Events that `kubectl describe` shows.

Troubles are levels: what is wrong at one moment. The difference of two moments is what is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

from uproxy.core.cluster.objects import ObjectName
from uproxy.core.flows.reachability import Unanswered
from uproxy.core.route import Frontend, ServicePortName
from uproxy.core.routing.derive import HealthCheck
from uproxy.core.routing.retries import Failure
from uproxy.core.routing.table import RoutingTable

_SHOWN: Final = 3
"""Reasons in one note; a Service may have hundreds of frontends, all with the same trouble."""

CONFLICT: Final = "PortConflict"
FAILED: Final = "FailedToListen"
HEALTH_CHECK: Final = "FailedToStartServiceHealthcheck"
"""kube-proxy's name for it."""
UNANSWERED: Final = "BackendsUnreachable"
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
    """One thing to be told, in the terms of events.k8s.io/v1."""

    regarding: Reference
    type: Literal["Normal", "Warning"]
    reason: str
    action: str
    note: str


class Trouble(NamedTuple):
    """Identity of what is wrong; its Event may come to say more."""

    regarding: Reference
    reason: str


Troubles = Mapping[Trouble, Event]


def node_reference(node: str) -> Reference:
    return Reference("Node", "", node)


def starting(node: str, version: str) -> Event:
    """For the Node, when the program starts, as kube-proxy has it."""
    return Event(
        node_reference(node), "Normal", STARTING, "StartUproxy", f"uproxy {version} is starting"
    )


def troubles(
    node: str,
    table: RoutingTable,
    failures: Mapping[Frontend, Failure],
    health_check_failures: Mapping[ObjectName, str],
    unanswered: Mapping[ServicePortName, Unanswered] = _NOTHING,
    servers: Mapping[str, str] = _NOTHING,
) -> Troubles:
    """All that is wrong now. `unanswered`: ports of which no backend answers; `servers`: reasons of
    this program that cannot listen for HTTP, by the reasons' names.

    Addresses that are not on this node are one trouble of the Node: it is the normal state of a
    node without the right to add addresses, and would else be told for every Service by each.
    """
    found = dict[Trouble, Event]()
    for reason, concerned in (
        (CONFLICT, _conflicts(table)),
        (FAILED, _failures(table, failures)),
        (UNANSWERED, _unanswered(unanswered)),
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
        note = f"{len(absent)} addresses of Services, {min(absent)} for one, are not on this node"
        _put(found, node_reference(node), ABSENT, note)
    return found


def news(
    before: Troubles, now: Troubles, *, exists: Callable[[Reference], bool], node: str
) -> Iterator[Event]:
    """What has to be told after one moment followed another.

    A trouble that only changed its words is not told again: with many frontends they change all
    the time. One that ended together with its object is not told either.
    """
    for trouble, event in now.items():
        if trouble not in before:
            yield event
    for trouble, event in before.items():
        if trouble not in now and exists(trouble.regarding):
            note = f"node {node}: over: {trouble.reason}"
            yield event._replace(type="Normal", reason=RECOVERED, note=note)


def _conflicts(table: RoutingTable) -> dict[ObjectName, list[str]]:
    found = dict[ObjectName, list[str]]()
    for conflict in table.conflicts.values():
        for name in dict.fromkeys(claim.service for claim in conflict.claims[1:]):
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


def _unanswered(ports: Mapping[ServicePortName, Unanswered]) -> dict[ObjectName, list[str]]:
    found = dict[ObjectName, list[str]]()
    for name, port in ports.items():
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


def _put(found: dict[Trouble, Event], regarding: Reference, reason: str, note: str) -> None:
    found[Trouble(regarding, reason)] = Event(regarding, "Warning", reason, "Listen", note)


def _some(lines: Iterable[str]) -> str:
    different = list(dict.fromkeys(lines))
    more = len(different) - _SHOWN
    return "; ".join(different[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
