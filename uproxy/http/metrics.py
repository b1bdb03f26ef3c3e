"""/metrics: kube-proxy's and client-go's names where they mean the same here, and uproxy_* for the
traffic.

Samples are taken on the event loop, so that they fit together. Turning them into text takes ten
times as long (half a second for 10 000 Services), so that is done in a thread.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from aiohttp import hdrs, web
from prometheus_client import ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from uproxy.core import protocols
from uproxy.core.flows.counters import Counters
from uproxy.core.printable import printable
from uproxy.core.report.client_addresses import Masquerade
from uproxy.core.report.status import FrontendState, Status, WorkerStatus
from uproxy.core.report.telemetry import (
    FamilyTelemetry,
    Histogram,
    RequestTelemetry,
    Telemetry,
)
from uproxy.core.route import ServicePortName
from uproxy.host.process_usage import process_usage


def metrics_page(
    telemetry: Telemetry, status: Callable[[], Status], *, version: str
) -> Callable[[web.Request], Awaitable[web.Response]]:
    """What serves /metrics, in the text format that the Accept header asks for."""
    process = ProcessCollector(registry=None)

    async def metrics(request: web.Request) -> web.Response:
        scrape = _Scrape(samples(telemetry, status(), version=version), process)
        encode, content_type = _encoder(",".join(request.headers.getall(hdrs.ACCEPT, ())))
        body = await asyncio.to_thread(encode, scrape)
        response = web.Response(body=body, headers={hdrs.CONTENT_TYPE: content_type})
        response.enable_compression()
        return response

    return metrics


def _encoder(accept: str) -> tuple[Callable[[Collector], bytes], str]:
    """The encoder for the requested format; if that makes no sense, the one for plain text."""
    try:
        return choose_encoder(accept)
    except (TypeError, ValueError):
        return choose_encoder("")


class _Scrape(Collector):
    """The samples of one scrape, and those of this process."""

    def __init__(self, families: list[Metric], process: Collector) -> None:
        self._families = families
        self._process = process

    def collect(self) -> Iterator[Metric]:
        yield from self._families
        yield from self._process.collect()


def samples(telemetry: Telemetry, status: Status, *, version: str) -> list[Metric]:
    """Everything but the metrics of the process."""
    return [
        *_syncs(telemetry),
        *_changes(telemetry),
        *_probes(telemetry),
        *_requests(telemetry.requests),
        *_traffic(status.counters),
        *_program(status, version),
    ]


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
    """Under client-go's names, which dashboards for kube-proxy read."""
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


_DATAGRAMS: Final = tuple(name for name, each in protocols.TRANSPORTS.items() if not each.is_stream)
"""Protocols whose datagrams are counted."""


class _PerServicePort(NamedTuple):
    name: str
    help: str
    value: Callable[[Counters], int]
    protocols: Collection[str] = protocols.SERVED


_TRAFFIC = (
    _PerServicePort(
        "uproxy_flows_total",
        "TCP connections accepted and UDP flows begun.",
        lambda counters: counters.flows,
    ),
    _PerServicePort(
        "uproxy_client_bytes_total",
        "Bytes received from clients and given to backends.",
        lambda counters: counters.client_bytes,
    ),
    _PerServicePort(
        "uproxy_backend_bytes_total",
        "Bytes received from backends and given to clients.",
        lambda counters: counters.backend_bytes,
    ),
    _PerServicePort(
        "uproxy_client_datagrams_total",
        "UDP datagrams received from clients and given to backends.",
        lambda counters: counters.client_datagrams,
        _DATAGRAMS,
    ),
    _PerServicePort(
        "uproxy_backend_datagrams_total",
        "UDP datagrams received from backends and given to clients.",
        lambda counters: counters.backend_datagrams,
        _DATAGRAMS,
    ),
    _PerServicePort(
        "uproxy_dial_failures_total",
        "Failed attempts to reach a backend.",
        lambda counters: counters.dial_failures,
    ),
    _PerServicePort(
        "uproxy_dial_retries_total",
        "Attempts to reach another backend after one had failed.",
        lambda counters: counters.retries,
    ),
    _PerServicePort(
        "uproxy_masqueraded_flows_total",
        "Flows whose backend saw this node's address, though the Service asks for the client's.",
        lambda counters: counters.masqueraded,
    ),
)


def _traffic(counters: Mapping[ServicePortName, Counters]) -> Iterator[Metric]:
    """By ServicePortName. Its labels are one dict in all samples, which saves half the time."""
    labelled = [(_labels(name), name.protocol, counts) for name, counts in sorted(counters.items())]
    for metric in _TRAFFIC:
        family = Metric(metric.name.removesuffix("_total"), metric.help, "counter")
        family.samples = [
            Sample(metric.name, labels, metric.value(counts))
            for labels, protocol, counts in labelled
            if protocol in metric.protocols
        ]
        yield family
    active = Metric("uproxy_active_flows", "TCP and UDP flows that are active now.", "gauge")
    active.samples = [Sample(active.name, labels, counts.active) for labels, _, counts in labelled]
    yield active
    dropped = Metric("uproxy_dropped", "Flows and datagrams not served, by reason.", "counter")
    dropped.samples = [
        Sample("uproxy_dropped_total", labels | {"reason": reason}, number)
        for labels, _, counts in labelled
        for reason, number in sorted(counts.dropped.items())
    ]
    yield dropped


def _labels(name: ServicePortName) -> dict[str, str]:
    return {
        "namespace": printable(name.namespace),
        "service": printable(name.name),
        "port": printable(name.port),
        "protocol": name.protocol,
    }


def _masqueraded(status: Status) -> Metric:
    ports = Counter(why for _, why in {(each.owner, each.masquerade) for each in status.frontends})
    family = GaugeMetricFamily(
        "uproxy_masqueraded_service_ports",
        "Service ports that show this node's address to backends, though the client's is asked "
        "for, by reason.",
        labels=["reason"],
    )
    for why in Masquerade:
        family.add_metric([why.value], ports[why])
    return family


def _program(status: Status, version: str) -> Iterator[Metric]:
    states = Counter(frontend.state for frontend in status.frontends)
    frontends = GaugeMetricFamily(
        "uproxy_frontends",
        "Frontends (protocol, address and port) by state.",
        labels=["state"],
    )
    for state in FrontendState:
        frontends.add_metric([state.value], states[state])
    yield frontends
    yield _masqueraded(status)
    yield CounterMetricFamily(
        "uproxy_worker_restarts_total",
        "Worker processes that ended unexpectedly and were replaced.",
        value=sum(worker.restarts for worker in status.workers),
    )
    flows = GaugeMetricFamily(
        "uproxy_worker_active_flows",
        "Flows that a worker process is serving now.",
        labels=["worker"],
    )
    for worker in status.workers:
        flows.add_metric([str(worker.index)], worker.active_flows)
    yield flows
    yield from _used_by_workers(status.workers)
    build = GaugeMetricFamily(
        "uproxy_build_info", "Always 1; the version is the label.", labels=["version"]
    )
    build.add_metric([version], 1)
    yield build


def _used_by_workers(workers: Iterable[WorkerStatus]) -> Iterator[Metric]:
    """The metrics process_* are of the control process, which moves no bytes."""
    cpu = CounterMetricFamily(
        "uproxy_worker_cpu_seconds_total",
        "User and system CPU time that a worker process has used.",
        labels=["worker"],
    )
    memory = GaugeMetricFamily(
        "uproxy_worker_resident_memory_bytes",
        "Resident memory of a worker process.",
        labels=["worker"],
    )
    for worker in workers:
        used = process_usage(worker.pid)
        if used is not None:
            cpu.add_metric([str(worker.index)], used.cpu_seconds)
            memory.add_metric([str(worker.index)], used.resident_bytes)
    yield from (cpu, memory)
