"""The samples of /metrics about addresses of load balancers."""

from __future__ import annotations

import msgspec
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from tests.http.statuses import EMPTY
from tests.http.test_metrics import Values, flat, value
from uproxy.core.cluster.objects import ObjectName
from uproxy.core.report.load_balancer import (
    AddressCounts,
    AddressStatus,
    AnnouncingCounts,
    LoadBalancerStatus,
    PoolStatus,
    ServiceAddresses,
)
from uproxy.core.report.telemetry import Telemetry
from uproxy.http.load_balancer_metrics import load_balancer_metrics
from uproxy.http.metrics import samples

NAMES = [ObjectName("default", each) for each in ("a", "b", "c", "d")]
STATUS = LoadBalancerStatus(
    announce="l2",
    allocating=True,
    pools=(
        PoolStatus(
            name="p\x1b",
            counts={
                "IPv4": AddressCounts(total=10, used=3, reserved=1, drained=2),
                "IPv6": AddressCounts(total=256),
            },
        ),
    ),
    addresses=(
        AddressStatus(address="192.0.2.1", node="here", here=True, conflict="02:00:00:00:00:01"),
        AddressStatus(address="192.0.2.2", node="here", here=True),
        AddressStatus(address="192.0.2.3", node="there"),
        AddressStatus(address="192.0.2.4", reason="no node may announce it"),
    ),
    services=(
        ServiceAddresses(service=NAMES[0], addresses=("192.0.2.1",)),
        ServiceAddresses(service=NAMES[1], addresses=("192.0.2.2",)),
        ServiceAddresses(service=NAMES[2], reason="no free address"),
        ServiceAddresses(service=NAMES[3], foreign="somebody else's"),
    ),
    counts=AnnouncingCounts(transitions=4, gratuitous=20, contradictions=1, failed_renewals=2),
)
V4, V6 = {"pool": "p\\x1b", "family": "IPv4"}, {"pool": "p\\x1b", "family": "IPv6"}


@pytest.fixture(scope="module")
def values() -> Values:
    return flat(load_balancer_metrics(STATUS))


@pytest.mark.parametrize(
    ("name", "labels", "expected"),
    [
        ("pool_addresses", V4, 10),
        ("pool_addresses_in_use", V4, 3),
        ("pool_addresses_free", V4, 4),
        ("pool_addresses", V6, 256),
        ("pool_addresses_in_use", V6, 0),
        ("services", {"state": "assigned"}, 2),
        ("services", {"state": "pending"}, 1),
        ("services", {"state": "foreign"}, 1),
        ("allocating", {}, 1),
        ("announced_addresses", {}, 2),
        ("contradicted_addresses", {}, 1),
        ("unannounced_addresses", {}, 1),
        ("transitions_total", {}, 4),
        ("announcements_total", {}, 20),
        ("contradictions_total", {}, 1),
        ("lease_renewal_failures_total", {}, 2),
    ],
)
def test_values(values: Values, name: str, labels: dict[str, str], expected: float) -> None:
    assert value(values, f"uproxy_load_balancer_{name}", **labels) == expected


def test_where_each_node_announces_for_itself_no_address_lacks_a_node() -> None:
    found = flat(load_balancer_metrics(msgspec.structs.replace(STATUS, announce="routes")))
    assert value(found, "uproxy_load_balancer_unannounced_addresses") == 0


def test_without_load_balancing_there_are_none() -> None:
    found = flat(samples(Telemetry(), EMPTY, version="1"))
    assert not any(name.startswith("uproxy_load_balancer") for name, _ in found)
    assigning = msgspec.structs.replace(EMPTY, load_balancer=STATUS)
    found = flat(samples(Telemetry(), assigning, version="1"))
    assert value(found, "uproxy_load_balancer_announced_addresses") == 2


def test_they_are_text_that_prometheus_reads() -> None:
    class Scrape(CollectorRegistry):
        def collect(self):  # type: ignore[no-untyped-def]
            return load_balancer_metrics(STATUS)

    text = generate_latest(Scrape()).decode()
    assert 'uproxy_load_balancer_services{state="pending"} 1.0\n' in text
    assert "\nuproxy_load_balancer_transitions_total 4.0\n" in text
