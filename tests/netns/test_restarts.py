"""The cases that Kubernetes calls disruptive: uproxy, the API server and the node end and come
back, and the Node object changes, disappears or has another name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.fake_api.kinds import NODES, SERVICES, SLICES
from tests.fake_api.kubeconfigs import write_kubeconfig
from tests.fake_api.threads import ThreadedApi
from tests.netns import kit
from tests.netns.kit import Place, World
from tests.netns.node import Node, program, service, slices, wait_for
from tests.netns.peers import REFUSED, RESET, Pod, ask, pod
from tests.netns.test_claims import claimed
from tests.netns.test_reserved import api_server

pytestmark = kit.needs("nft=nftables")

WEB, WEB6 = "203.0.113.10", "2001:db8:3::10"
OLD, NEW = "203.0.113.40", "203.0.113.41"
PODS = ("198.51.100.0/25", "2001:db8:2::/64")
"""What the Node says of its pods, unless a test is about that."""
PORTS = [
    {"name": "t", "port": 80, "protocol": "TCP"},
    {"name": "u", "port": 80, "protocol": "UDP"},
]


@pytest.fixture(scope="module")
def pods(net: World) -> Iterator[tuple[Pod, Pod]]:
    """One on this node, one on the other."""
    with pod("near", net.local[0]) as near, pod("far", net.remote[0]) as far:
        yield near, far


@pytest.fixture
def api(net: World) -> Iterator[ThreadedApi]:
    with api_server(net.client) as running:
        apply(running, node(net))
        yield running


def apply(api: ThreadedApi, *objects: dict[str, Any]) -> None:
    api.call(lambda server: server.apply(*objects))


def node(net: World, name: str = "here", pod_cidrs: tuple[str, ...] = PODS) -> dict[str, Any]:
    addresses = [{"type": "InternalIP", "address": each} for each in (net.node.ipv4, net.node.ipv6)]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name},
        "spec": {"podCIDRs": list(pod_cidrs)},
        "status": {"addresses": addresses},
    }


def web(*endpoints: tuple[Place, str, str], **spec: Any) -> list[dict[str, Any]]:
    """A Service of both families with a ClusterIP and a NodePort, and its endpoints."""
    fields: dict[str, Any] = {
        "type": "NodePort",
        "clusterIPs": [WEB, WEB6],
        "ports": [each | {"nodePort": 30080} for each in PORTS],
        **spec,
    }
    return [service("web", **fields), *slices("web", endpoints)]


def only_ip(net: World, name: str, address: str) -> list[dict[str, Any]]:
    """A Service that has one ClusterIP and no NodePort."""
    made = service(name, type="ClusterIP", clusterIPs=[address], ports=PORTS)
    return [made, *slices(name, [near(net)])]


def near(net: World) -> tuple[Place, str, str]:
    return net.local[0], "here", "ready"


def far(net: World) -> tuple[Place, str, str]:
    return net.remote[0], "there", "ready"


def following(
    net: World, api: ThreadedApi, directory: Path, *options: str, ready: bool = True
) -> AbstractContextManager[Node]:
    """uproxy on the node, which watches the cluster and keeps the last-known state on disk."""
    config = write_kubeconfig(directory / "kubeconfig", api.url)
    wanted = ("--state-dir", str(directory / "state"), *options)
    source = ["--kubeconfig", str(config)]
    return program(net.node.space, directory, *wanted, source=source, ready=ready)


def answers(net: World, address: str, port: int) -> set[str]:
    """The pods that answer at an address: a pod of this node, the node itself, and an outside
    client ask, over TCP and UDP."""
    places = (net.local[1], net.node, net.client)
    asked = [
        ask(place.space, protocol, address, port)
        for place in places
        for protocol in ("TCP", "UDP")
        for _ in range(2)
    ]
    return {each.split()[0] for each in asked}


def wait_until_served(net: World, address: str, name: str) -> None:
    """Claimed, then over TCP, then over UDP as well; to ask over UDP before takes long."""
    for what, served in (
        ("claim", lambda: address in claimed(net.node.space)),
        ("TCP", lambda: ask(net.client.space, "TCP", address, 80).split()[0] == name),
        ("all", lambda: answers(net, address, 80) == {name}),
    ):
        wait_for(f"{address}: {what}", served)


def assert_web_is_served_by(net: World, *names: str) -> None:
    """At its ClusterIPs and at its NodePort, in both families."""
    for address, port in ((WEB, 80), (WEB6, 80), (net.node.ipv4, 30080), (net.node.ipv6, 30080)):
        assert answers(net, address, port) == set(names), address


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
def test_uproxy_is_restarted(
    net: World, pods: tuple[Pod, Pod], api: ThreadedApi, tmp_path: Path, how: str
) -> None:
    """What has changed in the cluster meanwhile is served; what is gone has left nothing."""
    apply(api, *web(near(net)), *only_ip(net, "old", OLD), *only_ip(net, "stays", NEW))
    with following(net, api, tmp_path) as uproxy:
        assert_web_is_served_by(net, "near")
        assert answers(net, OLD, 80) == {"near"}
        if how == "SIGTERM":
            assert uproxy.stop() == 0
            assert claimed(net.node.space) == set()
        else:
            uproxy.kill()
            assert claimed(net.node.space) == {WEB, WEB6, OLD, NEW}
    apply(api, *web(far(net)))
    api.call(lambda server: server.delete(SERVICES, "old"))
    # The address of a deleted Service is soon that of another one.
    api.call(lambda server: server.delete(SERVICES, "stays"))
    apply(api, *only_ip(net, "other", NEW))
    with following(net, api, tmp_path):
        assert_web_is_served_by(net, "far")
        assert answers(net, NEW, 80) == {"near"}
        wait_for("release", lambda: claimed(net.node.space) == {WEB, WEB6, NEW})


def test_uproxy_is_killed_before_its_start_is_over(
    net: World, pods: tuple[Pod, Pod], api: ThreadedApi, tmp_path: Path
) -> None:
    """Wherever that happens, the next one serves, and nothing is left of those before it."""
    apply(api, *web(near(net)), *only_ip(net, "old", OLD))

    def lives(uproxy: Node) -> bool:
        return uproxy.get(uproxy.health, "/livez")[0] == 200

    def has_claimed(uproxy: Node) -> bool:
        return bool(claimed(net.node.space))

    def serves(uproxy: Node) -> bool:
        return ask(net.client.space, "TCP", WEB, 80).startswith("near")

    for what, reached in (("health", lives), ("claims", has_claimed), ("listeners", serves)):
        with following(net, api, tmp_path, ready=False) as uproxy:
            wait_for(what, lambda: reached(uproxy))  # noqa: B023
            uproxy.kill()
    api.call(lambda server: server.delete(SERVICES, "old"))
    with following(net, api, tmp_path) as uproxy:
        assert_web_is_served_by(net, "near")
        wait_for("release", lambda: claimed(net.node.space) == {WEB, WEB6})
        assert uproxy.stop() == 0
    assert claimed(net.node.space) == set()
    assert "uproxy" not in net.node.space.run("nft", "list", "ruleset")
    for flag in ("-4", "-6"):
        assert "lookup 117" not in net.node.space.run("ip", flag, "rule", "show")


def test_the_api_server_is_restarted(
    net: World, pods: tuple[Pod, Pod], api: ThreadedApi, tmp_path: Path
) -> None:
    """Services stay while it is away; those that are new afterwards are served."""
    apply(api, *web(near(net)))
    with following(net, api, tmp_path) as uproxy:
        assert_web_is_served_by(net, "near")
        api.stop()
        wait_for("it is noticed", lambda: "lost the cluster" in uproxy.log)
        assert_web_is_served_by(net, "near")
        assert uproxy.get(uproxy.health, "/healthz")[0] == 200
        api.server.store.delete(SLICES, ("default", "web-ipv4"))
        api.start()
        apply(api, *only_ip(net, "new", NEW))
        wait_until_served(net, NEW, "near")
        wait_for("the change", lambda: ask(net.client.space, "TCP", WEB, 80) == REFUSED)
        assert answers(net, WEB6, 80) == {"near"}
        assert uproxy.process.poll() is None


@pytest.mark.parametrize("reboot", [False, True], ids=["restart", "reboot"])
def test_uproxy_and_the_api_server_are_restarted(
    net: World, pods: tuple[Pod, Pod], api: ThreadedApi, tmp_path: Path, *, reboot: bool
) -> None:
    """As on a control-plane node, whose API server comes back after uproxy. A reboot leaves the
    files, and nothing in the kernel."""
    apply(api, *web(near(net)), *only_ip(net, "old", OLD))
    with following(net, api, tmp_path) as uproxy:
        state = tmp_path / "state"
        wait_for("the last-known state", lambda: state.exists() and any(state.iterdir()))
        assert answers(net, OLD, 80) == {"near"}
        uproxy.kill()
    api.stop()
    if reboot:
        net.node.space.run("ip", "route", "flush", "table", "local", "proto", "117")
        net.node.space.run("ip", "-6", "route", "flush", "table", "local", "proto", "117")
        assert claimed(net.node.space) == set()
    api.server.store.delete(SERVICES, ("default", "old"))
    with following(net, api, tmp_path) as uproxy:
        assert "serving the last-known state" in uproxy.get(uproxy.metrics, "/readyz")[1]
        assert_web_is_served_by(net, "near")
        assert answers(net, OLD, 80) == {"near"}
        with net.client.space.socket(kit.family_of(WEB), 1) as flow:
            flow.settimeout(15)
            flow.connect((WEB, 80))
            assert flow.recv(100).startswith(b"near")
            api.start()
            apply(api, *web(far(net)), *only_ip(net, "new", NEW))
            wait_until_served(net, NEW, "near")
            wait_for("release", lambda: claimed(net.node.space) == {WEB, WEB6, NEW})
            wait_until_served(net, WEB, "far")
            wait_until_served(net, WEB6, "far")
            assert_web_is_served_by(net, "far")
            flow.sendall(b"still here")
            assert flow.recv(100) == b"still here"


def test_another_pod_cidr(
    net: World, pods: tuple[Pod, Pod], api: ThreadedApi, tmp_path: Path
) -> None:
    """kube-proxy ends itself when it learns of that; here the next flow is decided by the new one.
    Policy Local shows who counts as a pod: outside clients are reset without an endpoint here."""
    pod_of_node = net.local[1]
    apply(api, *web(far(net), externalTrafficPolicy="Local"))
    # Without the client's address, which would come back another way when it counts as outside.
    with following(net, api, tmp_path, "--preserve-client-ip", "never") as uproxy:

        def from_pod(family: str) -> str:
            return ask(pod_of_node.space, "TCP", net.node.address(family), 30080).split()[0]

        assert (from_pod("IPv4"), from_pod("IPv6")) == ("far", "far")
        with pod_of_node.space.socket(kit.family_of(net.node.ipv4), 1) as flow:
            flow.settimeout(15)
            flow.connect((net.node.ipv4, 30080))
            assert flow.recv(100).startswith(b"far")
            apply(api, node(net, pod_cidrs=("10.244.7.0/24", PODS[1])))
            wait_for("the new one", lambda: from_pod("IPv4") == RESET)
            assert f"the pods of this node are in 10.244.7.0/24 and {PODS[1]} now" in uproxy.log
            assert from_pod("IPv6") == "far"
            assert ask(net.node.space, "TCP", net.node.ipv4, 30080).split()[0] == "far"
            apply(api, node(net))
            wait_for("the first one", lambda: from_pod("IPv4") == "far")
            flow.sendall(b"still here")
            assert flow.recv(100) == b"still here"
        assert uproxy.process.poll() is None
        assert uproxy.get(uproxy.health, "/healthz")[0] == 200


def test_pods_are_seen_with_their_own_addresses_as_the_pod_cidr_says(
    net: World, pods: tuple[Pod, Pod], api: ThreadedApi, tmp_path: Path
) -> None:
    pod_of_node = net.local[1]
    apply(api, *web(far(net)))
    with following(net, api, tmp_path):

        def seen(protocol: str) -> str:
            return ask(pod_of_node.space, protocol, WEB, 80)

        # From the first connection on, as a NetworkPolicy may let in nothing else.
        assert (seen("TCP"), seen("UDP")) == 2 * (f"far {pod_of_node.ipv4}",)
        for cidrs, address in (
            (PODS, pod_of_node.ipv4),
            (("10.244.7.0/24", PODS[1]), net.node.ipv4),
            (PODS, pod_of_node.ipv4),
        ):
            apply(api, node(net, pod_cidrs=cidrs))
            for protocol in ("TCP", "UDP"):
                wait_for(f"{cidrs}", lambda: seen(protocol) == f"far {address}")  # noqa: B023


def test_a_node_that_gets_another_address(
    net: World, pods: tuple[Pod, Pod], api: ThreadedApi, tmp_path: Path
) -> None:
    """The primary address moves, and NodePorts with it."""
    first, second = net.node.ipv4, net.second[0]
    apply(api, *web(near(net)))
    with following(net, api, tmp_path, "--nodeport-addresses", "primary") as uproxy:
        assert answers(net, first, 30080) == {"near"}
        moved = node(net)
        moved["status"]["addresses"] = [{"type": "InternalIP", "address": second}]
        apply(api, moved)
        wait_for("the new one", lambda: ask(net.client.space, "TCP", second, 30080) != REFUSED)
        wait_for("all", lambda: answers(net, second, 30080) == {"near"})
        assert answers(net, first, 30080) == {REFUSED}
        assert uproxy.process.poll() is None


def test_a_node_that_has_another_name(
    net: World, pods: tuple[Pod, Pod], api: ThreadedApi, tmp_path: Path
) -> None:
    """Services are served all the same, and what is said names the Node that is meant."""
    api.call(lambda server: server.delete(NODES, "here"))
    apply(api, node(net, "here.example"), *web(near(net), far(net)))
    with following(net, api, tmp_path) as uproxy:
        assert_web_is_served_by(net, "near", "far")
        assert uproxy.get(uproxy.health, "/healthz")[0] == 503
        assert uproxy.get(uproxy.health, "/livez")[0] == 200
        assert uproxy.status()["notHealthy"] == [
            "the cluster has no Node here, but here.example has an address of this machine:"
            " set the name with --hostname-override"
        ]
        assert "the cluster has no node here" in uproxy.log
        apply(api, node(net))
        wait_for("the Node", lambda: uproxy.get(uproxy.health, "/healthz")[0] == 200)


def test_the_node_is_deleted_and_comes_back(
    net: World, pods: tuple[Pod, Pod], api: ThreadedApi, tmp_path: Path
) -> None:
    """Its pods are still there, and so are its addresses; only load balancers go elsewhere."""
    pod_of_node = net.local[1]
    apply(api, *web(far(net), externalTrafficPolicy="Local"))
    options = ("--preserve-client-ip", "never", "--nodeport-addresses", "primary")
    with following(net, api, tmp_path, *options) as uproxy:

        def from_pod() -> str:
            return ask(pod_of_node.space, "TCP", net.node.ipv4, 30080).split()[0]

        def healthz() -> int:
            return uproxy.get(uproxy.health, "/healthz")[0]

        assert from_pod() == "far"
        api.call(lambda server: server.delete(NODES, "here"))
        wait_for("it is gone", lambda: healthz() == 503)
        # A change that comes after it is served by a later sync.
        apply(api, *only_ip(net, "new", NEW))
        wait_until_served(net, NEW, "near")
        assert from_pod() == "far"
        apply(api, node(net, pod_cidrs=("10.244.7.0/24",)))
        assert "the Node here was deleted" in uproxy.log
        wait_for("it is back", lambda: healthz() == 200)
        wait_for("with other pods", lambda: from_pod() == RESET)
        assert "the cluster has a Node here now" in uproxy.log
