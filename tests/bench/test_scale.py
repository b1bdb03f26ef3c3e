"""The scale benchmark: what it sets up, and how it judges."""

from __future__ import annotations

import json
import resource

import pytest

from bench.scale.measure import Result, Setup, fitting
from bench.scale.objects import cluster_ip, service, service_name, slice_of
from bench.scale.report import document, rows, table
from uproxy.core.cluster.decode import from_data
from uproxy.core.cluster.objects import EndpointSlice, Service


@pytest.fixture(autouse=True)
def descriptors(request: pytest.FixtureRequest) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 10_000:
        pytest.skip("too few descriptors for any of this")


def test_objects_can_be_decoded_and_differ() -> None:
    assert len({cluster_ip(number) for number in range(10_000)}) == 10_000
    web = from_data(service(service_name(7), cluster_ip(7), 2), Service)
    assert isinstance(web, Service)
    assert len(web.ports) == 2
    slices = [from_data(slice_of(7, 2, generation=each), EndpointSlice) for each in range(3)]
    for each in slices:
        assert isinstance(each, EndpointSlice)
        assert each.service == web.key
        assert len(each.endpoints or ()) == 10
    assert len({str(each) for each in slices}) == 3


def test_small_setups_fit() -> None:
    setup, note = fitting(100, 2, 2)
    assert (setup.ports, setup.workers, note) == (2, 2, "")


def test_what_does_not_fit_is_cut_and_told() -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    setup, note = fitting(limit // 2, 2, 2)
    assert (setup.ports, setup.workers) == (1, 1)
    assert note == (
        f"{limit // 2} Services: 1 of 2 ports and 1 of 2 workers, "
        f"as this machine allows {limit} descriptors"
    )


def test_results_beside_targets() -> None:
    result = Result(
        setup=Setup(services=2000, ports=2, workers=2, changes=100.0),
        ready=2.5,
        stall=0.060,
        control=90.0,
        workers=[40.0, 55.0],
        moves=[0.010] * 98 + [0.090, 0.200],
    )
    found = {row.what: row for row in rows([result])}
    assert found["start to /readyz green, 2,000 Services"].met is True
    assert found["longest wait for /livez at start, 2,000 Services"].met is False
    assert found["memory of each worker, 2,000 Services"].value == 55.0
    assert found["change to new backend, p99, 100 changes/s, 2,000 Services"].value == 200.0
    assert found["change to new backend, p50, 100 changes/s, 2,000 Services"].met is None
    text = table(list(found.values()))
    assert "MISSED" in text
    content = json.loads(document([result], ["a note"]))
    assert content["notes"] == ["a note"]
    assert len(content["rows"]) == len(found)
