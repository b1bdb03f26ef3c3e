"""--lb node and --lb localhost: Services at the addresses that machines have anyway."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.netns import kit
from tests.netns.kit import World
from tests.netns.node import program, service, slices, write
from tests.netns.peers import Pod, ask, pod
from tests.netns.test_claims import claimed

pytestmark = kit.needs()

CLUSTER_IP, CLUSTER_IP6 = "203.0.113.10", "2001:db8:3::10"
TRANSLATED = "203.0.113.77"
"""An external address that the provider's network translates: no interface has it."""


@pytest.fixture(scope="module")
def backend(net: World) -> Iterator[Pod]:
    with pod("a", net.local[0]) as running:
        yield running


def node(name: str, *addresses: tuple[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name},
        "status": {"addresses": [{"type": kind, "address": each} for kind, each in addresses]},
    }


def web(net: World) -> list[dict[str, Any]]:
    made = service(
        "web",
        type="LoadBalancer",
        clusterIPs=[CLUSTER_IP, CLUSTER_IP6],
        ports=[{"name": "t", "port": 80, "protocol": "TCP"}],
    )
    return [made, *slices("web", [(net.local[0], "here", "ready")])]


def test_each_node_serves_its_own_addresses(net: World, backend: Pod, manifests: Path) -> None:
    own = [("InternalIP", net.node.ipv4), ("InternalIP", net.node.ipv6)]
    there = [("InternalIP", net.node2.ipv4), ("InternalIP", net.node2.ipv6)]
    write(manifests, "web.yaml", *web(net), node("here", *own), node("there", *there))
    with program(net.node.space, manifests, "--lb", "node") as uproxy:
        for place in (net.client, net.node, net.local[1]):
            for address in (net.node.ipv4, net.node.ipv6):
                assert ask(place.space, "TCP", address, 80).startswith("a "), (place, address)
        [held] = uproxy.status()["loadBalancer"]["services"]
        assert set(held["addresses"]) == {address for _, address in own + there}
        assert uproxy.reasons("web") == []
        assert claimed(net.node.space) == {CLUSTER_IP, CLUSTER_IP6}


def test_a_translated_address_is_served_where_it_arrives(
    net: World, backend: Pod, manifests: Path
) -> None:
    own = [
        ("InternalIP", net.node.ipv4),
        ("InternalIP", net.node.ipv6),
        ("ExternalIP", TRANSLATED),
    ]
    write(manifests, "web.yaml", *web(net), node("here", *own))
    with program(net.node.space, manifests, "--lb", "node") as uproxy:
        assert ask(net.client.space, "TCP", net.node.ipv4, 80).startswith("a ")
        [held] = uproxy.status()["loadBalancer"]["services"]
        assert TRANSLATED in held["addresses"]
        assert TRANSLATED not in claimed(net.node.space)


def test_localhost(net: World, backend: Pod, manifests: Path) -> None:
    write(manifests, "web.yaml", *web(net))
    with program(net.node.space, manifests, "--lb", "localhost"):
        for address in ("127.0.0.1", "::1"):
            assert ask(net.node.space, "TCP", address, 80).startswith("a ")
        assert not ask(net.client.space, "TCP", net.node.ipv4, 80).startswith("a ")
