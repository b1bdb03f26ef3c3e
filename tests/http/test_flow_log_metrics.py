"""What is counted of the flow log, where there is one."""

from __future__ import annotations

import msgspec

from tests.http.statuses import EMPTY
from uproxy.core.report.flow_log import FlowLogCounts, Missing
from uproxy.core.report.telemetry import Telemetry
from uproxy.http.metrics import samples


def found(counts: FlowLogCounts | None) -> dict[str, float]:
    status = msgspec.structs.replace(EMPTY, flow_log=counts)
    return {
        sample.name + str(sample.labels.get("reason", "")): sample.value
        for family in samples(Telemetry(), status, version="1")
        for sample in family.samples
        if sample.name.startswith("uproxy_flow_log")
    }


def test_without_a_log_there_is_no_metric() -> None:
    assert found(None) == {}


def test_lines_and_reasons() -> None:
    counts = FlowLogCounts(written=5)
    counts.dropped[Missing.WRITE_FAILED] += 2
    assert found(counts) == {
        "uproxy_flow_log_lines_total": 5,
        "uproxy_flow_log_dropped_lines_totaltoo_many": 0,
        "uproxy_flow_log_dropped_lines_totalqueue_full": 0,
        "uproxy_flow_log_dropped_lines_totalwrite_failed": 2,
    }
