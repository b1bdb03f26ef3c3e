"""Pods of this node that start, stop, or get another bridge while uproxy runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.netns import kit
from tests.netns.kit import PodNetwork, World, world
from tests.netns.node import Node, program, service, slices, wait_for, write
from tests.netns.peers import ask, pod
from uproxy.core.protocols import TCP, UDP

pytestmark = kit.needs("nft=nftables")

CLUSTER = ("--cluster-cidr", ",".join(kit.PODS))
ADDRESSES = {"IPv4": "203.0.113.1", "IPv6": "2001:db8:3::1"}
BOTH: dict[str, Any] = {
    "clusterIPs": list(ADDRESSES.values()),
    "ipFamilies": list(ADDRESSES),
    "ipFamilyPolicy": "RequireDualStack",
}
PORTS = [{"name": each[0].lower(), "port": 80, "protocol": each} for each in (TCP, UDP)]
SAME = [(protocol, family) for protocol in (TCP, UDP) for family in ADDRESSES]


@contextmanager
def serving(net: World, directory: Path) -> Iterator[Node]:
    """A Service with one backend, the second pod of this node."""
    put(net, directory)
    with (
        pod("b", net.local[1]),
        program(net.node.space, directory, *CLUSTER, "--udp-timeout", "2s") as uproxy,
    ):
        yield uproxy


def put(net: World, directory: Path, *places: int) -> None:
    backends = [(net.local[each], "here", "ready") for each in places or (1,)]
    write(directory, "web.yaml", service("web", ports=PORTS, **BOTH), *slices("web", backends))


def seen(net: World) -> set[tuple[str, str]]:
    """Whose address the backend sees of the first pod: "pod" or "node", by family."""
    caller, found = net.local[0], set()
    for protocol, family in SAME:
        address = ask(caller.space, protocol, ADDRESSES[family], 80).split()[-1]
        found.add((family, "pod" if address == caller.address(family) else "node"))
    return found


def shown(uproxy: Node) -> set[str]:
    return {each["clientAddress"] for each in uproxy.status()["frontends"]}


ALL = {("IPv4", "pod"), ("IPv6", "pod")}
NONE = {("IPv4", "node"), ("IPv6", "node")}


def rules(net: World) -> str:
    return net.node.space.run("nft", "--stateless", "list", "ruleset")


def forget_neighbours(net: World) -> None:
    """Or pods would send to the address that the bridge had, for up to half a minute."""
    for each in net.local:
        each.space.ip("neigh flush dev eth0")


def test_a_pod_that_starts_later(manifests: Path) -> None:
    """Its routes appear; when they go, it is a pod of another node's for all that is known."""
    with world(local=2, remote=0, pods=PodNetwork.PTP) as net:
        caller = net.local[0]
        routes = [f"{caller.ipv4} dev veth0 scope host", f"{caller.ipv6} dev veth0"]
        default = [f"{caller.ipv4} dev veth0 table 100", f"{caller.ipv6} dev veth0 table 100"]
        # Where the node finds the pod meanwhile.
        net.node.space.ip(*(f"route add {each}" for each in default))
        for version in ("", "-6 "):
            net.node.space.run(*f"ip {version}rule add lookup 100 priority 40000".split())
        net.node.space.ip(*(f"route del {each}" for each in routes))
        with serving(net, manifests):
            assert seen(net) == NONE
            net.node.space.ip(*(f"route add {each}" for each in routes))
            wait_for("the pod to be known", lambda: seen(net) == ALL)
            net.node.space.ip(*(f"route del {each}" for each in routes))
            wait_for("the pod to be forgotten", lambda: seen(net) == NONE)


def test_a_bridge_that_is_created_again(manifests: Path) -> None:
    with world(local=2, remote=0) as net, serving(net, manifests) as uproxy:
        assert seen(net) == ALL
        node, gateways = net.node.space, ("198.51.100.1/25", "2001:db8:2::1/64")
        node.ip("link del cbr0")
        # The rules stay as long as there may be flows.
        wait_for("the bridge to be forgotten", lambda: shown(uproxy) == {"node"})
        node.ip(
            "link add cbr0 address 02:00:00:00:00:99 type bridge forward_delay 0",
            "link set cbr0 up",
            f"addr add {gateways[0]} dev cbr0",
            f"addr add {gateways[1]} dev cbr0 nodad",
            "link set veth0 master cbr0",
            "link set veth1 master cbr0",
        )
        forget_neighbours(net)
        wait_for("the other bridge", lambda: "02:00:00:00:00:99" in rules(net))
        wait_for("the pod to be seen", lambda: seen(net) == ALL)
        # And once more, while it is in use.
        node.ip("link set cbr0 address 02:00:00:00:00:98")
        wait_for("its other address", lambda: "02:00:00:00:00:99" not in rules(net))
        forget_neighbours(net)
        assert seen(net) == ALL


def test_backends_of_the_bridge_that_come_and_go(manifests: Path) -> None:
    """No flow is lost in between, whoever the backends are."""
    with world(local=3, remote=0) as net, serving(net, manifests), pod("c", net.local[2]):
        assert seen(net) == ALL
        put(net, manifests, 2)
        wait_for(
            "the other backend",
            lambda: ask(net.local[0].space, TCP, ADDRESSES["IPv4"], 80)[0] == "c",
        )
        assert seen(net) == ALL
        (manifests / "web.yaml").unlink()
        wait_for("the rules to go", lambda: rules(net) == "", patience=40)


def test_killed(manifests: Path) -> None:
    """What it leaves is taken over, removed by the next one if there is no Service, or removed by
    `uproxy cleanup`."""
    with world(local=2, remote=0) as net:
        with serving(net, manifests) as uproxy:
            assert seen(net) == ALL
            before = rules(net)
            uproxy.kill()
        assert rules(net) == before, "a killed process removes nothing"
        with serving(net, manifests) as uproxy:
            assert seen(net) == ALL
            assert rules(net) == before
            uproxy.kill()
        (manifests / "web.yaml").unlink()
        with program(net.node.space, manifests, *CLUSTER):
            wait_for("the leftovers to go", lambda: rules(net) == "")
        with serving(net, manifests) as uproxy:
            uproxy.kill()
        assert "table bridge uproxy" in rules(net)
        printed = net.node.space.run(sys.executable, "-m", "uproxy.cli", "cleanup")
        assert "nftables table bridge uproxy" in printed
        assert rules(net) == ""


def test_stopped(manifests: Path) -> None:
    with world(local=2, remote=0) as net:
        with serving(net, manifests) as uproxy:
            assert "table bridge uproxy" in rules(net)
            assert uproxy.stop() == 0
        assert rules(net) == ""


def test_flushed_rules_are_restored(manifests: Path) -> None:
    with world(local=2, remote=0) as net, serving(net, manifests) as uproxy:
        net.node.space.run("nft", "flush", "ruleset")
        # Served all the same, from whatever address.
        assert {family for family, _ in seen(net)} == set(ADDRESSES)
        wait_for("the rules", lambda: "table bridge uproxy" in rules(net), patience=40)
        wait_for("the pod to be seen", lambda: seen(net) == ALL, patience=40)
        assert shown(uproxy) == {"pods"}


@pytest.mark.parametrize("pods", [PodNetwork.BRIDGE, PodNetwork.PTP])
def test_without_the_privilege(manifests: Path, pods: PodNetwork) -> None:
    """Pods are served, and the status says why the backend sees the node."""
    unprivileged = ("setpriv", "--bounding-set", "-net_admin,-net_raw", "--")
    families = {each: value for each, value in BOTH.items() if each != "clusterIPs"}
    ports = [each | {"nodePort": 30080} for each in PORTS]
    made = service("web", ports=ports, externalTrafficPolicy="Local", **families)
    with world(local=2, remote=0, pods=pods) as net:
        write(manifests, "web.yaml", made, *slices("web", [(net.local[1], "here", "ready")]))
        with (
            pod("b", net.local[1]),
            program(net.node.space, manifests, *CLUSTER, wrapper=unprivileged) as uproxy,
        ):
            assert ask(net.local[0].space, TCP, net.node.ipv4, 30080) == "b 198.51.100.1"
            frontends = uproxy.status()["frontends"]
            told = {(each["clientAddress"], each["clientAddressReason"]) for each in frontends}
            assert told == {("node", "needs CAP_NET_ADMIN")}
            assert rules(net) == ""
