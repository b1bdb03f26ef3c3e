"""What a worker remembers of the ports of Services."""

from __future__ import annotations

from uproxy.core.route import Backend, Frontend, FrontendKind, Route, ServicePortName
from uproxy.dataplane.ports import Ports

HERE = Backend("127.0.0.1", 53)


def test_clients_that_are_remembered_are_limited_over_all_services() -> None:
    """A flood with invented addresses takes 20 MiB of each Service with affinity."""
    ports = Ports(lambda: 0.5, pins=100, at_most=60)
    balancers, names = [], []
    for number, clients in enumerate((10, 90, 80)):
        owner = ServicePortName("default", f"s{number}", "", "UDP")
        route = Route(
            frontend=Frontend("UDP", "10.96.0.1", number + 1),
            owner=owner,
            kind=FrontendKind.CLUSTER_IP,
            backends=(HERE,),
            affinity_timeout=1000,
        )
        names.append(owner)
        balancers.append(ports.get(owner).balancer)
        for client in range(clients):
            balancers[-1].pin(route, HERE, f"192.0.2.{client}", 1.0)
    ports.forget_clients(names)
    assert sum(each.pins for each in balancers) == 120
    ports.forget_clients(())
    assert [each.pins for each in balancers] == [10, 45, 45]
    ports.forget({names[0]})
    ports.forget_clients(names)
    assert [each.pins for each in balancers] == [10, 45, 45]
