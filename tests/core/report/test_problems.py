"""What goes wrong with Services, and which Events that makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest

from tests.builders import SOURCE, cluster, endpoint_slice, port, service, table
from uproxy.core.cluster.objects import ObjectName
from uproxy.core.flows.backend_reachability import Failing
from uproxy.core.report.problems import (
    Event,
    Problem,
    Reference,
    new_events,
    node_reference,
    problems,
)
from uproxy.core.route import Backend, Frontend, ServicePortName
from uproxy.core.routing.build import build
from uproxy.core.routing.options import RoutingOptions
from uproxy.core.routing.retries import Failure
from uproxy.core.routing.table import RoutingTable

WEB = Reference("Service", "default", "web")
HERE = node_reference("n1")
NOTHING: Mapping[ObjectName, str] = {}
NONE_OURS: dict[str, Any] = {"external_ip_addresses": frozenset()}


def front(address: str, number: int = 80) -> Frontend:
    return Frontend("TCP", address, number)


def taken(address: str) -> Failure:
    return Failure(f"TCP port 80 on {address} is already in use by another process", absent=False)


def absent(address: str) -> Failure:
    return Failure(f"address {address} is not on this node", absent=True)


def web(*external: str, name: str = "web", created: str = "2026-01-01T00:00:00Z") -> RoutingTable:
    return table(service(name, external_ips=external, created=created))


def test_all_is_well() -> None:
    assert problems("n1", web(), {}, NOTHING) == {}


def test_a_port_that_is_taken() -> None:
    found = problems("n1", web(), {front("10.96.0.1"): taken("10.96.0.1")}, NOTHING)
    assert found == {
        Problem(WEB, "FailedToListen"): Event(
            WEB,
            "Warning",
            "FailedToListen",
            "Listen",
            "node n1: TCP port 80 on 10.96.0.1 is already in use by another process",
        )
    }


def test_many_frontends_of_a_service_are_one_trouble() -> None:
    addresses = [f"192.0.2.{number}" for number in range(1, 6)]
    routes = table(
        service(external_ips=tuple(addresses)), external_ip_addresses=frozenset(addresses)
    )
    failures = {front(each): taken(each) for each in addresses}
    (event,) = problems("n1", routes, failures, NOTHING).values()
    assert event.note.count("already in use") == 3
    assert event.note.endswith("; and 2 more")


def test_external_ips_that_are_not_allowed_are_named_with_the_option_that_allows_them() -> None:
    addresses = [f"203.0.113.{number}" for number in range(250, 255)]
    refused = service(external_ips=tuple(addresses))
    (found,) = problems("n1", table(refused, **NONE_OURS), {}, NOTHING).values()
    reason = "externalIP {0} is not an address of this node; allow it with {1} {0}/32"
    assert found == Event(
        WEB,
        "Warning",
        "ExternalIPNotAllowed",
        "Listen",
        "node n1: "
        + "; ".join(reason.format(each, "--external-ip-cidrs") for each in addresses[:3])
        + "; and 2 more",
    )


def test_an_external_ip_that_is_removed_or_allowed_is_no_longer_a_problem() -> None:
    state = cluster(service(external_ips=("203.0.113.250",)))
    options = RoutingOptions(**NONE_OURS)
    first = build(state, options, RoutingTable(), state.take_dirty())
    before = problems("n1", first, {}, NOTHING)
    assert [each.reason for each in before] == ["ExternalIPNotAllowed"]
    allowing = replace(options, external_ip_cidrs=(ip_network("203.0.113.0/24"),))
    assert problems("n1", build(state, allowing, first, ()), {}, NOTHING) == {}
    state.apply(SOURCE, service())
    second = build(state, options, first, state.take_dirty())
    now = problems("n1", second, {}, NOTHING)
    assert now == {}
    (event,) = new_events(before, now, exists=lambda _: True, node="n1")
    assert event.note == "node n1: ExternalIPNotAllowed has been resolved"


def test_addresses_elsewhere_are_one_trouble_of_the_node() -> None:
    failures = {front("10.96.0.1"): absent("10.96.0.1"), front("10.96.0.2"): absent("10.96.0.2")}
    found = problems("n1", web(), failures, NOTHING)
    assert found == {
        Problem(HERE, "AddressesNotOnNode"): Event(
            HERE,
            "Warning",
            "AddressesNotOnNode",
            "Listen",
            "2 Service addresses are not on this node, for example 10.96.0.1",
        )
    }


def test_the_loser_of_a_conflict_gets_an_event() -> None:
    older = service("web", port(80, "a"), created="2026-01-01T00:00:00Z")
    newer = service("newer", port(80, "b"), created="2026-01-02T00:00:00Z")
    found = problems("n1", table(older, newer), {}, NOTHING)
    loser = Reference("Service", "default", "newer")
    assert [*found] == [Problem(loser, "PortConflict")]
    note = found[Problem(loser, "PortConflict")].note
    assert note.startswith("node n1: 10.96.0.1:80/TCP is served for default/web:a, ")


def test_a_health_check_that_cannot_listen_gets_the_event_of_kube_proxy() -> None:
    checked = service(
        type="LoadBalancer", external_traffic_policy="Local", health_check_node_port=30900
    )
    routes = table(checked, endpoint_slice("web"), nodeport_addresses=("0.0.0.0",))
    reasons = {ObjectName("default", "web"): "in use", ObjectName("default", "gone"): "in use"}
    (event,) = problems("n1", routes, {}, reasons).values()
    assert event == Event(
        WEB,
        "Warning",
        "FailedToStartServiceHealthcheck",
        "Listen",
        'node n1 failed to start healthcheck "default/web" on port 30900: in use',
    )


def test_backends_that_do_not_answer_make_an_event() -> None:
    port = Failing((Backend("10.0.0.1", 80),), 1, none_answers=True, pods={"10.0.0.1": "web-1"})
    names = [ServicePortName("default", "web", port, "TCP") for port in ("http", "")]
    found = problems("n1", web(), {}, NOTHING, dict.fromkeys(names, port))
    assert found == {
        Problem(WEB, "BackendsUnreachable"): Event(
            WEB,
            "Warning",
            "BackendsUnreachable",
            "Listen",
            "node n1: port http/TCP: no backend answers: web-1 (10.0.0.1:80); "
            "port (unnamed)/TCP: no backend answers: web-1 (10.0.0.1:80)",
        )
    }
    some = port._replace(none_answers=False)
    assert not problems("n1", web(), {}, NOTHING, dict.fromkeys(names, some))


def test_health_and_metrics_ports_that_are_taken_make_events_of_the_node() -> None:
    servers = {"FailedToStartProxierHealthcheck": "TCP port 10256 is already in use"}
    (event,) = problems("n1", web(), {}, NOTHING, servers=servers).values()
    assert event.regarding == HERE
    assert (event.type, event.reason) == ("Warning", "FailedToStartProxierHealthcheck")
    assert event.note == "node n1: TCP port 10256 is already in use; retrying"


def test_frontends_that_are_no_longer_wanted_are_no_problem() -> None:
    assert problems("n1", web(), {front("192.0.2.1"): taken("192.0.2.1")}, NOTHING) == {}


A = Event(WEB, "Warning", "FailedToListen", "Listen", "one")
B = Event(WEB, "Warning", "PortConflict", "Listen", "two")
A_OVER = Event(WEB, "Normal", "Recovered", "Listen", "node n1: FailedToListen has been resolved")


@pytest.mark.parametrize(
    ("before", "now", "exists", "told"),
    [
        pytest.param([], [], True, [], id="nothing"),
        pytest.param([], [A], True, [A], id="begins"),
        pytest.param([A], [A], True, [], id="goes on"),
        pytest.param([A], [A._replace(note="more")], True, [], id="goes on in other words"),
        pytest.param([A], [], True, [A_OVER], id="ends"),
        pytest.param([A], [], False, [], id="ends with its Service"),
        pytest.param([A], [B], True, [B, A_OVER], id="one follows another"),
        pytest.param([A], [A, B], True, [B], id="one more"),
    ],
)
def test_new_events(before: list[Event], now: list[Event], exists: bool, told: list[Event]) -> None:
    def level(events: list[Event]) -> dict[Problem, Event]:
        return {Problem(each.regarding, each.reason): each for each in events}

    found = new_events(level(before), level(now), exists=lambda _: exists, node="n1")
    assert list(found) == told
