"""Which pods live on this node, as network plugins write their routes."""

from __future__ import annotations

import pytest

from uproxy.host.pod_networks import (
    Hop,
    Interface,
    LinkRoute,
    PodNetworks,
    Segment,
    local_pod_networks,
)

ETH0, CNI0, TUNNEL, VETH, VETH2, OTHER = range(2, 8)
MAC = "02:00:00:00:00:01"
INTERFACES = {
    ETH0: Interface("eth0", "", ethernet=True, mac="02:00:00:00:00:02"),
    CNI0: Interface("cni0", "bridge", ethernet=True, mac=MAC),
    TUNNEL: Interface("flannel.1", "vxlan", ethernet=True),
    VETH: Interface("veth0", "veth", ethernet=True),
    VETH2: Interface("veth1", "veth", ethernet=True),
}
CLUSTER = ("10.244.0.0/16", "fd00:10:244::/56")
DEFAULT = LinkRoute("0.0.0.0/0", (Hop(ETH0, gateway=True),))
DEFAULT6 = LinkRoute("::/0", (Hop(ETH0, gateway=True),))
LAN = LinkRoute("192.0.2.0/24", (Hop(ETH0, gateway=False),))


def on_link(network: str, interface: int) -> LinkRoute:
    return LinkRoute(network, (Hop(interface, gateway=False),))


def via(network: str, interface: int) -> LinkRoute:
    return LinkRoute(network, (Hop(interface, gateway=True),))


def found(*routes: LinkRoute, interfaces: dict[int, Interface] | None = None) -> PodNetworks:
    known = INTERFACES | (interfaces or {})
    return local_pod_networks([DEFAULT, DEFAULT6, LAN, *routes], known, CLUSTER)


@pytest.mark.parametrize(
    ("routes", "pods"),
    [
        pytest.param((), (), id="no pods"),
        pytest.param(
            (on_link("10.244.1.0/24", CNI0), via("10.244.2.0/24", TUNNEL)),
            ("10.244.1.0/24",),
            id="flannel, vxlan: other nodes are behind a gateway of the tunnel",
        ),
        pytest.param(
            (on_link("10.244.1.0/24", CNI0), via("10.244.2.0/24", ETH0)),
            ("10.244.1.0/24",),
            id="flannel, host-gw",
        ),
        pytest.param(
            (
                on_link("10.244.1.3/32", VETH),
                on_link("10.244.1.2/32", VETH2),
                via("10.244.2.0/24", ETH0),
            ),
            ("10.244.1.2/32", "10.244.1.3/32"),
            id="kindnet, ptp: a host route for each pod",
        ),
        pytest.param(
            # The blackhole route of the node's block is not unicast, and never gets here.
            (
                on_link("10.244.77.65/32", VETH),
                LinkRoute("10.244.12.0/26", (Hop(OTHER, gateway=True),)),
            ),
            ("10.244.77.65/32",),
            id="Calico",
        ),
        pytest.param(
            (on_link("10.244.8.0/24", ETH0), on_link("10.244.8.9/32", VETH)),
            ("10.244.8.9/32",),
            id="Amazon VPC: the subnet of all nodes is on the link of an uplink",
        ),
        pytest.param(
            (via("10.244.1.0/24", OTHER), on_link("10.244.1.7/32", OTHER)),
            (),
            id="Cilium: all pods are behind cilium_host",
        ),
        pytest.param(
            (on_link("fd00:10:244:1::/64", CNI0), on_link("fe80::/64", CNI0)),
            ("fd00:10:244:1::/64",),
            id="IPv6",
        ),
        pytest.param(
            (on_link("10.244.1.0/24", CNI0), via("::/0", CNI0)),
            ("10.244.1.0/24",),
            id="an uplink of one family only",
        ),
        pytest.param(
            (LinkRoute("10.244.1.0/24", (Hop(CNI0, gateway=False), Hop(VETH, gateway=False))),),
            (),
            id="several paths",
        ),
        pytest.param(
            (LinkRoute("198.51.100.0/24", (Hop(ETH0, gateway=True), Hop(CNI0, gateway=False))),),
            (),
            id="one of several paths has a gateway",
        ),
        pytest.param((LinkRoute("10.244.1.0/24", ()),), (), id="a next hop that is gone"),
        pytest.param((on_link("10.244.2.0/24", TUNNEL),), (), id="a tunnel without gateways"),
        pytest.param((on_link("10.0.0.0/8", CNI0),), (), id="wider than the cluster"),
        pytest.param((on_link("198.51.100.0/24", CNI0),), (), id="another network"),
        pytest.param((on_link("10.244.1.0/24", 99),), (), id="an interface that has just gone"),
    ],
)
def test_networks(routes: tuple[LinkRoute, ...], pods: tuple[str, ...]) -> None:
    assert found(*routes, interfaces={OTHER: Interface("x", "veth", ethernet=True)}).pods == pods


def test_wireguard_has_no_ethernet() -> None:
    interfaces = {OTHER: Interface("wg0", "wireguard", ethernet=False)}
    assert found(on_link("10.244.2.0/24", OTHER), interfaces=interfaces) == PodNetworks()


def test_networks_of_more_than_one_pod_are_segments() -> None:
    interfaces = {OTHER: Interface("ovs0", "openvswitch", ethernet=True)}
    routes = (
        on_link("10.244.1.0/24", CNI0),
        on_link("10.244.5.0/24", OTHER),
        on_link("10.244.7.1/32", VETH),
        on_link("fd00:10:244:1::/64", CNI0),
        on_link("fd00:10:244:7::1/128", VETH),
    )
    assert found(*routes, interfaces=interfaces).segments == (
        Segment("10.244.1.0/24", CNI0, "cni0", MAC),
        Segment("10.244.5.0/24", OTHER, "ovs0", ""),
        Segment("fd00:10:244:1::/64", CNI0, "cni0", MAC),
    )


@pytest.mark.parametrize("networks", [(), ("nonsense",), ("10.0.0.0/33",)])
def test_without_networks_of_the_cluster(networks: tuple[str, ...]) -> None:
    routes = [on_link("10.244.1.0/24", CNI0)]
    assert local_pod_networks(routes, INTERFACES, networks) == PodNetworks()
