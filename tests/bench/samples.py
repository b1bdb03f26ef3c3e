"""A run as it might have been."""

from __future__ import annotations

from bench.wire import figures
from bench.wire.results import Figure, Machine, Outcome, Run


def outcome(
    scenario: str = "keep-alive-64-t1",
    baseline: str = "haproxy",
    shown: tuple[Figure, ...] = figures.REQUESTS,
    **rounds: list[dict[str, float] | None],
) -> Outcome:
    return Outcome(
        scenario=scenario,
        title=f"The scenario {scenario}",
        baseline=baseline,
        figures=shown,
        rounds=rounds,
    )


def requests(rate: float, p99: float = 2000.0, cpu: float | None = 15.0) -> dict[str, float]:
    measured = {figures.RATE: rate, figures.P50: 900.0, figures.P99: p99, figures.ERRORS: 0.0}
    return measured if cpu is None else measured | {figures.CPU: cpu}


def run(*outcomes: Outcome) -> Run:
    machine = Machine(
        processor="Z80",
        processors=2,
        memory=65536,
        kernel="6.1",
        python="3.11.2",
        build="no PGO, no LTO",
    )
    return Run(
        started="2026-01-02T03:04:05Z",
        revision="0123456789abcdef",
        machine=machine,
        versions={"haproxy": "2.6.12"},
        seconds=2.0,
        own_network=True,
        load=0.5,
        skipped={},
        failures=["idle: go: closed"],
        outcomes=list(outcomes),
    )
