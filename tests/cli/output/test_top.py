"""What `uproxy top` prints from two samples of the counts."""

from __future__ import annotations

import pytest

from tests.cli.views import counts, frontend
from uproxy.cli.output.top import (
    PortName,
    Rate,
    Sample,
    rates,
    rates_document,
    sample,
    table,
    total,
)

A = PortName("default/a", "http", "TCP")
B = PortName("default/b", "", "UDP")


def rate(name: PortName, **parts: float) -> Rate:
    zero = Rate(name, 0, 0, 0, 0, 0, 0)
    return zero._replace(**parts)  # type: ignore[arg-type]


def test_frontends_of_one_port_are_counted_once() -> None:
    seen = sample(
        7.0,
        [
            frontend("default/a", counts=counts(flows=3)),
            frontend("default/a", counts=counts(flows=3), kind="ClusterIP"),
            frontend("default/b", service_port="", protocol="UDP"),
        ],
    )
    assert seen == Sample(7.0, {A: counts(flows=3), B: counts()})
    assert list(map(str, seen.counts)) == ["default/a:http/TCP", "default/b/UDP"]


def test_rates_are_per_second() -> None:
    before = Sample(10.0, {A: counts(flows=100, client_bytes=1000, dropped={"idle": 1})})
    now = counts(
        flows=150,
        active_flows=7,
        client_bytes=3000,
        backend_bytes=8000,
        retries=1,
        dropped={"idle": 2, "capacity": 4},
    )
    assert rates(before, Sample(12.0, {A: now}), sort="flows") == [
        Rate(A, 25, 7, 1000, 4000, 0.5, 2.5)
    ]


@pytest.mark.parametrize(
    ("before", "flows"),
    [
        pytest.param({}, 5, id="a port that is new has begun at zero"),
        pytest.param({A: counts(flows=100)}, 0, id="a restart is no rate below zero"),
        pytest.param({A: counts(flows=5)}, 0, id="nothing has happened"),
    ],
)
def test_rates_of_a_port_that_is_new(before: dict[PortName, object], flows: float) -> None:
    after = Sample(1.0, {A: counts(flows=5)})
    (found,) = rates(Sample(0.0, before), after, sort="flows")  # type: ignore[arg-type]
    assert found.flows == flows


def test_two_samples_of_one_moment_are_not_divided_by_zero() -> None:
    now = sample(1.0, [frontend("default/a", counts=counts(flows=5))])
    assert rates(now, now, sort="flows") == [rate(A)]


@pytest.mark.parametrize(
    ("sort", "first"),
    [
        ("flows", "default/a"),
        ("active", "default/b"),
        ("bytes", "default/c"),
        ("retries", "default/d"),
        ("drops", "default/e"),
    ],
)
def test_the_busiest_comes_first(sort: str, first: str) -> None:
    busiest = {
        "a": counts(flows=9),
        "b": counts(active_flows=9),
        "c": counts(client_bytes=5, backend_bytes=5),
        "d": counts(retries=9),
        "e": counts(dropped={"idle": 9}),
    }
    after = sample(1.0, [frontend(f"default/{name}", counts=all) for name, all in busiest.items()])
    before = Sample(0.0, {})
    assert rates(before, after, sort=sort)[0].name == PortName(first, "http", "TCP")


def test_among_equals_the_name_decides() -> None:
    names = ["default/b", "default/a", "default/c"]
    now = sample(1.0, [frontend(name) for name in names])
    assert [each.name.service for each in rates(now, now, sort="flows")] == sorted(names)


def test_total() -> None:
    all_ports = PortName("all", "", "")
    assert total([rate(A, flows=1, active=2), rate(B, flows=3, drops=0.5)]) == rate(
        all_ports, flows=4, active=2, drops=0.5
    )
    assert total([]) == rate(all_ports)


def test_for_scripts() -> None:
    before = Sample(10.0, {A: counts(), B: counts()})
    after = Sample(11.5, {A: counts(flows=1, active_flows=1), B: counts(client_bytes=3)})
    idle = {
        "flowsPerSecond": 0,
        "activeFlows": 0,
        "clientBytesPerSecond": 0,
        "backendBytesPerSecond": 0,
        "retriesPerSecond": 0,
        "dropsPerSecond": 0,
    }
    busy = idle | {"flowsPerSecond": 0.667, "activeFlows": 1}
    assert rates_document(before, after, sort="flows") == {
        "seconds": 1.5,
        "total": busy | {"clientBytesPerSecond": 2},
        "servicePorts": [
            {"service": "default/a", "port": "http", "protocol": "TCP"} | busy,
            {"service": "default/b", "port": "", "protocol": "UDP"}
            | idle
            | {"clientBytesPerSecond": 2},
        ],
    }


def test_table() -> None:
    found = [Rate(A, 1234.5, 7, 1_500_000, 25e6, 0.5, 0)]
    assert list(table(found)) == [
        "SERVICE PORT        FLOWS/s  ACTIVE    IN/s  OUT/s  RETRY/s  DROP/s",
        "all                    1.2k       7  1.5 MB  25 MB      0.5       0",
        "default/a:http/TCP     1.2k       7  1.5 MB  25 MB      0.5       0",
    ]


def test_long_names_lose_their_middle() -> None:
    service = "monitoring/kube-prometheus-stack-prometheus-node-exporter"
    name = PortName(service, "http-metrics", "TCP")
    lines = list(table([Rate(name, 1234, 7, 1_500_000, 25e6, 1, 0)], width=80))
    assert max(map(len, lines)) <= 80
    assert lines[2].startswith("monitoring/kube")
    assert "metrics/TCP " in lines[2]
    assert list(table([Rate(name, 0, 0, 0, 0, 0, 0)]))[2].startswith(f"{name} ")
