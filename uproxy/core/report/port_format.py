"""Service ports and their backends as /api/v1/routes shows them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import msgspec

from uproxy.core.flows.backend_counts import CONNECT_BUCKETS
from uproxy.core.flows.counters import Counters
from uproxy.core.report.backends import BackendStatus, Moment, PortStatus
from uproxy.core.timestamps import time_text


class _View(msgspec.Struct, rename="camel", gc=False):
    """Options shared by all parts."""


class CountsView(_View):
    """Counts of the Service port; its frontends share them."""

    flows: int
    active_flows: int
    client_bytes: int
    backend_bytes: int
    client_datagrams: int
    backend_datagrams: int
    dial_failures: int
    retries: int
    masqueraded: int
    dropped: dict[str, int]


class BackendView(_View):
    """One backend of a Service port."""

    address: str
    """ADDRESS:PORT."""
    pod: str
    node: str
    zone: str
    state: str
    """A BackendState."""
    reason: str
    aside_until: str | None
    """When it gets new flows again from all workers, in UTC; null: it is not set aside."""
    aside_workers: int
    """How many workers have set it aside."""
    flows: int
    active_flows: int
    client_bytes: int
    backend_bytes: int
    retries: int
    """Attempts here after another backend had failed the same flow."""
    ejections: int
    """How often a worker has set it aside."""
    failures: dict[str, int]
    """Attempts that failed, by the name of the errno."""
    last_error: str
    """The name of the errno of the last one; "": there was none."""
    last_error_at: str | None
    """In UTC."""
    connect_times: list[int]
    """TCP: attempts that have succeeded, by the `connectBuckets` of the answer; the last number is
    of those above. Empty: there was none."""
    connect_seconds: float
    """The sum of these times."""
    connect_p50: float | None
    """Seconds within which half of them have succeeded, estimated from the buckets."""
    connect_p99: float | None


class PortView(_View):
    """One port of a Service."""

    service: str
    service_port: str
    """Its name; "" for the only port, which needs none."""
    protocol: str
    port: int
    """spec.ports[].port."""
    counts: CountsView
    backends: list[BackendView]


def port_view(status: PortStatus, counters: Counters | None, at: Moment) -> PortView:
    name = status.name
    return PortView(
        service=f"{name.namespace}/{name.name}",
        service_port=name.port,
        protocol=name.protocol,
        port=status.number,
        counts=counts_view(counters or Counters()),
        backends=[_backend(each, at) for each in status.backends],
    )


def counts_view(counters: Counters) -> CountsView:
    return CountsView(
        flows=counters.flows,
        active_flows=counters.active,
        client_bytes=counters.client_bytes,
        backend_bytes=counters.backend_bytes,
        client_datagrams=counters.client_datagrams,
        backend_datagrams=counters.backend_datagrams,
        dial_failures=counters.dial_failures,
        retries=counters.retries,
        masqueraded=counters.masqueraded,
        dropped=dict(sorted(counters.dropped.items())),
    )


def quantile(times: Sequence[int], fraction: float) -> float | None:
    """Seconds within which a fraction of attempts has succeeded. Like Prometheus'
    histogram_quantile, it takes the times in a bucket for evenly spread, and those above all
    buckets for equal to the last bound. None: there are none."""
    total = sum(times)
    if not total:
        return None
    rank = fraction * total
    bounds: tuple[float, ...] = (0.0, *CONNECT_BUCKETS)
    for (low, high), below, number in zip(
        pairwise(bounds), accumulate(times, initial=0), times, strict=False
    ):
        if number and below + number >= rank:
            return low + (high - low) * (rank - below) / number
    return bounds[-1]


def _backend(each: BackendStatus, at: Moment) -> BackendView:
    counts, exclusion = each.counts, each.exclusion
    return BackendView(
        address=str(each.backend),
        pod=each.pod,
        node=each.node,
        zone=each.zone,
        state=each.state,
        reason=each.reason,
        aside_until=time_text(exclusion.until - at.monotonic + at.wall) if exclusion else None,
        aside_workers=exclusion.workers if exclusion else 0,
        flows=counts.flows,
        active_flows=counts.active,
        client_bytes=counts.client_bytes,
        backend_bytes=counts.backend_bytes,
        retries=counts.retries,
        ejections=counts.ejections,
        failures=dict(sorted(counts.failures.items())),
        last_error=counts.last_error,
        last_error_at=time_text(counts.last_error_at) if counts.last_error else None,
        connect_times=counts.connect_times,
        connect_seconds=counts.connect_seconds,
        connect_p50=quantile(counts.connect_times, 0.5),
        connect_p99=quantile(counts.connect_times, 0.99),
    )
