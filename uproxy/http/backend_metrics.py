"""The metrics uproxy_per_backend_*, which exist with --metrics-per-backend only: a cluster may have
more pods than Prometheus should have time series."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import accumulate
from typing import Final, NamedTuple

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.samples import Sample

from uproxy.core import protocols
from uproxy.core.flows.backend_counts import CONNECT_BUCKETS, BackendCounts
from uproxy.core.printable import printable
from uproxy.core.report.backends import CountedBackend, CountedBackends

_Labelled = Sequence[tuple[dict[str, str], CountedBackend]]

_STREAMS: Final = tuple(name for name, each in protocols.TRANSPORTS.items() if each.has_handshake)
"""Protocols in which a backend accepts a connection, so that the time to connect can be told."""


class _PerBackend(NamedTuple):
    name: str
    kind: str
    help: str
    value: Callable[[CountedBackend], float]


_METRICS: Final = (
    _PerBackend(
        "uproxy_per_backend_flows_total",
        "counter",
        "TCP connections that a backend has accepted, and UDP flows that were sent to it.",
        lambda each: each.counts.flows,
    ),
    _PerBackend(
        "uproxy_per_backend_active_flows",
        "gauge",
        "TCP and UDP flows of a backend that are active now.",
        lambda each: each.counts.active,
    ),
    _PerBackend(
        "uproxy_per_backend_client_bytes_total",
        "counter",
        "Bytes received from clients and given to a backend.",
        lambda each: each.counts.client_bytes,
    ),
    _PerBackend(
        "uproxy_per_backend_backend_bytes_total",
        "counter",
        "Bytes received from a backend and given to clients.",
        lambda each: each.counts.backend_bytes,
    ),
    _PerBackend(
        "uproxy_per_backend_dial_retries_total",
        "counter",
        "Attempts to reach a backend after another one had failed the same flow.",
        lambda each: each.counts.retries,
    ),
    _PerBackend(
        "uproxy_per_backend_ejections_total",
        "counter",
        "How often a worker process has set a backend aside because it had failed.",
        lambda each: each.counts.ejections,
    ),
    _PerBackend(
        "uproxy_per_backend_set_aside_workers",
        "gauge",
        "Worker processes that give a backend no new flow now, because it has failed.",
        lambda each: each.aside_workers,
    ),
)


def backend_metrics(backends: CountedBackends) -> Iterator[Metric]:
    """The metrics of these backends, and how many others have none."""
    labelled = [(_labels(each), each) for each in backends.found]
    for metric in _METRICS:
        family = Metric(metric.name.removesuffix("_total"), metric.help, metric.kind)
        family.samples = [
            Sample(metric.name, labels, metric.value(each)) for labels, each in labelled
        ]
        yield family
    yield _failures(labelled)
    yield _connect_times(labelled)
    yield GaugeMetricFamily(
        "uproxy_per_backend_left_out",
        "Backends that have no metrics of their own, since there are more than "
        "--metrics-per-backend allows.",
        value=backends.left_out,
    )


def _labels(each: CountedBackend) -> dict[str, str]:
    port = each.port
    return {
        "namespace": printable(port.namespace),
        "service": printable(port.name),
        "port": printable(port.port),
        "protocol": port.protocol,
        "backend": str(each.backend),
        "pod": printable(each.pod),
        "node": printable(each.node),
        "zone": printable(each.zone),
    }


def _failures(labelled: _Labelled) -> Metric:
    name = "uproxy_per_backend_dial_failures"
    family = Metric(name, "Failed attempts to reach a backend, by errno.", "counter")
    family.samples = [
        Sample(f"{name}_total", {**labels, "errno": error}, number)
        for labels, each in labelled
        for error, number in sorted(each.counts.failures.items())
    ]
    return family


def _connect_times(labelled: _Labelled) -> Metric:
    name = "uproxy_per_backend_connect_duration_seconds"
    family = Metric(name, "Seconds until a backend has accepted a TCP connection.", "histogram")
    for labels, each in labelled:
        if each.port.protocol in _STREAMS:
            family.samples += _histogram(name, labels, each.counts)
    return family


def _histogram(name: str, labels: dict[str, str], counts: BackendCounts) -> Collection[Sample]:
    times = counts.connect_times or [0] * len(_BOUNDS)
    numbers = list(accumulate(times))
    return [
        *(
            Sample(f"{name}_bucket", {**labels, "le": bound}, number)
            for bound, number in zip(_BOUNDS, numbers, strict=True)
        ),
        Sample(f"{name}_count", labels, numbers[-1]),
        Sample(f"{name}_sum", labels, counts.connect_seconds),
    ]


_BOUNDS: Final = (*map(str, CONNECT_BUCKETS), "+Inf")
