"""Who has a frontend that several service ports want: the older Service, then its first port."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from uproxy.core.derive import HealthCheck, ServiceRoutes
from uproxy.core.objects import ObjectName
from uproxy.core.route import Frontend, Route, ServicePortName

HEALTH_CHECK_PORT: Final = "healthCheckNodePort"
"""Stands for the port name in the owner of a health check. No port can be called that: port
names are lower case."""


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
        losers = ", ".join(map(str, self.losers))
        frontend = self.claims[0].frontend
        return f"{frontend} is served for {self.winner}, which is first by age, not for {losers}"


def claims_of(wanted: ServiceRoutes | None) -> dict[Frontend, list[Claim]]:
    """All wishes of a Service by frontend; the health check's come last."""
    found: dict[Frontend, list[Claim]] = {}
    if wanted is None:
        return found
    for index, route in enumerate(wanted.routes):
        claim = Claim(wanted.created, *wanted.service, index, route.frontend, route.owner, route)
        found.setdefault(route.frontend, []).append(claim)
    health_check = wanted.health_check
    if health_check is not None:
        owner = ServicePortName(*wanted.service, HEALTH_CHECK_PORT, "TCP")
        index = len(wanted.routes)
        for frontend in health_check.frontends:
            claim = Claim(wanted.created, *wanted.service, index, frontend, owner, health_check)
            found.setdefault(frontend, []).append(claim)
    return found


def ranked(claims: Iterable[Claim]) -> tuple[Claim, ...]:
    """The winner first."""
    return tuple(sorted(claims, key=lambda claim: claim[:5]))
