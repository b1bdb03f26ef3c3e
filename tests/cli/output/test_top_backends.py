"""What `uproxy top --backends` prints from two samples of the counts."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cli.views import backend, port
from uproxy.cli.live.listing import Order
from uproxy.cli.live.top_backends_page import TopBackendsContent
from uproxy.cli.output.top import PortName
from uproxy.cli.output.top_backends import (
    BackendName,
    BackendSample,
    backend_rates,
    backend_sample,
    backends_table,
)

WEB = PortName("default/web", "http", "TCP")
A = BackendName(WEB, "10.0.0.1:80", "web-1")
B = BackendName(WEB, "10.0.0.2:80", "")


def sample(time: float, a: dict[str, Any], b: dict[str, Any]) -> BackendSample:
    view = port(backend(A.address, pod=A.pod, **a), backend(B.address, **b))
    return backend_sample(time, [view])


BEFORE = sample(10.0, {"flows": 5, "connect_times": [5, *[0] * 13]}, {"failures": {"EIO": 1}})
NOW = sample(
    12.0,
    {
        "flows": 25,
        "active_flows": 3,
        "client_bytes": 2000,
        "backend_bytes": 4000,
        "retries": 1,
        "connect_times": [5, 20, *[0] * 12],
    },
    {"failures": {"EIO": 5, "ETIMEDOUT": 2}, "state": "set aside"},
)


def test_rates_are_per_second_and_connect_times_those_of_the_interval() -> None:
    first, second = backend_rates(BEFORE, NOW, sort="flows")
    assert (first.name, second.name) == (A, B)
    assert first[2:8] == (10, 3, 1000, 2000, 0.5, 0)
    assert first.connect == pytest.approx(0.0015)
    assert second[2:] == (0, 0, 0, 0, 0, 3.0, None)


@pytest.mark.parametrize(
    ("sort", "first"),
    [("flows", A), ("active", A), ("bytes", A), ("retries", A), ("failures", B)],
)
def test_order(sort: str, first: BackendName) -> None:
    assert backend_rates(BEFORE, NOW, sort=sort)[0].name == first


def test_a_backend_that_is_new_has_begun_at_zero_and_a_restart_is_no_rate_below_zero() -> None:
    empty = BackendSample(10.0, {})
    assert backend_rates(empty, NOW, sort="flows")[0].flows == 12.5
    restarted = backend_rates(NOW._replace(time=10.0), BEFORE._replace(time=12.0), sort="flows")
    assert {each.flows for each in restarted} == {0}


def test_table() -> None:
    assert list(backends_table(backend_rates(BEFORE, NOW, sort="flows"))) == [
        "POD          STATE      FLOWS/s  ACTIVE    IN/s   OUT/s  FAIL/s  CONNECT  SERVICE PORT",
        "web-1        used            10       3  1.0 kB  2.0 kB       0   1.5 ms"
        "  default/web:http/TCP",
        "10.0.0.2:80  set aside        0       0     0 B     0 B       3        -"
        "  default/web:http/TCP",
    ]


@pytest.mark.parametrize("width", [80, 100, 120])
def test_names_lose_their_middle_if_there_is_no_room(width: int) -> None:
    long = port(
        backend(A.address, pod="checkout-frontend-deployment-6d4cf56db6-x7k2p"),
        service="a-team-with-a-long-name/checkout-frontend-service",
    )
    now = backend_sample(1.0, [long])
    lines = list(backends_table(backend_rates(now, now, sort="flows"), width=width))
    assert max(map(len, lines)) <= width
    assert lines[1].startswith("check")
    assert lines[1].split()[0].endswith("x7k2p")


def test_no_backends() -> None:
    assert len(list(backends_table([], width=80))) == 1


def test_a_live_listing_is_filtered_and_reversed_and_explains_the_service() -> None:
    content = TopBackendsContent(BEFORE, NOW)
    listing = content.listing(Order("flows", reverse=True), 120)
    assert [row.key for row in listing.rows] == [str(B), str(A)]
    assert {row.service for row in listing.rows} == {"default/web"}
    listing = content.listing(Order("flows", filter="set ASIDE"), None)
    assert [row.key for row in listing.rows] == [str(B)]


def test_document() -> None:
    document = TopBackendsContent(BEFORE, NOW).document("failures")
    assert document["seconds"] == 2.0
    backends: Any = document["backends"]
    assert [each["pod"] for each in backends] == ["", "web-1"]
    assert backends[0] == {
        "service": "default/web",
        "port": "http",
        "protocol": "TCP",
        "address": "10.0.0.2:80",
        "pod": "",
        "node": "",
        "zone": "",
        "state": "set aside",
        "flowsPerSecond": 0,
        "activeFlows": 0,
        "clientBytesPerSecond": 0,
        "backendBytesPerSecond": 0,
        "retriesPerSecond": 0,
        "failuresPerSecond": 3.0,
        "connectSeconds": None,
    }
