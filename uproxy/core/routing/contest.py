"""Who has a frontend that several service ports want: the older Service, then its first port."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from uproxy.core.cluster.objects import ObjectName
from uproxy.core.protocols import TCP
from uproxy.core.route import Frontend, Route, ServicePortName
from uproxy.core.routing.derive import HealthCheck, ServiceRoutes

HEALTH_CHECK_PORT: Final = "healthCheckNodePort"
"""Stands for the port name in the owner of a health check. No port can be called that: port
names are lower case."""


_NAMED: Final = 3
"""Losers that a message names; there may be thousands, and each of them is told."""


class Claim(NamedTuple):
    """One wish for one frontend. The first five fields order claims, and no two have them all."""

    created: str
    namespace: str
    name: str
    position: int
    """Position among the wishes of its Service."""
    frontend: Frontend
    owner: ServicePortName
    want: Route | HealthCheck

    @property
    def service(self) -> ObjectName:
        return ObjectName(self.namespace, self.name)


@dataclass(frozen=True, slots=True)
class Conflict:
    """A frontend that several service ports want."""

    claims: tuple[Claim, ...]
    """At least two, the winning one first."""

    @property
    def winner(self) -> ServicePortName:
        return self.claims[0].owner

    @property
    def losers(self) -> tuple[ServicePortName, ...]:
        return tuple(claim.owner for claim in self.claims[1:])

    @property
    def message(self) -> str:
        count = len(self.claims) - 1
        shown = count if count <= _NAMED else 1
        losers = ", ".join(str(claim.owner) for claim in self.claims[1 : shown + 1])
        more = f", and {count - shown:,} more" if count > shown else ""
        frontend = self.claims[0].frontend
        return (
            f"{frontend} is served for {self.winner}, which is first by age, not for {losers}{more}"
        )


def claims_of(wanted: ServiceRoutes) -> dict[Frontend, list[Claim]]:
    """All wishes of a Service by frontend; the health check's come last."""
    found: dict[Frontend, list[Claim]] = {}
    for index, route in enumerate(wanted.routes):
        claim = Claim(wanted.created, *wanted.service, index, route.frontend, route.owner, route)
        found.setdefault(route.frontend, []).append(claim)
    health_check = wanted.health_check
    if health_check is not None:
        owner = ServicePortName(*wanted.service, HEALTH_CHECK_PORT, TCP)
        index = len(wanted.routes)
        for frontend in health_check.frontends:
            claim = Claim(wanted.created, *wanted.service, index, frontend, owner, health_check)
            found.setdefault(frontend, []).append(claim)
    return found


def ranked(claims: Iterable[Claim]) -> tuple[Claim, ...]:
    """The winner first."""
    return tuple(sorted(claims, key=_rank))


def replaced(
    claims: tuple[Claim, ...], gone: Iterable[Claim], come: Sequence[Claim]
) -> tuple[Claim, ...]:
    """Ranked claims without some of them and with others. Those that stay are not looked at one by
    one: thousands of Services may want one frontend."""
    left = list(claims)
    for claim in gone:
        del left[bisect_left(left, _rank(claim), key=_rank)]
    for claim in come:
        left.insert(bisect_left(left, _rank(claim), key=_rank), claim)
    return tuple(left)


def _rank(claim: Claim) -> tuple[object, ...]:
    return claim[:5]


class Wishes:
    """What Services want, by frontend, worked out once for each as long as it stays the same."""

    def __init__(self, services: Mapping[ObjectName, ServiceRoutes]) -> None:
        self._services = services
        self._known: dict[ObjectName, tuple[ServiceRoutes, dict[Frontend, list[Claim]]]] = {}

    def of(self, name: ObjectName) -> Mapping[Frontend, Sequence[Claim]]:
        """Those of a Service that is there."""
        wanted = self._services[name]
        known = self._known.get(name)
        if known is None or known[0] is not wanted:
            known = self._known[name] = wanted, claims_of(wanted)
        return known[1]
