"""The metrics about whether this node serves as it should, for alerts."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric

from uproxy.core.report.readiness import ReasonKind
from uproxy.core.report.status import Status


def health_metrics(status: Status) -> Iterator[Metric]:
    """The families. Each kind of problem is always there, so that an alert about it ends."""
    yield GaugeMetricFamily(
        "uproxy_ready",
        "Whether /readyz succeeds (1): clients are served as they should be.",
        value=float(not status.not_ready),
    )
    yield GaugeMetricFamily(
        "uproxy_healthy",
        "Whether /healthz succeeds (1): load balancers may send clients to this node.",
        value=float(not status.not_healthy),
    )
    problems = GaugeMetricFamily(
        "uproxy_problems",
        "Reasons why this node is not ready or not healthy, and notes of uproxy status, by kind.",
        labels=["kind"],
    )
    for kind in ReasonKind:
        problems.add_metric([kind.value], status.problems.get(kind.value, 0))
    yield problems
    yield GaugeMetricFamily(
        "uproxy_unusable_objects",
        "Objects and manifests that cannot be used, or only in part.",
        value=len(status.objects),
    )
