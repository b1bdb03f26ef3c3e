"""Nodes with several addresses: where NodePorts are served, and where replies come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.netns import kit
from tests.netns.kit import World
from tests.netns.node import program, service, slices, wait_for, write
from tests.netns.peers import REFUSED, Pod, ask, pod

pytestmark = kit.needs()

NUMBER = 30080
FIRST, FIRST6 = "192.0.2.1", "2001:db8:1::1"
SECOND, SECOND6 = "192.0.2.11", "2001:db8:1::11"
BRIDGE, BRIDGE6 = "198.51.100.1", "2001:db8:2::1"
LOOP, LOOP6 = "127.0.0.1", "::1"
ALL4, ALL6 = {FIRST, SECOND, BRIDGE, LOOP}, {FIRST6, SECOND6, BRIDGE6, LOOP6}


@pytest.fixture(scope="module")
def backend(net: World) -> Iterator[Pod]:
    with pod("a", net.local[0]) as running:
        yield running


def both(number: int = NUMBER, port: int = 80) -> list[dict[str, Any]]:
    return [
        {"name": protocol[0].lower(), "port": port, "protocol": protocol, "nodePort": number}
        for protocol in ("TCP", "UDP")
    ]


def node_port_service(net: World, name: str = "web", **fields: Any) -> list[dict[str, Any]]:
    addresses = ["203.0.113.1", "2001:db8:3::1"]
    wanted = service(name, ports=both(), clusterIPs=addresses, **fields)
    return [wanted, *slices(name, [(net.local[0], "here", "ready")])]


def node_object(*addresses: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "here"},
        "status": {"addresses": [{"type": "InternalIP", "address": each} for each in addresses]},
    }


@pytest.mark.parametrize(
    ("entries", "served"),
    [
        pytest.param("", ALL4 | ALL6, id="not given"),
        pytest.param("all", ALL4 | ALL6, id="all"),
        pytest.param("primary", {FIRST, FIRST6}, id="primary"),
        pytest.param("localhost", {LOOP, LOOP6}, id="localhost"),
        pytest.param("primary,localhost", {FIRST, FIRST6, LOOP, LOOP6}, id="two keywords"),
        pytest.param("192.0.2.0/24", {FIRST, SECOND} | ALL6, id="IPv4 only: all of IPv6"),
        pytest.param("192.0.2.11/32,2001:db8:1::/64", {SECOND, FIRST6, SECOND6}, id="two CIDRs"),
        pytest.param("0.0.0.0/0,::1/128", ALL4 | {LOOP6}, id="zero CIDR"),
        pytest.param("203.0.113.0/24", ALL6, id="no match"),
        pytest.param("primary,198.51.100.0/24", {FIRST, FIRST6, BRIDGE}, id="keyword and CIDR"),
    ],
)
def test_where_node_ports_are_served(
    net: World, backend: Pod, manifests: Path, entries: str, served: set[str]
) -> None:
    write(manifests, "node.yaml", node_object(FIRST, FIRST6))
    write(manifests, "web.yaml", *node_port_service(net))
    options = ("--nodeport-addresses", entries) if entries else ()
    with program(net.node.space, manifests, *options):
        for address in ALL4 | ALL6:
            for protocol in ("TCP", "UDP"):
                answer = ask(net.node.space, protocol, address, NUMBER)
                assert answer.split()[0] == ("a" if address in served else REFUSED), address


@pytest.mark.parametrize("options", [(), ("--nodeport-addresses", "192.0.2.0/24,2001:db8:1::/64")])
def test_replies_leave_from_the_address_that_was_asked(
    net: World, backend: Pod, manifests: Path, options: tuple[str, ...]
) -> None:
    """The kernel drops others at a connected client, so any answer proves it."""
    write(manifests, "web.yaml", *node_port_service(net))
    with program(net.node.space, manifests, *options):
        for protocol in ("UDP", "TCP"):
            for address in (SECOND, SECOND6, FIRST, FIRST6):
                for place in (net.client, net.local[1], net.node):
                    assert ask(place.space, protocol, address, NUMBER).startswith("a ")


def test_node_port_and_vip_with_the_same_port(net: World, backend: Pod, manifests: Path) -> None:
    """Whichever is opened first, each gets its own."""
    vip = {"loadBalancer": {"ingress": [{"ip": "203.0.113.9"}, {"ip": "2001:db8:3::9"}]}}
    wanted = service(
        "vip",
        type="LoadBalancer",
        clusterIPs=["203.0.113.2", "2001:db8:3::2"],
        ports=both(30099, port=NUMBER),
        status=vip,
    )
    own = [wanted, *slices("vip", [(net.local[1], "here", "ready")])]
    write(manifests, "1.yaml", *node_port_service(net))
    with pod("b", net.local[1]), program(net.node.space, manifests):
        for _ in range(2):
            write(manifests, "2.yaml", *own)
            for address in ("203.0.113.9", "2001:db8:3::9"):
                for protocol in ("TCP", "UDP"):
                    wait_for("b", _answers(net, protocol, address, "b"))
            for address in (FIRST, SECOND, FIRST6, SECOND6):
                assert _who(net, "TCP", address) == _who(net, "UDP", address) == "a"
            (manifests / "1.yaml").unlink()
            wait_for("close", _answers(net, "TCP", FIRST, REFUSED))
            write(manifests, "1.yaml", *node_port_service(net))
            wait_for("open", _answers(net, "TCP", FIRST, "a"))
            assert _who(net, "TCP", "203.0.113.9") == "b"
            (manifests / "2.yaml").unlink()
            wait_for("close", lambda: _who(net, "TCP", "203.0.113.9") != "b")


def _who(net: World, protocol: str, address: str) -> str:
    return ask(net.client.space, protocol, address, NUMBER, patience=0.5).split()[0]


def _answers(net: World, protocol: str, address: str, who: str) -> Callable[[], bool]:
    return lambda: _who(net, protocol, address) == who


def test_tcp_and_udp_on_one_port_go_their_own_ways(net: World, manifests: Path) -> None:
    with pod("a", net.local[0], 1053), pod("b", net.local[0], 2053):
        numbers = [
            {"name": "t", "port": 1053, "protocol": "TCP"},
            {"name": "u", "port": 2053, "protocol": "UDP"},
        ]
        web = service("web", ports=both(), clusterIPs=["203.0.113.1", "2001:db8:3::1"])
        places = [(net.local[0], "here", "ready")]
        write(manifests, "web.yaml", web, *slices("web", places, ports=numbers))
        with program(net.node.space, manifests):
            for address, port in (
                *((each, NUMBER) for each in (FIRST, SECOND6)),
                *((each, 80) for each in ("203.0.113.1", "2001:db8:3::1")),
            ):
                assert ask(net.client.space, "TCP", address, port).split()[0] == "a"
                assert ask(net.client.space, "UDP", address, port).split()[0] == "b"


class TestChanges:
    """Addresses that come and go, noticed at once: the next look is due only after 10 s."""

    @pytest.mark.parametrize("address", ["192.0.2.77", "2001:db8:1::77"])
    def test_of_interfaces(self, net: World, backend: Pod, manifests: Path, address: str) -> None:
        length = "64" if ":" in address else "24"
        write(manifests, "web.yaml", *node_port_service(net))
        options = ("--nodeport-addresses", "192.0.2.64/26,2001:db8:1::77/128")
        with program(net.node.space, manifests, *options) as uproxy:
            assert uproxy.status()["frontends"]
            net.node.space.ip(f"addr add {address}/{length} dev eth0 {_nodad(address)}")
            try:
                for protocol in ("TCP", "UDP"):
                    wait_for("service", _answers(net, protocol, address, "a"), patience=8)
            finally:
                net.node.space.ip(f"addr del {address}/{length} dev eth0")
            host = f"[{address}]" if ":" in address else address
            name = f"{host}:{NUMBER}/TCP"
            wait_for("its end", lambda: not uproxy.frontend(name), patience=8)

    def test_of_the_node_object(self, net: World, backend: Pod, manifests: Path) -> None:
        write(manifests, "node.yaml", node_object(FIRST, FIRST6))
        write(manifests, "web.yaml", *node_port_service(net))
        with program(net.node.space, manifests, "--nodeport-addresses", "primary"):
            assert _who(net, "TCP", FIRST) == _who(net, "UDP", FIRST6) == "a"
            assert _who(net, "TCP", SECOND) == REFUSED
            write(manifests, "node.yaml", node_object(SECOND, SECOND6))
            for address in (SECOND, SECOND6):
                for protocol in ("TCP", "UDP"):
                    wait_for("service", _answers(net, protocol, address, "a"), patience=8)
            assert _who(net, "TCP", FIRST) == REFUSED


def _nodad(address: str) -> str:
    return "nodad" if ":" in address else ""
