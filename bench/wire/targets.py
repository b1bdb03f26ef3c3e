"""The targets for uproxy, compared with its peers (one worker, one thread) and with itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from bench.wire import figures
from bench.wire.cluster import CALLS
from bench.wire.results import Outcome
from bench.wire.scenarios import THREADS, UPROXIES
from bench.wire.statistics import Spread, ratios, spread, values


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A bound for the median of a ratio; without a peer, for the median of the figure itself."""

    scenario: str
    figure: str
    peer: str = ""
    bound: float
    subject: str = "uproxy"
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


def _least(scenario: str, figure: str, peer: str, bound: float, subject: str = "uproxy") -> Target:
    return Target(scenario=scenario, figure=figure, peer=peer, bound=bound, subject=subject)


def _most(scenario: str, figure: str, peer: str, bound: float, subject: str = "uproxy") -> Target:
    return Target(
        scenario=scenario, figure=figure, peer=peer, bound=bound, subject=subject, at_least=False
    )


def _next_to_haproxy(subject: str, threads: int) -> tuple[Target, ...]:
    """One worker next to one thread, and two next to two. CPU comes first."""
    requests, short = f"keep-alive-64-t{threads}", f"connections-t{threads}"
    bulk, two = f"bulk-8-t{threads}", f"two-workers-t{threads}"
    rate = 1.1 if subject == "uproxy" and threads == 2 else 1.0
    return (
        _most(requests, figures.CPU, "haproxy", 0.9, subject),
        _most(short, figures.CPU, "haproxy", 1.0, subject),
        _most(bulk, figures.CPU, "haproxy", 0.3, subject),
        _least(requests, figures.RATE, "haproxy", rate, subject),
        _least(short, figures.RATE, "haproxy", 1.0, subject),
        _least(bulk, figures.THROUGHPUT, "haproxy", 1.5, subject),
        _least(two, figures.RATE, "haproxy", 1.0, subject),
        _least(f"two-workers-connections-t{threads}", figures.RATE, "haproxy", 1.0, subject),
        _most(requests, figures.P99, "haproxy", 1.1, subject),
        _most(short, figures.P99, "haproxy", 1.1, subject),
    )


TARGETS: Final = (
    *(
        target
        for threads in THREADS
        for subject in UPROXIES
        for target in _next_to_haproxy(subject, threads)
    ),
    *(_most("burst", figures.P99, "haproxy", 1.1, each) for each in UPROXIES),
    *(_most("trickle", figures.P99, "haproxy", 1.1, each) for each in UPROXIES),
    *(_least("udp-50", figures.RATE, "nginx", 1.3, each) for each in UPROXIES),
    _least("keep-alive-1-t1", figures.RATE, "haproxy", 1.0),
    _least("bulk-1-t1", figures.THROUGHPUT, "haproxy", 1.5),
    _least("bulk-8-t2", figures.THROUGHPUT, "haproxy-bulk", 1.0),
    _least("stream", figures.THROUGHPUT, "haproxy-bulk", 1.0),
    _least("keep-alive-64-t2", figures.RATE, "go", 1.1),
    _least("connections-t2", figures.RATE, "go", 1.1),
    _least("bulk-8-t2", figures.THROUGHPUT, "go", 1.1),
    _least("udp-1", figures.RATE, "nginx", 1.5),
    _least("udp-500", figures.RATE, "nginx", 1.5),
    _least("udp-5000", figures.RATE, "nginx", 1.5),
    *(
        _least(f"preserved-{call.name}-{kind}-t2", figures.RATE, "uproxy-never", 0.9)
        for call in CALLS
        for kind in ("requests", "connections")
    ),
    _most("idle", figures.PROCESS, "haproxy", 1.0),
    _most("churn-t2", figures.SLOWDOWN, "", 1.2),
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
        return ratios(outcome, target.subject, target.figure, target.peer)
    return values(outcome, target.subject, target.figure)
