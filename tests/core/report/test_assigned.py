"""The addresses that Services have from uproxy."""

from __future__ import annotations

from uproxy.core.cluster.objects import ObjectName
from uproxy.core.report.assigned import held_addresses
from uproxy.core.report.load_balancer import AddressStatus, ServiceAddresses

A, B = ObjectName("default", "a"), ObjectName("default", "b")
VIP, OTHER = "192.0.2.10", "192.0.2.11"
SERVICES = [
    ServiceAddresses(service=A, addresses=(VIP,), pool="p"),
    ServiceAddresses(service=B, addresses=(VIP, OTHER), pool="p"),
    ServiceAddresses(service=ObjectName("default", "c"), reason="none is free"),
]


def test_sharers_are_named_together() -> None:
    assert held_addresses(SERVICES) == (
        AddressStatus(address=VIP, services=(A, B), pool="p"),
        AddressStatus(address=OTHER, services=(B,), pool="p"),
    )


def test_who_announces_is_said_of_those_that_are_held() -> None:
    announced = [
        AddressStatus(
            address=OTHER, services=(A,), node="node-2", since=7.0, reason="it was first"
        ),
        AddressStatus(address="192.0.2.99", node="node-2"),
    ]
    first, second = held_addresses(SERVICES, announced)
    assert first == AddressStatus(address=VIP, services=(A, B), pool="p")
    assert second == AddressStatus(
        address=OTHER, services=(B,), pool="p", node="node-2", since=7.0, reason="it was first"
    )
