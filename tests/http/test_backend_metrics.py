"""The metrics of each backend, as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from tests.http.statuses import DNS, KUBIA
from tests.nasty import NASTY, is_fit_to_print
from uproxy.core.flows.backend_counts import BackendCounts
from uproxy.core.report.backends import CountedBackend, CountedBackends
from uproxy.core.route import Backend
from uproxy.http.backend_metrics import backend_metrics

A = CountedBackend(
    port=KUBIA,
    backend=Backend("fd00::1", 8080),
    pod="kubia-1",
    node="n1",
    zone="z1",
    aside_workers=2,
    counts=BackendCounts(
        flows=7,
        active=2,
        client_bytes=10,
        backend_bytes=20,
        retries=1,
        failures={"ETIMEDOUT": 1, "ECONNREFUSED": 48},
        connect_times=[5, 1, *[0] * 11, 1],
        connect_seconds=4.5,
        ejections=3,
    ),
)
B = CountedBackend(DNS, Backend("10.0.0.2", 53), "", "", "", 0, BackendCounts(flows=1))
PREFIX = "uproxy_per_backend_"


class _Families(Collector):
    def __init__(self, backends: CountedBackends) -> None:
        self._backends = backends

    def collect(self) -> Iterator[Metric]:
        return backend_metrics(self._backends)


def scraped(backends: CountedBackends) -> list[Sample]:
    """All samples, through the text format."""
    text = generate_latest(_Families(backends)).decode()
    assert is_fit_to_print(text.replace("\n", ""))
    return [each for family in parse_text(text) for each in family.samples]


def test_without_backends() -> None:
    assert [each[:3] for each in scraped(CountedBackends([]))] == [(f"{PREFIX}left_out", {}, 0)]


def test_every_metric() -> None:
    found = scraped(CountedBackends([A, B], left_out=9))
    labels = {
        "namespace": "default",
        "service": "kubia",
        "port": "http",
        "protocol": "TCP",
        "backend": "[fd00::1]:8080",
        "pod": "kubia-1",
        "node": "n1",
        "zone": "z1",
    }
    ours = [each for each in found if each.labels.get("pod") == "kubia-1"]
    assert all(labels.items() <= each.labels.items() for each in ours)
    values = {
        (each.name.removeprefix(PREFIX), each.labels.get("errno") or each.labels.get("le")): (
            each.value
        )
        for each in ours
    }
    buckets = {le: value for (name, le), value in values.items() if name.endswith("_bucket")}
    assert (len(buckets), buckets["0.001"], buckets["0.002"]) == (14, 5, 6)
    assert (buckets["4.096"], buckets["+Inf"]) == (6, 7)
    assert {key: value for key, value in values.items() if not key[0].endswith("_bucket")} == {
        ("flows_total", None): 7,
        ("active_flows", None): 2,
        ("client_bytes_total", None): 10,
        ("backend_bytes_total", None): 20,
        ("dial_retries_total", None): 1,
        ("ejections_total", None): 3,
        ("set_aside_workers", None): 2,
        ("dial_failures_total", "ECONNREFUSED"): 48,
        ("dial_failures_total", "ETIMEDOUT"): 1,
        ("connect_duration_seconds_count", None): 7,
        ("connect_duration_seconds_sum", None): 4.5,
    }
    udp = {each.name for each in found if each.labels.get("service") == "dns"}
    assert f"{PREFIX}flows_total" in udp
    assert not any("connect" in name for name in udp), "UDP does not connect"
    assert [each.value for each in found if each.name == f"{PREFIX}left_out"] == [9]


def test_a_backend_has_as_many_series_as_is_said() -> None:
    """The help of --metrics-per-backend says about 25, since each errno adds one."""
    series = [each for family in backend_metrics(CountedBackends([A])) for each in family.samples]
    per_backend = [each for each in series if each.labels]
    assert len(per_backend) - len(A.counts.failures) == 23


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
def test_labels_are_escaped(text: str) -> None:
    odd = A._replace(pod=text, node=text, zone=text, port=KUBIA._replace(port=text))
    assert scraped(CountedBackends([odd]))
