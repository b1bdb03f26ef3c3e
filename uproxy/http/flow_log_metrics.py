"""The metrics uproxy_flow_log_*, where there is a flow log."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, Metric

from uproxy.core.report.flow_log import FlowLogCounts


def flow_log_metrics(counts: FlowLogCounts) -> Iterator[Metric]:
    """All of them."""
    yield CounterMetricFamily(
        "uproxy_flow_log_lines_total",
        "Lines written to the flow log.",
        value=counts.written,
    )
    dropped = CounterMetricFamily(
        "uproxy_flow_log_dropped_lines_total",
        "Lines that are missing in the flow log, by reason.",
        labels=["reason"],
    )
    for reason, number in counts.dropped.items():
        dropped.add_metric([reason.value], number)
    yield dropped
