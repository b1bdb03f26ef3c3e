"""What load balancers are told while a sync is carried out, and what is said of that."""

from __future__ import annotations

import pytest

from uproxy.core.cluster.objects import ObjectName
from uproxy.core.ip import Family
from uproxy.core.protocols import TCP
from uproxy.core.report.health_checks import with_lower_counts
from uproxy.core.report.overview import health_check_statuses
from uproxy.core.route import Frontend
from uproxy.core.routing.service_routes import HealthCheck

WEB = ObjectName("default", "web")

Counts = dict[Family, int] | None

CASES: dict[str, tuple[Counts, Counts, Counts]] = {
    "fewer endpoints are told before they are gone": ({"IPv4": 3}, {"IPv4": 1}, {"IPv4": 1}),
    "none is told before the last is gone": ({"IPv4": 3}, {"IPv4": 0}, {"IPv4": 0}),
    "more are told only when they are served": ({"IPv4": 1}, {"IPv4": 3}, {"IPv4": 1}),
    "a family that goes": ({"IPv4": 1, "IPv6": 2}, {"IPv4": 1}, {"IPv4": 1, "IPv6": 0}),
    "a family that comes": ({"IPv4": 1}, {"IPv4": 1, "IPv6": 2}, {"IPv4": 1}),
    "a Service that goes": ({"IPv4": 1}, None, {"IPv4": 0}),
    "a Service that comes": (None, {"IPv4": 1}, None),
}


@pytest.mark.parametrize(("now", "wanted", "answer"), CASES.values(), ids=CASES.keys())
def test_counts(now: Counts, wanted: Counts, answer: Counts) -> None:
    found = with_lower_counts(checks(now), checks(wanted))
    assert found == checks(answer)


@pytest.mark.parametrize(
    ("frontends", "failures", "reason"),
    [
        pytest.param((Frontend(TCP, "0.0.0.0", 32000),), {}, "", id="open"),
        pytest.param((), {}, "no address of this node is in --nodeport-addresses", id="nowhere"),
        pytest.param((), {WEB: "it fails"}, "it fails", id="failed"),
    ],
)
def test_nothing_answers_where_no_address_is_for_node_ports(
    frontends: tuple[Frontend, ...], failures: dict[ObjectName, str], reason: str
) -> None:
    check = HealthCheck(service=WEB, frontends=frontends, port=32000, counts={"IPv4": 1})
    (found,) = health_check_statuses({WEB: check}, failures)
    assert reason in found.reason
    assert bool(found.reason) == bool(reason)


def checks(counts: Counts) -> dict[ObjectName, HealthCheck]:
    if counts is None:
        return {}
    return {WEB: HealthCheck(service=WEB, frontends=(), port=32000, counts=counts)}
