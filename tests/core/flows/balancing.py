"""Backends with one-letter names, for tests of balancing."""

from __future__ import annotations

from uproxy.core.flows.balancer import Balancer
from uproxy.core.flows.ejection import FAILURES
from uproxy.core.route import (
    Backend,
    BalancerKind,
    Frontend,
    FrontendKind,
    Route,
    ServicePortName,
)

LETTERS = "abcdefgh"
BACKENDS = {letter: Backend(f"10.0.0.{n}", 80) for n, letter in enumerate(LETTERS, 1)}
NAMES = {backend: letter for letter, backend in BACKENDS.items()} | {None: "-"}
OWNER = ServicePortName("default", "web", "", "TCP")
CLIENT = "192.0.2.1"


def some(letters: str) -> tuple[Backend, ...]:
    """A new tuple each time, as every message to a worker brings."""
    return tuple(BACKENDS[letter] for letter in letters)


def route(
    letters: str = "", timeout: int = 0, kind: BalancerKind = BalancerKind.ROUND_ROBIN
) -> Route:
    return Route(
        frontend=Frontend("TCP", "192.0.2.100", 80),
        owner=OWNER,
        kind=FrontendKind.CLUSTER_IP,
        backends=some(letters),
        affinity_timeout=timeout,
        balancer=kind,
    )


def set_aside(subject: Balancer, backend: Backend, backends: tuple[Backend, ...]) -> None:
    for _ in range(FAILURES):
        subject.failed(backend, backends, 0.0, "ECONNREFUSED")


def balancer(offset: float = 0.0) -> Balancer:
    return Balancer(offset=offset, random=lambda: 0.5)
