"""What is said about each backend of a Service port."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders import (
    NODE,
    endpoint,
    endpoint_slice,
    local,
    node,
    port,
    service,
    table,
    terminating,
)
from uproxy.core.cluster.objects import Endpoint, EndpointConditions, Service, TargetRef
from uproxy.core.flows.backend_counts import BackendCounts
from uproxy.core.flows.backend_totals import BackendTotals
from uproxy.core.report.backends import (
    PortStatus,
    counted_backends,
    endpoints_of,
    pods_by_address,
    port_statuses,
)
from uproxy.core.route import Backend, ServicePortName

WEB = ServicePortName("default", "web", "", "TCP")
INSIDE = (
    "inside only: not for clients from outside: externalTrafficPolicy is Local, and it is on"
    " another node"
)
PARTLY = (
    "used: not for clients of the ClusterIP: internalTrafficPolicy is Local, and it is on"
    " another node"
)
ELSEWHERE = "elsewhere: the traffic policy is Local, and it is on another node"


def remote(address: str, **fields: Any) -> Endpoint:
    return endpoint(address, node="other", **fields)


def pod(address: str, name: str, **conditions: bool) -> Endpoint:
    return Endpoint(
        addresses=(address,),
        conditions=EndpointConditions(**conditions),
        node_name="n7",
        zone="z1",
        target_ref=TargetRef(kind="Pod", namespace="default", name=name),
    )


def ports_of(
    web: Service,
    *endpoints: Endpoint,
    totals: BackendTotals | None = None,
    now: float = 0.0,
    **options: Any,
) -> list[PortStatus]:
    slices = [endpoint_slice("web", *endpoints)]
    routes = table(web, *slices, nodeport_addresses=("127.0.0.1",), **options)
    found = totals or BackendTotals()
    return list(port_statuses(web, slices, routes, found, now, node=NODE))


def said(statuses: list[PortStatus]) -> list[str]:
    return [
        f"{each.state}: {each.reason}" if each.reason else str(each.state)
        for status in statuses
        for each in status.backends
    ]


@pytest.mark.parametrize(
    ("spec", "endpoints", "expected"),
    [
        pytest.param({}, [remote("10.0.0.1")], ["used"], id="used"),
        pytest.param(
            {},
            [remote("10.0.0.1"), remote("10.0.0.2", ready=False, serving=False)],
            ["used", "not ready"],
            id="not ready",
        ),
        pytest.param(
            {},
            [remote("10.0.0.1"), terminating("10.0.0.2")],
            ["used", "terminating: it still serves, and gets no new flow"],
            id="terminating beside a ready one",
        ),
        pytest.param(
            {},
            [terminating("10.0.0.2")],
            ["terminating: it still serves, and no other endpoint is ready"],
            id="terminating, and nothing else is there",
        ),
        pytest.param(
            {},
            [remote("10.0.0.2", ready=False, serving=False, terminating=True)],
            ["terminating"],
            id="terminating and silent",
        ),
        pytest.param(
            {"external_traffic_policy": "Local"},
            [local("10.0.0.1"), remote("10.0.0.2")],
            ["used", INSIDE],
            id="externalTrafficPolicy Local",
        ),
        pytest.param(
            {"internal_traffic_policy": "Local"},
            [local("10.0.0.1"), remote("10.0.0.2")],
            ["used", PARTLY],
            id="internalTrafficPolicy Local with a NodePort",
        ),
        pytest.param(
            {"internal_traffic_policy": "Local", "external_traffic_policy": "Local"},
            [remote("10.0.0.2")],
            [INSIDE],
            id="both policies Local: the node's own pods get it at the NodePort",
        ),
        pytest.param(
            {},
            [remote("10.0.0.1", zones=["here"]), remote("10.0.0.2", zones=["a", "b"])],
            ["used", "elsewhere: its topology hints are for a, b"],
            id="topology hints",
        ),
    ],
)
def test_states(spec: dict[str, Any], endpoints: list[Endpoint], expected: list[str]) -> None:
    web = service("web", port(80, node_port=30080), **spec)
    slices = [endpoint_slice("web", *endpoints)]
    routes = table(web, *slices, node(zone="here"), nodeport_addresses=("127.0.0.1",))
    found = port_statuses(web, slices, routes, BackendTotals(), 0.0, node=NODE)
    assert said(list(found)) == expected


def test_a_clusterip_of_policy_local_alone() -> None:
    web = service("web", internal_traffic_policy="Local")
    found = ports_of(web, local("10.0.0.1"), remote("10.0.0.2"))
    assert said(found) == ["used", ELSEWHERE]


def test_a_service_that_is_not_served() -> None:
    web = service("web", ip="None", internal_traffic_policy="Local")
    assert said(ports_of(web, remote("10.0.0.2"))) == ["unused"]


def test_a_backend_that_leads_back_to_uproxy() -> None:
    web = service("web", port(80, node_port=30080))
    slices = [endpoint_slice("web", local("10.96.0.1"), ports={"": 80})]
    routes = table(web, *slices, nodeport_addresses=("127.0.0.1",))
    assert not any(each.backends for each in routes.routes.values())
    found = port_statuses(web, slices, routes, BackendTotals(), 0.0, node=NODE)
    assert said(list(found)) == ["unused: it leads back to uproxy itself"]


def test_who_and_where_it_is_and_what_was_counted() -> None:
    totals = BackendTotals()
    gone = Backend("10.0.0.9", 8080)
    totals.add(0, [(WEB, Backend("10.0.0.1", 8080), BackendCounts(flows=3, aside_until=9.0))])
    totals.add(1, [(WEB, gone, BackendCounts(flows=4, active=1))])
    totals.look_at(WEB, {gone: "web-9"}, 0.0)
    (status,) = ports_of(
        service("web"),
        pod("10.0.0.1", "web-1"),
        pod("10.0.0.2", "web-2"),
        totals=totals,
        now=5.0,
    )
    assert (status.name, status.number) == (WEB, 80)
    first, second, third = status.backends
    assert (first.pod, first.node, first.zone, first.counts.flows) == ("web-1", "n7", "z1", 3)
    assert (first.state, first.exclusion) == ("set aside", (9.0, 1))
    assert (second.pod, second.state, second.counts.flows) == ("web-2", "used", 0)
    assert (third.backend, third.pod, third.state, third.counts.active) == (
        gone,
        "web-9",
        "removed",
        1,
    )


def test_each_port_has_its_own_backends() -> None:
    web = service("web", port(80, "http"), port(53, "dns", protocol="UDP"), port(9, "sctp"))
    slices = [
        endpoint_slice("web", "10.0.0.1", ports={"http": 8080, "sctp": 9}),
        endpoint_slice("web", "10.0.0.1", ports={"dns": 5353}, protocol="UDP", suffix="2"),
        endpoint_slice("web", "fd00::1", ports={"http": 8080}, family="IPv6", suffix="3"),
    ]
    found = port_statuses(web, slices, table(web, *slices), BackendTotals(), 0.0, node=NODE)
    assert [(each.name.port, [str(b.backend) for b in each.backends]) for each in found] == [
        ("http", ["10.0.0.1:8080", "[fd00::1]:8080"]),
        ("dns", ["10.0.0.1:5353"]),
        ("sctp", ["10.0.0.1:9"]),
    ]


def test_pods_by_address() -> None:
    slices = [
        endpoint_slice(
            "web",
            pod("10.0.0.1", "old", terminating=True),
            pod("10.0.0.1", "new"),
            pod("10.0.0.2", "last", terminating=True),
            endpoint("10.0.0.3"),
            pod("not an address", "odd"),
        )
    ]
    slices += [endpoint_slice("web", pod("FD00::0:1", "six"), family="IPv6", suffix="2")]
    assert pods_by_address(slices) == {"10.0.0.1": "new", "10.0.0.2": "last", "fd00::1": "six"}


def test_endpoints_of_ports() -> None:
    slices = [endpoint_slice("web", pod("10.0.0.1", "web-1"), endpoint("10.0.0.2"))]
    other = WEB._replace(port="other")
    assert endpoints_of(slices, [WEB, other]) == {
        WEB: {Backend("10.0.0.1", 8080): "web-1", Backend("10.0.0.2", 8080): ""},
        other: {},
    }


def test_counted_backends_are_those_that_had_their_flows_first() -> None:
    totals = BackendTotals()
    other = ServicePortName("default", "other", "", "TCP")
    a, b, gone = (Backend(f"10.0.0.{n}", 8080) for n in (1, 2, 9))
    aside = BackendCounts(flows=3, aside_until=9.0)
    totals.add(0, [(WEB, a, aside), (WEB, gone, BackendCounts(flows=1)), (WEB, b, aside)])
    totals.add(0, [(other, a, BackendCounts()), (other, b, BackendCounts())])
    totals.look_at(WEB, {gone: "web-9"}, 0.0)
    slices = [endpoint_slice("web", pod("10.0.0.1", "web-1"), pod("10.0.0.2", "web-2"))]

    def counted(most: int) -> tuple[list[tuple[str, str, str, int]], int]:
        found, left_out = counted_backends(
            totals, lambda name: slices if name.name == "web" else (), most=most, now=5.0
        )
        shown = [(str(each.port), each.pod, each.node, each.aside_workers) for each in found]
        return shown, left_out

    everything = [
        ("default/web", "web-1", "n7", 1),
        ("default/web", "web-9", "", 0),
        ("default/web", "web-2", "n7", 1),
        ("default/other", "", "", 0),
        ("default/other", "", "", 0),
    ]
    assert counted(10) == (everything, 0)
    assert counted(5) == (everything, 0)
    assert counted(4) == (everything[:4], 1)
    assert counted(2) == (everything[:2], 3)
