"""The targets for uproxy, compared with its peers (one worker, one thread) and with itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from bench.wire import figures
from bench.wire.cluster import CALLS
from bench.wire.results import Outcome
from bench.wire.statistics import Spread, ratios, spread, values


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A bound for the median of a ratio; without a peer, for the median of the figure itself."""

    scenario: str
    figure: str
    peer: str = ""
    bound: float
    at_least: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How a target was met."""

    target: Target
    measured: Spread

    @property
    def met(self) -> bool:
        if self.target.at_least:
            return self.measured.median >= self.target.bound
        return self.measured.median <= self.target.bound


def _least(scenario: str, figure: str, peer: str, bound: float) -> Target:
    return Target(scenario=scenario, figure=figure, peer=peer, bound=bound)


def _most(scenario: str, figure: str, peer: str, bound: float) -> Target:
    return Target(scenario=scenario, figure=figure, peer=peer, bound=bound, at_least=False)


TARGETS: Final = (
    _least("keep-alive-64", figures.RATE, "haproxy", 1.0),
    _most("keep-alive-64", figures.P99, "haproxy", 1.1),
    _least("keep-alive-1", figures.RATE, "haproxy", 1.0),
    _least("connections", figures.RATE, "haproxy", 1.0),
    _least("bulk-1", figures.THROUGHPUT, "haproxy", 1.5),
    _least("bulk-8", figures.THROUGHPUT, "haproxy", 1.5),
    _least("bulk-8", figures.THROUGHPUT, "haproxy-bulk", 1.0),
    _least("stream", figures.THROUGHPUT, "haproxy-bulk", 1.0),
    _most("bulk-8", figures.CPU, "haproxy", 0.5),
    _least("keep-alive-64", figures.RATE, "go", 1.1),
    _least("connections", figures.RATE, "go", 1.1),
    _least("bulk-8", figures.THROUGHPUT, "go", 1.1),
    _least("udp-1", figures.RATE, "nginx", 1.5),
    _least("udp-50", figures.RATE, "nginx", 1.5),
    _least("udp-500", figures.RATE, "nginx", 1.5),
    _least("udp-5000", figures.RATE, "nginx", 1.5),
    *(
        _least(f"preserved-{call.name}-{kind}", figures.RATE, "uproxy-never", 0.9)
        for call in CALLS
        for kind in ("requests", "connections")
    ),
    _most("idle", figures.PROCESS, "haproxy", 1.0),
    _most("churn", figures.SLOWDOWN, "", 1.2),
)


def verdicts(outcomes: Iterable[Outcome], targets: Iterable[Target] = TARGETS) -> list[Verdict]:
    """Those of the targets that were measured."""
    by_name = {each.scenario: each for each in outcomes}
    found = []
    for target in targets:
        outcome = by_name.get(target.scenario)
        measured = spread(_measured(outcome, target)) if outcome else None
        if measured:
            found.append(Verdict(target=target, measured=measured))
    return found


def _measured(outcome: Outcome, target: Target) -> list[float]:
    if target.peer:
        return ratios(outcome, "uproxy", target.figure, target.peer)
    return values(outcome, "uproxy", target.figure)
