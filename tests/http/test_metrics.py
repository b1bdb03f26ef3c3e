"""The samples of /metrics."""

from __future__ import annotations

import os
from collections.abc import Iterable

import msgspec
import pytest
from prometheus_client.core import Metric

from tests.http.statuses import DNS_PORT, EMPTY, FULL
from uproxy.core.report.status import Status, WorkerStatus
from uproxy.core.report.telemetry import Telemetry
from uproxy.core.route import ServicePortName
from uproxy.http.metrics import samples

Labels = frozenset[tuple[str, str]]
Values = dict[tuple[str, Labels], float]

KUBIA = {"namespace": "default", "service": "kubia", "port": "http", "protocol": "TCP"}
DNS = {"namespace": "kube-system", "service": "dns", "port": "", "protocol": "UDP"}


def telemetry() -> Telemetry:
    made = Telemetry()
    made.service_changed()
    made.endpoints_changed()
    made.changes_taken()
    made.endpoints_changed()
    made.sync_queued("IPv4", 1000.0)
    made.sync_done("IPv4", 0.003, 1001.0, full=True)
    made.sync_done("IPv4", 0.5, 1002.5, full=False)
    made.network_programmed(1.5, "IPv4")
    made.without_local_endpoints("IPv4", internal=2, external=1)
    made.probe_answered("healthz", 200)
    made.probe_answered("livez", 503)
    made.requests.answered("GET", "192.0.2.1:6443", 200, 0.2)
    made.requests.answered("GET", "192.0.2.1:6443", 410, 0.003)
    made.requests.failed("GET", "192.0.2.1:6443")
    return made


def taken(status: Status, counts: Telemetry) -> Values:
    return flat(samples(counts, status, version="1.2.3"))


def flat(metrics: Iterable[Metric]) -> Values:
    found: Values = {}
    for metric in metrics:
        for sample in metric.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, f"{key} twice"
            found[key] = sample.value
    return found


def value(values: Values, name: str, **labels: str) -> float | None:
    return values.get((name, frozenset(labels.items())))


RULES = "kubeproxy_sync_proxy_rules"
V4 = {"ip_family": "IPv4"}
HOST = {"host": "192.0.2.1:6443"}


@pytest.mark.parametrize(
    ("name", "labels", "expected"),
    [
        (f"{RULES}_duration_seconds_count", V4, 2),
        (f"{RULES}_duration_seconds_sum", V4, 0.503),
        (f"{RULES}_duration_seconds_bucket", V4 | {"le": "0.002"}, 0),
        (f"{RULES}_duration_seconds_bucket", V4 | {"le": "0.004"}, 1),
        (f"{RULES}_duration_seconds_bucket", V4 | {"le": "16.384"}, 2),
        (f"{RULES}_duration_seconds_bucket", V4 | {"le": "+Inf"}, 2),
        ("kubeproxy_sync_full_proxy_rules_duration_seconds_sum", V4, 0.003),
        ("kubeproxy_sync_partial_proxy_rules_duration_seconds_sum", V4, 0.5),
        (f"{RULES}_last_timestamp_seconds", V4, 1002.5),
        (f"{RULES}_last_queued_timestamp_seconds", V4, 1000.0),
        ("kubeproxy_network_programming_duration_seconds_bucket", V4 | {"le": "1.0"}, 0),
        ("kubeproxy_network_programming_duration_seconds_bucket", V4 | {"le": "2.0"}, 1),
        (f"{RULES}_endpoint_changes_pending", {}, 1),
        (f"{RULES}_endpoint_changes_total", {}, 2),
        (f"{RULES}_service_changes_pending", {}, 0),
        (f"{RULES}_service_changes_total", {}, 1),
        (f"{RULES}_no_local_endpoints_total", V4 | {"traffic_policy": "internal"}, 2),
        (f"{RULES}_no_local_endpoints_total", V4 | {"traffic_policy": "external"}, 1),
        ("kubeproxy_proxy_healthz_total", {"code": "200"}, 1),
        ("kubeproxy_proxy_livez_total", {"code": "503"}, 1),
        ("rest_client_requests_total", {"code": "200", "method": "GET", **HOST}, 1),
        ("rest_client_requests_total", {"code": "<error>", "method": "GET", **HOST}, 1),
        ("rest_client_request_duration_seconds_count", {"verb": "GET", **HOST}, 2),
        ("rest_client_request_duration_seconds_sum", {"verb": "GET", **HOST}, 0.203),
        (
            "rest_client_request_duration_seconds_bucket",
            {"verb": "GET", "le": "0.1", **HOST},
            1,
        ),
        ("uproxy_flows_total", KUBIA, 7),
        ("uproxy_active_flows", KUBIA, 2),
        ("uproxy_client_bytes_total", KUBIA, 100),
        ("uproxy_backend_bytes_total", KUBIA, 2000),
        ("uproxy_dial_failures_total", KUBIA, 3),
        ("uproxy_dial_retries_total", KUBIA, 1),
        ("uproxy_masqueraded_flows_total", KUBIA, 6),
        ("uproxy_dropped_total", KUBIA | {"reason": "no_backend"}, 4),
        ("uproxy_dropped_total", KUBIA | {"reason": "dial_failed"}, 1),
        ("uproxy_client_datagrams_total", DNS, 11),
        ("uproxy_backend_datagrams_total", DNS, 12),
        ("uproxy_flows_total", DNS, 1),
        ("uproxy_frontends", {"state": "serving"}, 1),
        ("uproxy_frontends", {"state": "failed"}, 1),
        ("uproxy_frontends", {"state": "conflict"}, 0),
        ("uproxy_masqueraded_service_ports", {"reason": "astray"}, 1),
        ("uproxy_masqueraded_service_ports", {"reason": "impossible"}, 0),
        ("uproxy_worker_restarts_total", {}, 3),
        ("uproxy_worker_active_flows", {"worker": "0"}, 4),
        ("uproxy_worker_active_flows", {"worker": "1"}, 5),
        ("uproxy_worker_max_flows", {"worker": "0"}, 501),
        ("uproxy_worker_max_flows", {"worker": "1"}, 500),
        ("uproxy_build_info", {"version": "1.2.3"}, 1),
        ("uproxy_ready", {}, 0),
        ("uproxy_healthy", {}, 1),
        ("uproxy_problems", {"kind": "frontend not open"}, 1),
        ("uproxy_problems", {"kind": "last-known state served"}, 2),
        ("uproxy_problems", {"kind": "changes not applied"}, 0),
        ("uproxy_unusable_objects", {}, 2),
    ],
)
def test_values(name: str, labels: dict[str, str], expected: float) -> None:
    assert value(taken(FULL, telemetry()), name, **labels) == expected


def test_datagrams_are_for_udp_only() -> None:
    values = taken(FULL, telemetry())
    assert value(values, "uproxy_client_datagrams_total", **KUBIA) is None


def test_nothing_has_happened_yet() -> None:
    values = taken(EMPTY, Telemetry())
    assert value(values, f"{RULES}_service_changes_total") == 0
    assert value(values, "uproxy_worker_restarts_total") == 0
    assert value(values, "uproxy_frontends", state="serving") == 0
    assert not [name for name, labels in values if dict(labels).get("ip_family")]


def test_what_a_worker_uses() -> None:
    worker = WorkerStatus(index=3, pid=os.getpid(), restarts=0, active_flows=0, most_flows=9)
    values = taken(msgspec.structs.replace(EMPTY, workers=(worker,)), Telemetry())
    assert value(values, "uproxy_worker_max_flows", worker="3") == 9
    cpu = value(values, "uproxy_worker_cpu_seconds_total", worker="3")
    memory = value(values, "uproxy_worker_resident_memory_bytes", worker="3")
    assert cpu
    assert memory


def test_every_metric_is_explained_and_named_once() -> None:
    metrics = samples(telemetry(), FULL, version="1.2.3")
    names = [metric.name for metric in metrics]
    assert sorted(set(names)) == sorted(names)
    assert all(metric.documentation.endswith(".") for metric in metrics)
    assert all(name.startswith(("kubeproxy_", "rest_client_", "uproxy_")) for name in names)


def test_the_same_name_in_two_protocols_is_two_series() -> None:
    tcp = ServicePortName("kube-system", "dns", "", "TCP")
    counters = {**FULL.counters, tcp: FULL.counters[DNS_PORT.owner]}
    values = taken(msgspec.structs.replace(FULL, counters=counters), telemetry())
    assert value(values, "uproxy_flows_total", **DNS | {"protocol": "TCP"}) == 1
    assert value(values, "uproxy_flows_total", **DNS) == 1
