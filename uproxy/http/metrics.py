"""/metrics: kube-proxy's and client-go's names where they mean the same here, and uproxy_* for the
traffic.

Samples are taken on the event loop, so that they fit together. Turning them into text takes ten
times as long (half a second for 10 000 Services), so that is done in a thread.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from typing import Final, NamedTuple

from aiohttp import hdrs, web
from prometheus_client import ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from uproxy.core import protocols
from uproxy.core.flows.counters import Counters
from uproxy.core.printable import printable
from uproxy.core.report.backends import CountedBackends
from uproxy.core.report.client_addresses import Masquerade
from uproxy.core.report.status import FrontendState, Status
from uproxy.core.report.telemetry import Telemetry
from uproxy.core.route import ServicePortName
from uproxy.http.backend_metrics import backend_metrics
from uproxy.http.compression import compress
from uproxy.http.flow_log_metrics import flow_log_metrics
from uproxy.http.health_metrics import health_metrics
from uproxy.http.load_balancer_metrics import load_balancer_metrics
from uproxy.http.telemetry_metrics import telemetry_metrics
from uproxy.http.worker_metrics import worker_metrics


def metrics_page(
    telemetry: Telemetry,
    status: Callable[[], Status],
    counted_backends: Callable[[], CountedBackends | None],
    *,
    version: str,
) -> Callable[[web.Request], Awaitable[web.Response]]:
    """What serves /metrics, in the text format that the Accept header asks for."""
    process = ProcessCollector(registry=None)

    async def metrics(request: web.Request) -> web.Response:
        families = samples(telemetry, status(), version=version)
        scrape = _Scrape(families, counted_backends(), process)
        encode, content_type = _encoder(",".join(request.headers.getall(hdrs.ACCEPT, ())))
        body = await asyncio.to_thread(encode, scrape)
        response = web.Response(body=body, headers={hdrs.CONTENT_TYPE: content_type})
        compress(request, response)
        return response

    return metrics


def _encoder(accept: str) -> tuple[Callable[[Collector], bytes], str]:
    """The encoder for the requested format; if that makes no sense, the one for plain text."""
    try:
        return choose_encoder(accept)
    except (TypeError, ValueError):
        return choose_encoder("")


class _Scrape(Collector):
    """The samples of one scrape, and those of this process. Those of backends are made while they
    are encoded: there may be 250,000."""

    def __init__(
        self, families: list[Metric], backends: CountedBackends | None, process: Collector
    ) -> None:
        """`backends`: None without --metrics-per-backend."""
        self._families = families
        self._backends = backends
        self._process = process

    def collect(self) -> Iterator[Metric]:
        yield from self._families
        if self._backends is not None:
            yield from backend_metrics(self._backends)
        yield from self._process.collect()


def samples(telemetry: Telemetry, status: Status, *, version: str) -> list[Metric]:
    """Everything but the metrics of the process and of backends."""
    return [
        *telemetry_metrics(telemetry),
        *_traffic(status.counters),
        *_program(status, version),
        *health_metrics(status),
        *worker_metrics(status),
        *(flow_log_metrics(status.flow_log) if status.flow_log is not None else ()),
        *(load_balancer_metrics(status.load_balancer) if status.load_balancer is not None else ()),
    ]


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
    build = GaugeMetricFamily(
        "uproxy_build_info", "Always 1; the version is the label.", labels=["version"]
    )
    build.add_metric([version], 1)
    yield build
