"""Counters and histograms of the control loop."""

from __future__ import annotations

import pytest

from uproxy.core.report.telemetry import (
    PROGRAMMING_BUCKETS,
    SYNC_BUCKETS,
    Histogram,
    RequestTelemetry,
    Telemetry,
)


def test_sync_buckets_are_kube_proxys() -> None:
    first = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512)
    assert (*first, 1.024, 2.048, 4.096, 8.192, 16.384) == SYNC_BUCKETS


def test_programming_buckets_are_kube_proxys() -> None:
    assert PROGRAMMING_BUCKETS[:4] == (0.0, 0.25, 0.5, 1.0)
    assert PROGRAMMING_BUCKETS[61:64] == (59.0, 60.0, 65.0)
    assert PROGRAMMING_BUCKETS[73:] == (115.0, 120.0, 150.0, 180.0, 210.0, 240.0, 270.0, 300.0)
    assert list(PROGRAMMING_BUCKETS) == sorted(set(PROGRAMMING_BUCKETS))


@pytest.mark.parametrize(
    ("values", "cumulative"),
    [
        pytest.param([], [0, 0, 0], id="nothing"),
        pytest.param([0.5], [1, 1, 1], id="in the first"),
        pytest.param([1.0], [1, 1, 1], id="on a bound: inclusive"),
        pytest.param([1.5], [0, 1, 1], id="in the second"),
        pytest.param([9.0], [0, 0, 1], id="above all bounds"),
        pytest.param([-1.0], [1, 1, 1], id="negative"),
        pytest.param([0.5, 1.5, 1.6, 9.0], [1, 3, 4], id="several"),
    ],
)
def test_histogram(values: list[float], cumulative: list[int]) -> None:
    histogram = Histogram((1.0, 2.0))
    for value in values:
        histogram.observe(value)
    assert histogram.cumulative() == cumulative
    assert histogram.sum == sum(values)


def test_changes_are_pending_until_a_sync_takes_them() -> None:
    telemetry = Telemetry()
    telemetry.service_changed()
    telemetry.endpoints_changed()
    telemetry.endpoints_changed()
    assert (telemetry.service_changes_pending, telemetry.endpoint_changes_pending) == (1, 2)
    telemetry.changes_taken()
    telemetry.service_changed()
    assert (telemetry.service_changes_pending, telemetry.endpoint_changes_pending) == (1, 0)
    assert (telemetry.service_changes, telemetry.endpoint_changes) == (2, 2)


def test_syncs_are_counted_by_family_and_extent() -> None:
    telemetry = Telemetry()
    telemetry.sync_queued("IPv4", 1000.0)
    telemetry.sync_done("IPv4", 0.5, 1001.0, full=True)
    telemetry.sync_done("IPv4", 0.25, 1002.0, full=False)
    telemetry.sync_done("IPv6", 0.125, 1003.0, full=False)
    four, six = telemetry.families["IPv4"], telemetry.families["IPv6"]
    assert (four.syncs.sum, four.full_syncs.sum, four.partial_syncs.sum) == (0.75, 0.5, 0.25)
    assert (four.last_queued, four.last_synced) == (1000.0, 1002.0)
    assert (six.syncs.sum, six.full_syncs.cumulative()[-1], six.last_queued) == (0.125, 0, 0.0)


def test_the_rest_is_counted_where_it_belongs() -> None:
    telemetry = Telemetry()
    telemetry.network_programmed(3.0, "IPv6")
    telemetry.without_local_endpoints("IPv4", internal=2, external=1)
    telemetry.probe_answered("healthz", 503)
    telemetry.probe_answered("healthz", 503)
    telemetry.probe_answered("livez", 200)
    assert telemetry.families["IPv6"].programming.sum == 3.0
    assert telemetry.families["IPv4"].no_local_endpoints == {"internal": 2, "external": 1}
    assert telemetry.families["IPv6"].no_local_endpoints == {"internal": 0, "external": 0}
    assert telemetry.probes == {("healthz", 503): 2, ("livez", 200): 1}


def test_api_servers_that_come_and_go_leave_nothing_behind() -> None:
    """Each of their addresses is a label of the metrics."""
    requests = RequestTelemetry()
    for number in range(1000):
        host = f"10.0.{number // 250}.{number % 250}:6443"
        requests.answered("GET", host, 200, 0.1)
        requests.failed("GET", host)
        requests.answered("GET", "10.1.0.1:6443", 200, 0.1)
    assert requests.answers["200", "GET", "10.1.0.1:6443"] == 1000, "one that stays is counted on"
    assert len(requests.answers) == 1 + 63 * 2
    assert {host for _, host in requests.durations} == {host for _, _, host in requests.answers}
