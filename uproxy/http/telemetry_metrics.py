"""What the control process measures, under the names of kube-proxy and client-go, which dashboards
read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from uproxy.core.printable import printable
from uproxy.core.report.telemetry import (
    FamilyTelemetry,
    Histogram,
    RequestTelemetry,
    Telemetry,
)


def telemetry_metrics(telemetry: Telemetry) -> Iterator[Metric]:
    """All of them."""
    yield from _syncs(telemetry)
    yield from _changes(telemetry)
    yield from _probes(telemetry)
    yield from _requests(telemetry.requests)


class _PerSync(NamedTuple):
    name: str
    help: str
    value: Callable[[FamilyTelemetry], Histogram]


_SYNC_HISTOGRAMS = (
    _PerSync(
        "kubeproxy_sync_proxy_rules_duration_seconds",
        "Duration of a sync, which makes the listeners match the cluster, in seconds.",
        lambda family: family.syncs,
    ),
    _PerSync(
        "kubeproxy_sync_full_proxy_rules_duration_seconds",
        "Duration of a sync that looked at every Service, in seconds.",
        lambda family: family.full_syncs,
    ),
    _PerSync(
        "kubeproxy_sync_partial_proxy_rules_duration_seconds",
        "Duration of a sync that looked only at changed Services, in seconds.",
        lambda family: family.partial_syncs,
    ),
    _PerSync(
        "kubeproxy_network_programming_duration_seconds",
        "Seconds from a change of endpoints in the cluster until this node served it.",
        lambda family: family.programming,
    ),
)


def _syncs(telemetry: Telemetry) -> Iterator[Metric]:
    families = sorted(telemetry.families.items())
    for metric in _SYNC_HISTOGRAMS:
        histogram = HistogramMetricFamily(metric.name, metric.help, labels=["ip_family"])
        for family, counts in families:
            value = metric.value(counts)
            histogram.add_metric([family], _buckets(value), value.sum)
        yield histogram
    last = GaugeMetricFamily(
        "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
        "Unix time of the last successful sync.",
        labels=["ip_family"],
    )
    queued = GaugeMetricFamily(
        "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
        "Unix time at which a sync was last queued. Much later than the last sync: syncs hang.",
        labels=["ip_family"],
    )
    not_local = GaugeMetricFamily(
        "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
        "Services with a Local traffic policy that have endpoints, but none on this node.",
        labels=["traffic_policy", "ip_family"],
    )
    for family, counts in families:
        last.add_metric([family], counts.last_synced)
        queued.add_metric([family], counts.last_queued)
        for policy, number in counts.no_local_endpoints.items():
            not_local.add_metric([policy, family], number)
    yield from (last, queued, not_local)


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    bounds = [*(str(bound) for bound in histogram.bounds), "+Inf"]
    return list(zip(bounds, histogram.cumulative(), strict=True))


def _changes(telemetry: Telemetry) -> Iterator[Metric]:
    prefix = "kubeproxy_sync_proxy_rules"
    yield GaugeMetricFamily(
        f"{prefix}_service_changes_pending",
        "Changes of Services that wait for the next sync.",
        value=telemetry.service_changes_pending,
    )
    yield CounterMetricFamily(
        f"{prefix}_service_changes_total",
        "Changes of Services seen.",
        value=telemetry.service_changes,
    )
    yield GaugeMetricFamily(
        f"{prefix}_endpoint_changes_pending",
        "Changes of EndpointSlices and Endpoints that wait for the next sync.",
        value=telemetry.endpoint_changes_pending,
    )
    yield CounterMetricFamily(
        f"{prefix}_endpoint_changes_total",
        "Changes of EndpointSlices and Endpoints seen.",
        value=telemetry.endpoint_changes,
    )


def _probes(telemetry: Telemetry) -> Iterator[Metric]:
    for path in ("healthz", "livez"):
        answers = CounterMetricFamily(
            f"kubeproxy_proxy_{path}_total", f"Answers of /{path} by status code.", labels=["code"]
        )
        for (probe, code), number in sorted(telemetry.probes.items()):
            if probe == path:
                answers.add_metric([str(code)], number)
        yield answers


def _requests(requests: RequestTelemetry) -> Iterator[Metric]:
    answers = CounterMetricFamily(
        "rest_client_requests_total",
        "Requests to the API server by status code, method and host.",
        labels=["code", "method", "host"],
    )
    for labels, number in sorted(requests.answers.items()):
        answers.add_metric([printable(each) for each in labels], number)
    yield answers
    durations = HistogramMetricFamily(
        "rest_client_request_duration_seconds",
        "Seconds from a request to the API server until its answer began.",
        labels=["verb", "host"],
    )
    for (verb, host), histogram in sorted(requests.durations.items()):
        shown = [printable(verb), printable(host)]
        durations.add_metric(shown, _buckets(histogram), histogram.sum)
    yield durations
