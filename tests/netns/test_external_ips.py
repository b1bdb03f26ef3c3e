"""externalIPs: permission to create Services must not be enough to take an address
(CVE-2020-8554)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.netns import kit
from tests.netns.kit import World
from tests.netns.node import program, service, slices, write
from tests.netns.peers import REFUSED, SILENCE, UNREACHABLE, ask, pod

pytestmark = kit.needs()

PORTS = [
    {"name": "t", "port": 80, "protocol": "TCP"},
    {"name": "u", "port": 80, "protocol": "UDP"},
]
CLUSTER_IPS = ["203.0.113.1", "2001:db8:3::1"]
ALLOWED, OTHER = "203.0.113.130", "203.0.113.200"
REASON = "externalIP {0} is not an address of this node; allow it with --external-ip-cidrs {0}/{1}"
GATEWAY = "externalIP {} is this node's gateway; it is not claimed"


def cluster_ip_service(external_ips: list[str]) -> dict[str, Any]:
    addresses = {"clusterIPs": CLUSTER_IPS, "externalIPs": external_ips}
    return service("web", type="ClusterIP", ports=PORTS, **addresses)


@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
def test_addresses_of_this_node_only(net: World, manifests: Path, protocol: str) -> None:
    """Not those of another node, nor any that could be claimed."""
    taken = [net.node2.ipv4, net.node2.ipv6]
    addresses = [*net.second, ALLOWED, *taken]
    web = cluster_ip_service(addresses)
    write(manifests, "web.yaml", web, *slices("web", [(net.local[0], "here", "ready")]))
    with (
        pod("a", net.local[0]),
        pod("rightful owner", net.node2, 80),
        program(net.node.space, manifests) as uproxy,
    ):
        for address in net.second:
            assert ask(net.client.space, protocol, address, 80).startswith("a ")
        for address in taken:
            for place in (net.node, net.local[1], net.client):
                answer = ask(place.space, protocol, address, 80)
                assert answer.startswith("rightful owner"), place
        nobody = UNREACHABLE if protocol == "TCP" else SILENCE
        assert ask(net.client.space, protocol, ALLOWED, 80, patience=0.2) == nobody
        expected = {REASON.format(ALLOWED, 32), *(GATEWAY.format(each) for each in taken)}
        assert set(uproxy.reasons("web")) == expected


def test_networks_that_are_allowed(net: World, manifests: Path) -> None:
    web = cluster_ip_service([ALLOWED, OTHER])
    write(manifests, "web.yaml", web, *slices("web", [(net.local[0], "here", "ready")]))
    cidrs = ("--external-ip-cidrs", "203.0.113.128/26")
    with pod("a", net.local[0]), program(net.node.space, manifests, *cidrs) as uproxy:
        for place in (net.client, net.node, net.local[1]):
            assert ask(place.space, "TCP", ALLOWED, 80).startswith("a ")
            assert ask(place.space, "UDP", ALLOWED, 80).startswith("a ")
            assert ask(place.space, "TCP", ALLOWED, 81) == REFUSED
        assert ask(net.client.space, "TCP", OTHER, 80) == UNREACHABLE
        assert uproxy.reasons("web") == [REASON.format(OTHER, 32)]


@pytest.mark.parametrize(
    ("address", "length"),
    [
        pytest.param("203.0.113.250", 32, id="IPv4"),
        pytest.param("2001:db8:3::cb00:71fa", 128, id="IPv6"),
    ],
)
def test_an_external_ip_that_no_node_has(
    net: World, manifests: Path, address: str, length: int
) -> None:
    """Kubernetes' "should be possible to connect to a service via ExternalIP when the external IP
    is not assigned to a node". The option that allows it is taken from the reason."""
    write(manifests, "web.yaml", cluster_ip_service([address]))
    write(manifests, "slices.yaml", *slices("web", [(net.local[0], "here", "ready")]))
    places = (*net.local, *net.remote, net.node, net.node2, net.client)
    with pod("a", net.local[0]):
        with program(net.node.space, manifests) as uproxy:
            (reason,) = uproxy.reasons("web")
            assert reason == REASON.format(address, length)
        option = reason.rpartition("allow it with ")[2].split()
        with program(net.node.space, manifests, *option) as uproxy:
            assert uproxy.reasons("web") == []
            for place in places:
                for protocol in ("TCP", "UDP"):
                    answer = ask(place.space, protocol, address, 80)
                    assert answer.startswith("a "), (place, protocol, answer)


def test_modes_of_load_balancer_ips(net: World, manifests: Path) -> None:
    """With ipMode Proxy, traffic has to pass through the load balancer (KEP-1860)."""
    ingress = [
        {"ip": "203.0.113.21"},
        {"ip": "203.0.113.22", "ipMode": "VIP"},
        {"ip": "203.0.113.23", "ipMode": "Proxy"},
        {"hostname": "lb.example"},
    ]
    status = {"loadBalancer": {"ingress": ingress}}
    web = service("web", ports=PORTS, type="LoadBalancer", clusterIPs=CLUSTER_IPS, status=status)
    write(manifests, "web.yaml", web, *slices("web", [(net.local[0], "here", "ready")]))
    with pod("a", net.local[0]), program(net.node.space, manifests) as uproxy:
        for address in ("203.0.113.21", "203.0.113.22"):
            assert ask(net.client.space, "TCP", address, 80).startswith("a ")
        assert ask(net.client.space, "TCP", "203.0.113.23", 80) == UNREACHABLE
        (reason,) = uproxy.reasons("web")
        assert reason.startswith("load-balancer IP 203.0.113.23 has ipMode Proxy")
