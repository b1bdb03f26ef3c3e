"""What is said of Services that have addresses from uproxy, and of those that have none."""

from __future__ import annotations

from uproxy.core.allocation.decisions import Condition, Decision
from uproxy.core.announcing.step import AddressState
from uproxy.core.cluster.objects import ObjectName
from uproxy.core.report.assigned import address_statuses, service_addresses
from uproxy.core.report.load_balancer import AddressStatus, ServiceAddresses

A, B = ObjectName("default", "a"), ObjectName("default", "b")
VIP, OTHER = "192.0.2.10", "192.0.2.11"


def test_the_condition_of_a_service_that_waits_is_its_reason() -> None:
    waiting = Decision(
        service=A, condition=Condition("False", "PortInUse", "default/b has port 80")
    )
    assert service_addresses(waiting).reason == "default/b has port 80"
    served = Decision(
        service=A,
        addresses=(VIP,),
        pool="p",
        condition=Condition("True", "Assigned", "all is well"),
    )
    assert service_addresses(served) == ServiceAddresses(service=A, addresses=(VIP,), pool="p")
    foreign = Decision(service=A, foreign="another controller wrote it")
    assert service_addresses(foreign).foreign == "another controller wrote it"


def test_who_announces() -> None:
    services = [
        ServiceAddresses(service=A, addresses=(VIP,), pool="p"),
        ServiceAddresses(service=B, addresses=(VIP, OTHER), pool="p"),
    ]
    states = {
        VIP: AddressState("node-1", 70.0, "it held the address already", "02:00:00:00:00:01"),
        OTHER: AddressState("node-2", 50.0),
    }
    found = address_statuses(
        services, states, node="node-1", interfaces={VIP: "eth0"}, epoch=1000.0
    )
    assert found == (
        AddressStatus(
            address=VIP,
            services=(A, B),
            pool="p",
            node="node-1",
            here=True,
            interface="eth0",
            since=1070.0,
            reason="it held the address already",
            conflict="02:00:00:00:00:01",
        ),
        AddressStatus(address=OTHER, services=(B,), pool="p", node="node-2", since=1050.0),
    )


def test_nobody_announces() -> None:
    services = [ServiceAddresses(service=A, addresses=(VIP,))]
    [found] = address_statuses(services, {}, node="node-1", interfaces={}, epoch=1000.0)
    assert found == AddressStatus(address=VIP, services=(A,))
