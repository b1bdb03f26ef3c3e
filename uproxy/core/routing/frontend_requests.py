"""Which service port gets a frontend that several want: that of the oldest Service.

Of two ports of one Service the first one gets it. Services of the same age are ordered by name.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from uproxy.core.cluster.objects import ObjectName
from uproxy.core.protocols import TCP
from uproxy.core.route import Frontend, Route, ServicePortName
from uproxy.core.routing.service_routes import HealthCheck, ServiceRoutes

HEALTH_CHECK_PORT: Final = "healthCheckNodePort"
"""Stands for the port name in the owner of a health check. No port can have this name, since the
API server allows lower-case letters only."""


_NAMED: Final = 3
"""How many losers a message names. There may be thousands, and each gets the message."""


class FrontendRequest(NamedTuple):
    """One service port, or health check, that wants one frontend.

    Requests are ordered by the first five fields, in which no two are equal.
    """

    created: str
    namespace: str
    name: str
    position: int
    """Its position among the requests of its Service."""
    frontend: Frontend
    owner: ServicePortName
    want: Route | HealthCheck

    @property
    def service(self) -> ObjectName:
        return ObjectName(self.namespace, self.name)


@dataclass(frozen=True, slots=True)
class Conflict:
    """A frontend that several service ports want."""

    requests: tuple[FrontendRequest, ...]
    """Two or more. The first one gets the frontend."""

    @property
    def winner(self) -> ServicePortName:
        """The service port that has the frontend."""
        return self.requests[0].owner

    @property
    def losers(self) -> tuple[ServicePortName, ...]:
        """The service ports that want the frontend and do not have it."""
        return tuple(request.owner for request in self.requests[1:])

    @property
    def message(self) -> str:
        """Which port has the frontend and which do not, as a clause."""
        count = len(self.requests) - 1
        shown = count if count <= _NAMED else 1
        losers = ", ".join(str(request.owner) for request in self.requests[1 : shown + 1])
        more = f", and {count - shown:,} more" if count > shown else ""
        frontend = self.requests[0].frontend
        return (
            f"{frontend} is served for {self.winner}, the oldest that wants it,"
            f" and not for {losers}{more}"
        )


def requests_of(wanted: ServiceRoutes) -> dict[Frontend, list[FrontendRequest]]:
    """All requests of a Service by frontend. Those of its health check come last."""
    found: dict[Frontend, list[FrontendRequest]] = {}
    for index, route in enumerate(wanted.routes):
        request = FrontendRequest(
            wanted.created, *wanted.service, index, route.frontend, route.owner, route
        )
        found.setdefault(route.frontend, []).append(request)
    health_check = wanted.health_check
    if health_check is not None:
        owner = ServicePortName(*wanted.service, HEALTH_CHECK_PORT, TCP)
        index = len(wanted.routes)
        for frontend in health_check.frontends:
            request = FrontendRequest(
                wanted.created, *wanted.service, index, frontend, owner, health_check
            )
            found.setdefault(frontend, []).append(request)
    return found


def ranked(requests: Iterable[FrontendRequest]) -> tuple[FrontendRequest, ...]:
    """Requests for one frontend in their order: the first one gets it."""
    return tuple(sorted(requests, key=_rank))


def replaced(
    requests: tuple[FrontendRequest, ...],
    gone: Iterable[FrontendRequest],
    come: Sequence[FrontendRequest],
) -> tuple[FrontendRequest, ...]:
    """Ranked requests, without those in `gone` and with those in `come`. Each is found by
    bisection, since thousands of Services may want the same frontend."""
    left = list(requests)
    for request in gone:
        del left[bisect_left(left, _rank(request), key=_rank)]
    for request in come:
        left.insert(bisect_left(left, _rank(request), key=_rank), request)
    return tuple(left)


def _rank(request: FrontendRequest) -> tuple[object, ...]:
    return request[:5]


class FrontendRequests:
    """The requests of Services by frontend, computed when first asked for and kept while the
    Service stays the same."""

    def __init__(self, services: Mapping[ObjectName, ServiceRoutes]) -> None:
        self._services = services
        self._known: dict[
            ObjectName, tuple[ServiceRoutes, dict[Frontend, list[FrontendRequest]]]
        ] = {}

    def of(self, name: ObjectName) -> Mapping[Frontend, Sequence[FrontendRequest]]:
        """The requests of one Service. Raises KeyError if there is no such Service."""
        wanted = self._services[name]
        known = self._known.get(name)
        if known is None or known[0] is not wanted:
            known = self._known[name] = wanted, requests_of(wanted)
        return known[1]
