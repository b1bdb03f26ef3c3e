"""Which chains of a node's own firewall see the packets of Services, as docs/addresses.md says.

kube-proxy translates addresses before the routing decision, so its packets are forwarded. Here the
client's connection ends on the node, and another one begins there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.netns import kit
from tests.netns.kit import Namespace, Place, World
from tests.netns.node import program, service, slices, write
from tests.netns.peers import SILENCE, ask, pod

pytestmark = kit.needs("nft=nftables")

CLUSTER_IPS: Final = {"IPv4": "203.0.113.1", "IPv6": "2001:db8:3::1"}
HOOKS: Final = ("input", "forward", "output")
ESTABLISHED: Final = "rule inet host input ct state established,related accept"
NEIGHBOURS: Final = "rule inet host input meta l4proto icmpv6 accept"
"""IPv6 finds its neighbours through these."""


@pytest.fixture(scope="module")
def serving(net: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Services "near" and "far", each with a NodePort, and with a backend here or on the other
    node."""
    directory: Path = tmp_path_factory.mktemp("firewalls") / "manifests"
    directory.mkdir()
    backends = {"near": (net.local[0], "here"), "far": (net.remote[0], "there")}
    for number, (name, (place, node)) in enumerate(backends.items()):
        ports = [
            {"name": protocol[0].lower(), "port": 80 + number, "protocol": protocol}
            | {"nodePort": 30080 + number}
            for protocol in ("TCP", "UDP")
        ]
        addresses = list(CLUSTER_IPS.values())
        wanted = service(name, type="NodePort", clusterIPs=addresses, ports=ports)
        write(directory, f"{name}.yaml", wanted, *slices(name, [(place, node, "ready")]))
    options = ("--cluster-cidr", ",".join(kit.PODS))
    with (
        pod("near", net.local[0]),
        pod("far", net.remote[0]),
        program(net.node.space, directory, *options),
    ):
        yield


@contextmanager
def firewall(space: Namespace, *lines: str) -> Iterator[None]:
    """A table of the node's own, with lines of nft(8) after "add"."""
    space.run("nft", "; ".join(["add table inet host", *(f"add {line}" for line in lines)]))
    try:
        yield
    finally:
        space.run("nft", "delete table inet host")


def chain(hook: str, policy: str = "accept") -> str:
    return f"chain inet host {hook} {{ type filter hook {hook} priority 0; policy {policy}; }}"


def counting() -> list[str]:
    """Chains that count what comes and goes by other interfaces than lo."""
    lines = []
    for hook in HOOKS:
        side = "oifname" if hook == "output" else "iifname"
        lines += [chain(hook)]
        lines += [f'rule inet host {hook} {side} != "lo" meta l4proto {{ tcp, udp }} counter']
    return lines


def seen(space: Namespace) -> set[str]:
    """The chains through which packets have come."""
    listed: dict[str, Any] = json.loads(space.run("nft", "-j", "list", "table", "inet", "host"))
    return {
        each["rule"]["chain"]
        for each in listed["nftables"]
        if "rule" in each
        for part in each["rule"]["expr"]
        if part.get("counter", {}).get("packets")
    }


def callers(net: World) -> dict[str, Place]:
    return {"a pod of this node": net.local[1], "outside": net.client}


@pytest.mark.usefixtures("serving")
@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
@pytest.mark.parametrize(("backend", "number"), [("near", 0), ("far", 1)])
@pytest.mark.parametrize("caller", ["a pod of this node", "outside"])
def test_packets_come_in_and_go_out_and_none_is_forwarded(
    net: World, caller: str, backend: str, number: int, protocol: str, family: str
) -> None:
    space = callers(net)[caller].space
    for address, port in (
        (CLUSTER_IPS[family], 80 + number),
        (net.node.address(family), 30080 + number),
    ):
        with firewall(net.node.space, *counting()):
            assert ask(space, protocol, address, port).split()[0] == backend
            assert seen(net.node.space) == {"input", "output"}, address


@pytest.mark.usefixtures("serving")
@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
def test_what_an_input_chain_has_to_let_in(net: World, protocol: str, family: str) -> None:
    """The Services' own ports, and replies. The ClusterIPs are let in for pods in one line."""
    kind = "ip6" if family == "IPv6" else "ip"
    service_network = f"rule inet host input {kind} daddr {CLUSTER_IPS[family]} accept"
    node_ports = f"rule inet host input {protocol.lower()} dport 30000-32767 accept"
    closed = [chain("input", "drop"), ESTABLISHED, NEIGHBOURS, service_network]
    node = net.node.address(family)
    with firewall(net.node.space, *closed):
        for number, backend in enumerate(("near", "far")):
            answer = ask(net.local[1].space, protocol, CLUSTER_IPS[family], 80 + number)
            assert answer.split()[0] == backend
        assert ask(net.client.space, protocol, node, 30080, patience=0.5) == SILENCE
    with firewall(net.node.space, *closed, node_ports):
        for number, backend in enumerate(("near", "far")):
            answer = ask(net.client.space, protocol, node, 30080 + number)
            assert answer.split()[0] == backend


@pytest.mark.usefixtures("serving")
def test_node_ports_on_loopback_need_no_sysctl(net: World) -> None:
    name = "net.ipv4.conf.all.route_localnet"
    assert net.node.space.run("sysctl", "-n", name).strip() == "0"
    for protocol in ("TCP", "UDP"):
        assert ask(net.node.space, protocol, "127.0.0.1", 30080).split()[0] == "near"
