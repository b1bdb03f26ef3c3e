"""Services that get the addresses of nodes, or of this machine alone."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders import port
from tests.core.allocation.world import V4, V6, balancer, changed, written
from uproxy.core.allocation.decisions import Decision
from uproxy.core.allocation.node_addresses import EXCLUDED, NodeAllocator
from uproxy.core.cluster.load_balancer import ASSIGNED
from uproxy.core.cluster.objects import (
    Node,
    NodeAddress,
    NodeCondition,
    NodeStatus,
    ObjectMeta,
    ObjectName,
    Service,
)

WEB = ObjectName("default", "web")
BOTH = (*V4, *V6)


def node(name: str, *addresses: str, unavailable: bool = False, **metadata: Any) -> Node:
    """A Node. An address is internal, or external if it is written with a "+"."""
    return Node(
        metadata=ObjectMeta(name=name, **metadata),
        status=NodeStatus(
            addresses=tuple(
                NodeAddress(
                    type="ExternalIP" if each.startswith("+") else "InternalIP",
                    address=each.removeprefix("+"),
                )
                for each in addresses
            ),
            conditions=(NodeCondition(type="NetworkUnavailable", status=str(unavailable)),),
        ),
    )


def decided(allocator: NodeAllocator, *services: Service) -> dict[str, Decision]:
    for each in services:
        allocator.put(each)
    allocator.converge(complete=True)
    return {name.name: decision for name, decision in allocator.decisions.items()}


def message(decision: Decision) -> str:
    assert decision.condition is not None
    return f"{decision.condition.status} {decision.condition.message}"


@pytest.mark.parametrize(
    ("nodes", "service", "expected"),
    [
        pytest.param(
            [node("b", "10.0.0.2"), node("a", "10.0.0.1")],
            balancer("web"),
            ("10.0.0.1", "10.0.0.2"),
            id="by-name-of-the-node",
        ),
        pytest.param(
            [node("a", "10.0.0.1", "+192.0.2.1"), node("b", "10.0.0.2")],
            balancer("web"),
            ("192.0.2.1", "10.0.0.2"),
            id="external-before-internal",
        ),
        pytest.param(
            [node("a", "10.0.0.1", "fd00::1"), node("b", "10.0.0.2")],
            balancer("web", cluster_ips=V6),
            ("fd00::1",),
            id="family-of-the-service",
        ),
        pytest.param(
            [node("a", "+192.0.2.1", "fd00::1")],
            balancer("web", cluster_ips=BOTH, ip_family_policy="RequireDualStack"),
            ("192.0.2.1", "fd00::1"),
            id="external-by-family",
        ),
        pytest.param(
            [node("a", "10.0.0.1")],
            balancer("web", cluster_ips=BOTH, ip_family_policy="PreferDualStack"),
            ("10.0.0.1",),
            id="prefers-both",
        ),
        pytest.param(
            [node("a", "10.0.0.1"), node("b", "10.0.0.2", unavailable=True)],
            balancer("web"),
            ("10.0.0.1",),
            id="network-unavailable",
        ),
        pytest.param(
            [node("a", "10.0.0.1"), node("b", "10.0.0.2", deletion_timestamp="2026-01-01")],
            balancer("web"),
            ("10.0.0.1",),
            id="deleted",
        ),
        pytest.param(
            [node("a", "10.0.0.1"), node("b", "10.0.0.2", labels={EXCLUDED: ""})],
            balancer("web"),
            ("10.0.0.1",),
            id="excluded",
        ),
        pytest.param(
            [node("a", "10.0.0.1", labels={EXCLUDED: ""})],
            balancer("web"),
            ("10.0.0.1",),
            id="excluded-like-all-others",
        ),
    ],
)
def test_addresses(nodes: list[Node], service: Service, expected: tuple[str, ...]) -> None:
    allocator = NodeAllocator()
    allocator.set_nodes(nodes)
    assert decided(allocator, service)["web"].addresses == expected


@pytest.mark.parametrize(
    ("nodes", "service", "reason"),
    [
        pytest.param(
            [node("a", "10.0.0.1")],
            balancer("web", cluster_ips=BOTH, ip_family_policy="RequireDualStack"),
            "False no eligible node has an address of IPv6",
            id="family",
        ),
        pytest.param(
            [], balancer("web"), "False no eligible node has an address of IPv4", id="no-node"
        ),
        pytest.param(
            [node("a", "10.0.0.1")],
            balancer("web", external_traffic_policy="Local"),
            "False no node has a ready endpoint, which externalTrafficPolicy Local needs",
            id="policy-local",
        ),
    ],
)
def test_why_there_are_none(nodes: list[Node], service: Service, reason: str) -> None:
    allocator = NodeAllocator()
    allocator.set_nodes(nodes)
    decision = decided(allocator, service)["web"]
    assert (decision.addresses, message(decision)) == ((), reason)


def test_with_policy_local_only_nodes_with_a_ready_endpoint_count() -> None:
    allocator = NodeAllocator()
    allocator.set_nodes([node("a", "10.0.0.1"), node("b", "10.0.0.2")])
    allocator.set_endpoint_nodes(WEB, frozenset({"b"}))
    service = balancer("web", external_traffic_policy="Local")
    assert decided(allocator, service)["web"].addresses == ("10.0.0.2",)
    allocator.set_endpoint_nodes(WEB, frozenset({"a", "b"}))
    assert decided(allocator)["web"].addresses == ("10.0.0.1", "10.0.0.2")
    allocator.set_endpoint_nodes(WEB, frozenset())
    assert decided(allocator)["web"].addresses == ()


@pytest.mark.parametrize("localhost", [False, True])
def test_a_second_service_on_a_port_is_refused_until_the_first_has_gone(localhost: bool) -> None:
    allocator = NodeAllocator(localhost=localhost)
    allocator.set_nodes([node("a", "10.0.0.1")])
    found = decided(
        allocator,
        balancer("younger", port(80), created="2026-02-01T00:00:00Z"),
        balancer("older", port(443), port(80)),
    )
    where = "127.0.0.1" if localhost else "the addresses of nodes"
    assert found["older"].addresses == ("127.0.0.1" if localhost else "10.0.0.1",)
    assert message(found["younger"]) == (
        f"False port TCP/80 is already in use on {where} by default/older; give one of them "
        "another port"
    )
    allocator.remove(ObjectName("default", "older"))
    assert decided(allocator)["younger"].addresses == found["older"].addresses


def test_another_protocol_or_family_is_another_port() -> None:
    allocator = NodeAllocator(localhost=True)
    found = decided(
        allocator,
        balancer("tcp", port(53)),
        balancer("udp", port(53, protocol="UDP")),
        balancer("tcp6", port(53), cluster_ips=V6),
    )
    assert found["tcp"].addresses == found["udp"].addresses == ("127.0.0.1",)
    assert found["tcp6"].addresses == ("::1",)


def test_who_has_a_port_keeps_it_after_a_restart() -> None:
    first = NodeAllocator(localhost=True)
    younger = balancer("younger", created="2026-02-01T00:00:00Z")
    younger = written(younger, decided(first, younger)["younger"])
    second = NodeAllocator(localhost=True)
    found = decided(second, balancer("older"), younger)
    assert (found["older"].addresses, found["younger"].addresses) == ((), ("127.0.0.1",))


def test_a_port_that_is_given_up_goes_to_the_one_that_waits() -> None:
    allocator = NodeAllocator(localhost=True)
    first = balancer("a", port(80))
    decided(allocator, first, balancer("b", port(80)))
    found = decided(allocator, changed(first, ports=(port(81),)))
    assert found["a"].addresses == found["b"].addresses == ("127.0.0.1",)
    # It cannot have it back.
    found = decided(allocator, changed(first, ports=(port(80),)))
    assert (found["a"].addresses, found["b"].addresses) == ((), ("127.0.0.1",))
    found = decided(allocator, changed(first, type="ClusterIP"))
    assert found["b"].addresses == ("127.0.0.1",)


def test_a_foreign_status_is_left_alone() -> None:
    allocator = NodeAllocator()
    allocator.set_nodes([node("a", "10.0.0.1")])
    found = decided(allocator, balancer("web", ingress=["203.0.113.1"]), balancer("other"))
    assert found["web"].foreign == (
        "its status has 203.0.113.1, which is none of uproxy's addresses; another controller is "
        "likely to serve this Service"
    )
    assert (found["web"].condition, found["other"].addresses) == (None, ("10.0.0.1",))


def test_the_address_of_a_node_that_has_gone_is_replaced() -> None:
    allocator = NodeAllocator()
    allocator.set_nodes([node("a", "10.0.0.1")])
    service = balancer("web", ingress=["10.0.0.9"], annotations={ASSIGNED: "10.0.0.9"})
    assert decided(allocator, service)["web"].addresses == ("10.0.0.1",)


def test_the_order_in_a_status_is_left_as_it_is() -> None:
    allocator = NodeAllocator()
    allocator.set_nodes([node("a", "10.0.0.1"), node("b", "10.0.0.2")])
    found = decided(allocator, balancer("web", ingress=["10.0.0.2", "10.0.0.1"]))
    assert found["web"].addresses == ("10.0.0.2", "10.0.0.1")


def test_nothing_is_decided_before_all_is_known() -> None:
    allocator = NodeAllocator()
    allocator.put(balancer("web", ingress=["10.0.0.9"], annotations={ASSIGNED: "10.0.0.9"}))
    assert allocator.converge(complete=False) == []
    allocator.set_nodes([node("a", "10.0.0.9")])
    [decision] = allocator.converge(complete=True)
    assert (decision.addresses, decision.events) == (("10.0.0.9",), ())


def test_events() -> None:
    allocator = NodeAllocator()
    allocator.put(balancer("web"))
    [waiting] = allocator.converge(complete=True)
    assert [each.reason for each in waiting.events] == ["AllocationFailed"]
    allocator.set_nodes([node("a", "10.0.0.1")])
    [assigned] = allocator.converge(complete=True)
    assert [each.note for each in assigned.events] == ['Assigned IP ["10.0.0.1"]']
    # Nodes come and go all the time.
    allocator.set_nodes([node("a", "10.0.0.1"), node("b", "10.0.0.2")])
    [more] = allocator.converge(complete=True)
    assert (more.addresses, more.events) == (("10.0.0.1", "10.0.0.2"), ())
    assert allocator.converge(complete=True) == []
