from __future__ import annotations

from tests.builders import SOURCE, cluster, endpoint, endpoint_slice, node, service
from uproxy.control.load_balancer.catalog import Catalog
from uproxy.control.load_balancer.wanted_addresses import WantedAddresses
from uproxy.core.allocation.pools import Pool
from uproxy.core.allocation.ranges import AddressRange
from uproxy.core.cluster.load_balancer import ASSIGNED
from uproxy.core.cluster.objects import (
    NETWORK_UNAVAILABLE,
    TO_BE_DELETED_TAINT,
    Node,
    NodeCondition,
    NodeStatus,
    Object,
    ObjectName,
)

ADDRESS = "192.0.2.10"
WEB = (
    service(
        "web",
        type="LoadBalancer",
        ingress=[ADDRESS],
        annotations={ASSIGNED: ADDRESS},
    ),
    endpoint_slice("web", endpoint("10.0.0.1")),
)


class Wanted:
    """What a node is told to announce."""

    def __init__(self, *objects: Object, own_node: str = "") -> None:
        self.state = cluster()
        catalog = Catalog([Pool(name="default", ranges=(AddressRange.parse(ADDRESS),))])
        self.wanted = WantedAddresses(
            self.state,
            lambda: catalog.pools,
            lambda: catalog.advertisements,
            own_node=own_node,
        )
        self.state.observe(self.wanted.object_changed)
        for each in objects:
            self.state.apply(SOURCE, each)

    def by(self) -> tuple[list[str], str]:
        """Which nodes may announce the address, and why none may."""
        found = self.wanted.current()[ADDRESS]
        return sorted(found.candidates.nodes), found.reason


def test_in_a_cluster_nodes_without_a_node_object_announce_nothing() -> None:
    assert Wanted(*WEB).by() == ([], "there are no nodes")


def test_a_node_that_is_about_to_be_removed_comes_last() -> None:
    deleted = node("n1", deleted="2026-01-01T00:00:00Z")
    scaled_down = node("n2", taints=[TO_BE_DELETED_TAINT])
    wanted = Wanted(*WEB, deleted, scaled_down, node("n3", taints=["other"]))
    nodes = wanted.wanted.current()[ADDRESS].candidates.nodes
    assert {name: each.weight for name, each in nodes.items()} == {"n1": -1, "n2": -1, "n3": 0}


def test_manifests_need_no_node_object() -> None:
    assert Wanted(*WEB, own_node="here").by() == (["here"], "")


def test_a_node_object_of_this_node_counts_as_long_as_it_is_there() -> None:
    conditions = (NodeCondition(type=NETWORK_UNAVAILABLE, status="True"),)
    unavailable = Node(metadata=node("here").metadata, status=NodeStatus(conditions=conditions))
    wanted = Wanted(*WEB, unavailable, own_node="here")
    assert wanted.by()[1].startswith("no node may announce it: its network is unavailable")
    wanted.state.remove(SOURCE, Node, ObjectName("", "here"))
    assert wanted.by() == (["here"], "")


def test_other_nodes_in_manifests_do_not_stand_in_the_way() -> None:
    assert Wanted(*WEB, node("other"), own_node="here").by() == (["here", "other"], "")
