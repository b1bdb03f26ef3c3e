"""What a worker remembers of the ports of Services."""

from __future__ import annotations

from uproxy.core.route import Backend, Frontend, FrontendKind, Route, ServicePortName
from uproxy.dataplane.ports import Ports

HERE = Backend("127.0.0.1", 53)


def route(number: int) -> Route:
    return Route(
        frontend=Frontend("UDP", "10.96.0.1", number + 1),
        owner=ServicePortName("default", f"s{number}", "", "UDP"),
        kind=FrontendKind.CLUSTER_IP,
        backends=(HERE,),
        affinity_timeout=1000,
    )


def test_clients_that_are_remembered_are_limited_over_all_services() -> None:
    """A flood with invented addresses takes 20 MiB of each Service with affinity."""
    ports = Ports(lambda: 0.5, pins=100, at_most=60)
    balancers, names = [], []
    for number, clients in enumerate((10, 90, 80)):
        names.append(route(number).owner)
        balancers.append(ports.get(names[-1]).balancer)
        for client in range(clients):
            balancers[-1].pin(route(number), HERE, f"192.0.2.{client}", 1.0)
    ports.forget_clients(names, 2.0)
    assert sum(each.pins for each in balancers) == 120
    ports.forget_clients((), 2.0)
    assert [each.pins for each in balancers] == [10, 45, 45]
    ports.forget({names[0]})
    ports.forget_clients(names, 2.0)
    assert [each.pins for each in balancers] == [10, 45, 45]


def test_clients_whose_pins_have_expired_are_forgotten_first() -> None:
    ports = Ports(lambda: 0.5, pins=100, at_most=30)
    names = [route(number).owner for number in range(2)]
    once, now = (ports.get(each).balancer for each in names)
    for client in range(60):
        once.pin(route(0), HERE, f"192.0.2.{client}", 1.0)
        now.pin(route(1), HERE, f"192.0.2.{client}", 1500.0)
    ports.forget_clients(names, 1500.0)
    assert [once.pins, now.pins] == [40, 60], "no more than needed"
    for client in range(60, 120):
        now.pin(route(1), HERE, f"192.0.2.{client}", 1500.0)
    ports.forget_clients(names, 1500.0)
    assert [once.pins, now.pins] == [10, 120], "30 at once"
    ports.forget_clients(names, 1500.0)
    assert [once.pins, now.pins] == [0, 100], "10 expired ones, and 20 others"
