from __future__ import annotations

from typing import Any

from tests.builders import endpoint, endpoint_slice, node, service
from uproxy.control.load_balancer.catalog import Catalog
from uproxy.control.load_balancer.supplies import NodeSupply, PoolSupply
from uproxy.core.allocation.pools import Pool
from uproxy.core.allocation.ranges import AddressRange
from uproxy.core.cluster.objects import Node, NodeStatus, ObjectName, Service
from uproxy.core.cluster.state import ClusterState

SOURCE = "test"
WEB = ObjectName("default", "web")


class Nodes:
    """Services that get the addresses of nodes, as far as the supply tells of them."""

    def __init__(self, *, localhost: bool = False) -> None:
        self.state = ClusterState([SOURCE])
        self.supply = NodeSupply(self.state, localhost=localhost)
        self.mattered: list[bool] = []
        self.state.observe(
            lambda kind, name: self.mattered.append(self.supply.object_changed(kind, name))
        )
        self.allocator = self.supply.begin_anew()

    def addresses(self, **spec: Any) -> tuple[str, ...]:
        self.allocator.put(service("web", type="LoadBalancer", **spec))
        for _ in self.supply.tell():
            pass
        self.allocator.converge(complete=True)
        return self.allocator.decisions[WEB].addresses


def external(name: str, address: str) -> Node:
    return node(name, addresses=[address])


def test_nodes_come_and_go() -> None:
    nodes = Nodes()
    nodes.state.apply(SOURCE, external("one", "192.0.2.1"))
    assert nodes.addresses() == ("192.0.2.1",)
    nodes.state.apply(SOURCE, external("two", "192.0.2.2"))
    assert nodes.addresses() == ("192.0.2.1", "192.0.2.2")
    nodes.state.remove(SOURCE, Node, ObjectName("", "one"))
    assert nodes.addresses() == ("192.0.2.2",)


def test_with_policy_local_the_nodes_with_ready_endpoints_count() -> None:
    nodes = Nodes()
    for name, address in (("one", "192.0.2.1"), ("two", "192.0.2.2"), ("three", "192.0.2.3")):
        nodes.state.apply(SOURCE, external(name, address))
    found = endpoint_slice(
        "web",
        endpoint("10.0.0.1", node="one"),
        endpoint("10.0.0.2", node="two", ready=False),
        endpoint("10.0.0.3"),
    )
    nodes.state.apply(SOURCE, found)
    local = {"external_traffic_policy": "Local"}
    assert nodes.addresses(**local) == ("192.0.2.1",)
    nodes.state.apply(SOURCE, endpoint_slice("web", endpoint("10.0.0.3", node="three")))
    assert nodes.addresses(**local) == ("192.0.2.3",)
    nodes.state.remove(SOURCE, type(found), found.key)
    assert nodes.addresses(**local) == ()


def test_what_was_there_before_is_told_too() -> None:
    nodes = Nodes()
    nodes.state.apply(SOURCE, external("one", "192.0.2.1"))
    nodes.state.apply(SOURCE, endpoint_slice("web", endpoint("10.0.0.1", node="one")))
    nodes.allocator = nodes.supply.begin_anew()
    assert nodes.addresses(external_traffic_policy="Local") == ("192.0.2.1",)


def test_nothing_but_services_matters_for_this_machine() -> None:
    nodes = Nodes(localhost=True)
    nodes.state.apply(SOURCE, Node(metadata=external("one", "192.0.2.1").metadata))
    nodes.state.apply(SOURCE, Node(metadata=external("one", "").metadata, status=NodeStatus()))
    nodes.state.apply(SOURCE, service("web"))
    nodes.state.remove(SOURCE, Service, WEB)
    assert not any(nodes.mattered)
    assert nodes.addresses() == ("127.0.0.1",)


class Pools:
    """Services that get addresses of a pool, as far as the supply tells of machines."""

    def __init__(self) -> None:
        self.state = ClusterState([SOURCE])
        self.occupied: dict[str, str] = {}
        pool = Pool(name="default", ranges=(AddressRange.parse("192.0.2.1-192.0.2.3"),))
        self.supply = PoolSupply(self.state, Catalog([pool]), occupied=lambda: dict(self.occupied))
        self.allocator = self.supply.begin_anew()

    def addresses(self, name: str) -> tuple[str, ...]:
        for _ in self.supply.tell():
            pass
        self.allocator.put(service(name, type="LoadBalancer"))
        self.allocator.converge(complete=True)
        return self.allocator.decisions[ObjectName("default", name)].addresses


def test_addresses_of_gateways_and_machines_are_not_handed_out() -> None:
    pools = Pools()
    pools.occupied = {"192.0.2.1": "node one's gateway"}
    pools.state.apply(SOURCE, external("one", "192.0.2.2"))
    assert pools.addresses("a") == ("192.0.2.3",)
    assert pools.addresses("b") == ()
    pools.occupied = {}
    assert pools.addresses("b") == ("192.0.2.1",)


def test_a_cluster_ip_is_not_handed_out() -> None:
    """All nodes but one would lose it, since it would be announced by one."""
    pools = Pools()
    dns = service("kube-system/dns", ip="192.0.2.1")
    pools.state.apply(SOURCE, dns)
    pools.supply.object_changed(Service, dns.key)
    assert pools.addresses("a") == ("192.0.2.2",)
    assert pools.addresses("b") == ("192.0.2.3",)
    assert pools.addresses("c") == ()
    pools.allocator.put(service("asks", type="LoadBalancer", load_balancer_ip="192.0.2.1"))
    pools.allocator.converge(complete=True)
    condition = pools.allocator.decisions[ObjectName("default", "asks")].condition
    assert condition is not None
    assert condition.message.endswith("the ClusterIP of kube-system/dns")
    pools.allocator.remove(ObjectName("default", "asks"))
    pools.state.remove(SOURCE, Service, dns.key)
    pools.supply.object_changed(Service, dns.key)
    assert pools.addresses("c") == ("192.0.2.1",)


def test_the_cluster_ips_that_were_there_before_are_known_too() -> None:
    pools = Pools()
    pools.state.apply(SOURCE, service("dns", ip="192.0.2.1"))
    pools.allocator = pools.supply.begin_anew()
    assert pools.addresses("a") == ("192.0.2.2",)


def test_a_holder_keeps_what_this_machine_takes_for_the_address_of_another() -> None:
    """Nodes may have different gateways, and the next leader may know of others."""
    pools = Pools()
    assert pools.addresses("a") == ("192.0.2.1",)
    pools.occupied = {"192.0.2.1": "node one's gateway"}
    assert pools.addresses("a") == ("192.0.2.1",)
