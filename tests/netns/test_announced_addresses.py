"""Addresses that move from node to node: listeners are open before this node has them, and nothing
else is served there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.netns import kit
from tests.netns.kit import World
from tests.netns.node import program, service, slices, wait_for, write
from tests.netns.peers import REFUSED, Pod, ask, pod
from tests.netns.test_claims import claimed
from uproxy.core.cluster.load_balancer import ASSIGNED
from uproxy.host import announced_addresses

pytestmark = kit.needs()

VIP, VIP6 = "203.0.113.201", "2001:db8:3::201"
POOL = "203.0.113.200/29,2001:db8:3::200/120"
"""In no subnet of the node, so that nothing but the test puts them on an interface."""
CLUSTER_IP, CLUSTER_IP6 = "203.0.113.10", "2001:db8:3::10"
NODE_PORT = 30090


@pytest.fixture(scope="module")
def backend(net: World) -> Iterator[Pod]:
    with pod("a", net.local[0]) as running:
        yield running


def web(net: World, state: str = "ready", **spec: Any) -> list[dict[str, Any]]:
    """A Service to which both addresses have been assigned, and its endpoint."""
    made = service(
        "web",
        type="LoadBalancer",
        clusterIPs=[CLUSTER_IP, CLUSTER_IP6],
        ports=[
            {"name": "t", "port": 80, "protocol": "TCP", "nodePort": NODE_PORT},
            {"name": "u", "port": 80, "protocol": "UDP"},
        ],
        status={"loadBalancer": {"ingress": [{"ip": VIP}, {"ip": VIP6, "ipMode": "Proxy"}]}},
        **spec,
    )
    made["metadata"]["annotations"] = {ASSIGNED: f"{VIP},{VIP6}"}
    return [made, *slices("web", [(net.local[0], "here", state)])]


def put(net: World, *addresses: str) -> None:
    with net.node.space.inside():
        assert announced_addresses.put(dict.fromkeys(addresses, "lo"), lifetime=600) == {}


def take(net: World, *addresses: str) -> None:
    with net.node.space.inside():
        assert announced_addresses.remove(dict.fromkeys(addresses, "lo")) == {}


@pytest.fixture
def gone_at_the_end(net: World) -> Iterator[None]:
    """A test may leave both addresses on the node. It puts them there while uproxy runs, since that
    takes off whatever an earlier process has left."""
    yield
    take(net, VIP, VIP6)


def test_listeners_are_open_before_the_address_is_there(
    net: World, backend: Pod, manifests: Path
) -> None:
    write(manifests, "web.yaml", *web(net))
    with program(net.node.space, manifests, "--lb", "pools", "--lb-pool", POOL) as uproxy:
        assert claimed(net.node.space) == {CLUSTER_IP, CLUSTER_IP6}
        listening = net.node.space.run("ss", "-Hltn", "sport", "=", ":80")
        assert VIP in listening
        assert VIP6 in listening
        for _ in range(2):
            put(net, VIP, VIP6)
            for address in (VIP, VIP6):
                for protocol in ("TCP", "UDP"):
                    for place in (net.client, net.node, net.local[1]):
                        answer = ask(place.space, protocol, address, 80)
                        assert answer.startswith("a "), (address, protocol, place)
            take(net, VIP, VIP6)
        assert net.node.space.run("ss", "-Hltn", "sport", "=", ":80") == listening
        assert uproxy.get(10256, "/readyz")[0] == 200


@pytest.mark.parametrize("engine", ["auto", "never"])
@pytest.mark.parametrize("address", [VIP, VIP6])
def test_flows_go_on_when_the_address_comes_back(
    net: World, backend: Pod, manifests: Path, gone_at_the_end: None, address: str, engine: str
) -> None:
    """A control process that is restarted may lose the address for a moment. What is sent then
    is lost, and TCP sends it again."""
    write(manifests, "web.yaml", *web(net))
    options = ("--lb", "pools", "--lb-pool", POOL, "--io-uring", engine)
    with program(net.node.space, manifests, *options) as uproxy:
        put(net, address)
        tcp, udp = (net.client.space.socket(kit.family_of(address), kind) for kind in (1, 2))
        with tcp, udp:
            for sock in (tcp, udp):
                sock.settimeout(15)
                sock.connect((address, 80))
            udp.send(b"1")
            assert udp.recv(100).startswith(b"a ")
            assert tcp.recv(100).startswith(b"a ")
            take(net, address)
            tcp.send(b"while it is away")
            with contextlib.suppress(OSError):
                udp.send(b"2")
            put(net, address)
            assert tcp.recv(100) == b"while it is away"
            with contextlib.suppress(OSError):  # What became of the datagram.
                udp.send(b"3")
            wait_for("an answer", lambda: ask(net.client.space, "UDP", address, 80) != REFUSED)
        assert "unexpected" not in uproxy.log


def test_without_endpoints_clients_are_refused_and_listeners_stay(
    net: World, backend: Pod, manifests: Path, gone_at_the_end: None
) -> None:
    write(manifests, "web.yaml", *web(net, "dead"))
    with program(net.node.space, manifests, "--lb", "pools", "--lb-pool", POOL):
        put(net, VIP)
        for protocol in ("TCP", "UDP"):
            assert ask(net.client.space, protocol, VIP, 80) == REFUSED
        write(manifests, "web.yaml", *web(net))
        wait_for("answer", lambda: ask(net.client.space, "TCP", VIP, 80) != REFUSED)
        wait_for("answer", lambda: ask(net.client.space, "UDP", VIP, 80) != REFUSED)


def test_what_the_node_itself_sends_counts_as_its_own(
    net: World, backend: Pod, manifests: Path, gone_at_the_end: None
) -> None:
    """Its source is the announced address, which is in none of the ranges. As with kube-proxy, an
    allowed node may use it all the same."""
    local = {"externalTrafficPolicy": "Local"}
    allowed = [f"{net.node.ipv4}/32", f"{net.node.ipv6}/128"]
    there_only = slices("web", [(net.local[0], "there", "ready")])
    made, *_ = web(net, loadBalancerSourceRanges=allowed, **local)
    write(manifests, "web.yaml", made, *there_only)
    with program(net.node.space, manifests, "--lb", "pools", "--lb-pool", POOL):
        put(net, VIP, VIP6)
        for address in (VIP, VIP6):
            # Not at once: the kernel has its route to a new IPv6 address made by a work queue.
            wait_for("a", lambda: ask(net.node.space, "TCP", address, 80).startswith("a "))  # noqa: B023
            assert not ask(net.client.space, "TCP", address, 80).startswith("a ")


def test_no_node_port_opens_and_no_external_ip_is_allowed_there(
    net: World, backend: Pod, manifests: Path, gone_at_the_end: None
) -> None:
    """The other address on lo shows that such addresses are followed at all."""
    plain = "203.0.113.99"
    extra = service(
        "extra",
        clusterIPs=["203.0.113.11"],
        ports=[{"name": "t", "port": 81, "protocol": "TCP"}],
        externalIPs=[VIP, plain],
    )
    write(manifests, "web.yaml", *web(net), extra, *slices("extra", []))
    options = ["--nodeport-addresses", "203.0.113.0/24,2001:db8:3::/64", "--lb-pool", POOL]
    with program(net.node.space, manifests, "--lb", "pools", *options) as uproxy:
        put(net, VIP, VIP6)
        net.node.space.ip(f"addr add {plain}/32 dev lo")
        try:
            wait_for("NodePort", lambda: uproxy.frontend(f"{plain}:{NODE_PORT}/TCP"))
            wait_for("externalIP", lambda: uproxy.frontend(f"{plain}:81/TCP"))
            assert not uproxy.frontend(f"{VIP}:{NODE_PORT}/TCP")
            assert not uproxy.frontend(f"[{VIP6}]:{NODE_PORT}/TCP")
            assert not uproxy.frontend(f"{VIP}:81/TCP")
            assert any(VIP in reason for reason in uproxy.reasons("extra"))
            assert VIP in net.node.space.addresses()
        finally:
            net.node.space.ip(f"addr del {plain}/32 dev lo")


def test_a_program_that_has_the_port_everywhere_is_named_as_such(
    net: World, backend: Pod, manifests: Path, gone_at_the_end: None
) -> None:
    write(manifests, "web.yaml", *web(net))
    with net.node.space.socket(kit.family_of(VIP), 1) as other:
        other.bind(("0.0.0.0", 80))
        other.listen()
        options = ("--lb", "pools", "--lb-pool", POOL)
        with program(net.node.space, manifests, *options, ready=False) as uproxy:
            wait_for("status", lambda: uproxy.get(10249, "/api/v1/routes")[0] == 200)
            wait_for("state", lambda: uproxy.frontend(f"{VIP}:80/TCP").get("state") == "failed")
            reason = uproxy.frontend(f"{VIP}:80/TCP")["reason"]
            assert reason.endswith("another process, which listens at every address of this node")
