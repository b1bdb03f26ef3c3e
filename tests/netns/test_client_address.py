"""Which address pods see: the client's own, with externalTrafficPolicy Local."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.netns import kit
from tests.netns.kit import Namespace, World
from tests.netns.node import Node, program, service, slices, wait_for, write
from tests.netns.peers import Pod, ask, pod

pytestmark = kit.needs("nft=nftables")

BOTH_FAMILIES: dict[str, Any] = {
    "ipFamilies": ["IPv4", "IPv6"],
    "ipFamilyPolicy": "RequireDualStack",
}
PORTS = [
    {"name": "t", "port": 80, "nodePort": 30080, "protocol": "TCP"},
    {"name": "u", "port": 80, "nodePort": 30080, "protocol": "UDP"},
]


def web(**spec: Any) -> dict[str, Any]:
    return service("web", ports=PORTS, **BOTH_FAMILIES, **spec)


class Served(NamedTuple):
    uproxy: Node
    pods: tuple[Pod, Pod]
    """On this node."""


@contextmanager
def serving(net: World, directory: Path, *options: str, **spec: Any) -> Iterator[Served]:
    """A Service with two pods here and one elsewhere, at NodePort 30080."""
    places = [(net.local[0], "here", "ready"), (net.local[1], "here", "ready")]
    places.append((net.remote[0], "there", "ready"))
    spec = {"externalTrafficPolicy": "Local"} | spec
    write(directory, "web.yaml", web(**spec), *slices("web", places))
    with (
        pod("a", net.local[0]) as a,
        pod("b", net.local[1]) as b,
        pod("far", net.remote[0]),
        program(net.node.space, directory, *options) as uproxy,
    ):
        yield Served(uproxy, (a, b))


def kernel_state(space: Namespace) -> str:
    """Everything that may be ours there."""
    listings = [space.run("nft", "list", "ruleset")]
    for flag in ("-4", "-6"):
        rules = space.run("ip", flag, "rule", "show").splitlines()
        listings += [rule for rule in rules if rule.startswith(("116:", "117:"))]
        listings.append(space.run("ip", flag, "route", "show", "table", "117", check=False))
    return "".join(listings)


@pytest.fixture(scope="class")
def served(net: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("manifests")
    with serving(net, directory, "--cluster-cidr", "198.51.100.0/24,2001:db8:2::/63") as made:
        yield made


@contextmanager
def port_range(space: Namespace, wanted: str) -> Iterator[None]:
    """Other ephemeral ports for a while."""
    name = "net.ipv4.ip_local_port_range"
    before = space.run("sysctl", "-n", name).strip()
    space.run("sysctl", "-q", f"{name}={wanted}")
    try:
        yield
    finally:
        space.run("sysctl", "-q", f"{name}={before}")


class TestPreserved:
    @pytest.mark.parametrize("protocol", ["TCP", "UDP"])
    @pytest.mark.parametrize("family", ["IPv4", "IPv6"])
    def test_a_client_from_outside(
        self, net: World, served: Served, family: str, protocol: str
    ) -> None:
        address = net.node.address(family)
        answers = {ask(net.client.space, protocol, address, 30080) for _ in range(4)}
        client = net.client.address(family)
        assert answers == {f"a {client}", f"b {client}"}

    @pytest.mark.parametrize("protocol", ["TCP", "UDP"])
    @pytest.mark.parametrize("family", ["IPv4", "IPv6"])
    def test_this_node_and_pods_are_not_outside(
        self, net: World, served: Served, family: str, protocol: str
    ) -> None:
        """They get the cluster set. It sees pods of this node as they are, except for the pod that
        calls itself, and otherwise the node."""
        for place in (net.node, net.local[0], net.remote[0]):
            answers = dict(
                ask(place.space, protocol, net.node.address(family), 30080).split()
                for _ in range(3)
            )
            assert answers.keys() == {"a", "b", "far"}
            assert net.client.address(family) not in answers.values()
            if place is not net.node:
                shown = {name for name, seen in answers.items() if seen == place.address(family)}
                assert shown == ({"b", "far"} if place is net.local[0] else set())

    @pytest.mark.parametrize("family", ["IPv4", "IPv6"])
    def test_much_data_both_ways(self, net: World, served: Served, family: str) -> None:
        """More than fits into buffers: acknowledgements and windows travel over the same way."""
        data = bytes(range(256)) * 8192
        with net.client.space.socket(kit.family_of(net.node.address(family)), 1) as sock:
            sock.settimeout(20)
            sock.connect((net.node.address(family), 30080))
            received = bytearray()
            with sock.makefile("rb") as answer:
                assert answer.readline().split()[1].decode() == net.client.address(family)
                for start in range(0, len(data), 65536):
                    sock.sendall(data[start : start + 65536])
                    received += answer.read(65536)
        assert received == data

    def test_the_status_says_so(self, net: World, served: Served) -> None:
        status = served.uproxy.status()
        assert {each["clientAddress"] for each in status["frontends"]} == {"preserved"}
        assert status["clientAddressReason"] == ""
        ask(net.client.space, "TCP", net.node.ipv4, 30080)
        assert {each["counts"]["masqueraded"] for each in status["frontends"]} == {0}


@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
@pytest.mark.parametrize(
    ("options", "spec", "reason"),
    [
        pytest.param(
            ("--preserve-client-ip", "never"),
            {},
            "switched off by --preserve-client-ip never",
            id="never",
        ),
        pytest.param((), {"externalTrafficPolicy": "Cluster"}, "", id="policy Cluster"),
    ],
)
def test_the_node_address(
    net: World,
    manifests: Path,
    options: tuple[str, ...],
    spec: dict[str, Any],
    reason: str,
    family: str,
    protocol: str,
) -> None:
    with serving(net, manifests, *options, **spec) as served:
        answer = ask(net.client.space, protocol, net.node.address(family), 30080)
        assert net.client.address(family) not in answer
        status = served.uproxy.status()
        assert {each["clientAddress"] for each in status["frontends"]} == {"node"}
        assert status["clientAddressReason"] == reason


def test_set_up_with_the_first_service_that_wants_it(net: World, manifests: Path) -> None:
    """And taken away with the last; flows in between see whose address they were promised."""
    before = kernel_state(net.node.space)
    options = ("--udp-timeout", "2s")
    with serving(net, manifests, *options, externalTrafficPolicy="Cluster") as served:
        assert kernel_state(net.node.space) == before == ""
        pods = [(net.local[0], "here", "ready")]

        def switch(policy: str, wanted: str) -> None:
            write(manifests, "web.yaml", web(externalTrafficPolicy=policy), *slices("web", pods))
            status = served.uproxy.status
            wait_for(
                policy,
                lambda: {each["clientAddress"] for each in status()["frontends"]} == {wanted},
            )
            address = net.client.ipv4 if wanted == "preserved" else "198.51.100.1"
            for protocol in ("TCP", "UDP"):
                # What is shown can be said some milliseconds before workers have the new route.
                wait_for(
                    f"{policy}, {protocol}",
                    lambda: (
                        ask(net.client.space, protocol, net.node.ipv4, 30080)  # noqa: B023
                        == f"a {address}"
                    ),
                )

        switch("Local", "preserved")
        assert "socket transparent" in kernel_state(net.node.space)
        switch("Cluster", "node")
        wait_for("removal", lambda: kernel_state(net.node.space) == "", patience=40)
        assert served.uproxy.status()["clientAddressReason"] == ""


def test_without_the_privilege(net: World, manifests: Path) -> None:
    """The flow works all the same, and the status says why pods see the node."""
    unprivileged = ("setpriv", "--bounding-set", "-net_admin,-net_raw", "--")
    with serving(net, manifests) as served:
        assert served.uproxy.stop() == 0
    places = [(net.local[0], "here", "ready")]
    write(manifests, "web.yaml", web(externalTrafficPolicy="Local"), *slices("web", places))
    with (
        pod("a", net.local[0]),
        program(net.node.space, manifests, wrapper=unprivileged) as uproxy,
    ):
        answer = ask(net.client.space, "TCP", net.node.ipv4, 30080)
        assert answer == "a 198.51.100.1"
        status = uproxy.status()
        assert status["clientAddressReason"] == "needs CAP_NET_ADMIN"
        assert {each["clientAddress"] for each in status["frontends"]} == {"node"}
        assert kernel_state(net.node.space) == ""


def test_clean_stop_leaves_nothing(net: World, manifests: Path) -> None:
    with serving(net, manifests) as served:
        assert "socket transparent" in kernel_state(net.node.space)
        assert served.uproxy.stop() == 0
    assert kernel_state(net.node.space) == ""


def test_kill_and_restart(net: World, manifests: Path) -> None:
    with serving(net, manifests) as served:
        before = kernel_state(net.node.space)
        served.uproxy.kill()
    assert kernel_state(net.node.space) == before, "a killed process removes nothing"
    with serving(net, manifests) as served:
        for family in ("IPv4", "IPv6"):
            for protocol in ("TCP", "UDP"):
                answer = ask(net.client.space, protocol, net.node.address(family), 30080)
                assert answer.split()[1] == net.client.address(family)
        assert kernel_state(net.node.space) == before
        assert served.uproxy.stop() == 0
    assert kernel_state(net.node.space) == ""


@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_replies_that_go_astray(net: World, manifests: Path, family: str) -> None:
    """Another program flushes the rules while uproxy runs: new TCP flows fall back to the node's
    address, one by one, and are counted."""
    with serving(net, manifests) as served:
        net.node.space.run("nft", "flush", "ruleset")
        answer = ask(net.client.space, "TCP", net.node.address(family), 30080)
        assert answer.split()[0] in ("a", "b")
        assert net.client.address(family) not in answer
        frontend = next(each["frontend"] for each in served.uproxy.status()["frontends"])

        def counted() -> bool:
            return bool(served.uproxy.counts(frontend)["masqueraded"])

        wait_for("the flow to be counted", counted)


@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_pods_are_seen_again_when_the_rules_are_repaired(
    net: World, manifests: Path, family: str
) -> None:
    """No flow of theirs fails meanwhile, and what was found astray then does not stay so."""
    place, node = net.local[2], net.node.address(family)
    seen = f"far {place.address(family)}"
    options = ("--cluster-cidr", "198.51.100.0/24,2001:db8:2::/63")
    write(manifests, "web.yaml", web(externalTrafficPolicy="Local"))
    write(manifests, "slices.yaml", *slices("web", [(net.remote[0], "there", "ready")]))
    with pod("far", net.remote[0]), program(net.node.space, manifests, *options):
        wait_for("the pod is seen", lambda: ask(place.space, "TCP", node, 30080) == seen)
        net.node.space.run("nft", "flush", "ruleset")
        assert ask(place.space, "TCP", node, 30080).startswith("far ")
        wait_for("the pod is seen again", lambda: ask(place.space, "TCP", node, 30080) == seen, 40)


def test_a_pod_in_the_host_network(net: World, manifests: Path) -> None:
    """It would reply to the client directly, from another connection's point of view."""
    places = [(net.node, "here", "ready")]
    write(manifests, "web.yaml", web(externalTrafficPolicy="Local"), *slices("web", places))
    with pod("host", net.node), program(net.node.space, manifests):
        for family in ("IPv4", "IPv6"):
            for protocol in ("TCP", "UDP"):
                answer = ask(net.client.space, protocol, net.node.address(family), 30080)
                assert answer.split()[0] == "host"


@pytest.mark.parametrize("marks_count", [0, 1])
@pytest.mark.parametrize("strict", [0, 1])
def test_reverse_path_filters(net: World, manifests: Path, strict: int, marks_count: int) -> None:
    """Linux forgets none of them: Debian is strict, wg-quick(8) has marks count."""
    conf = "ipv4/conf/all/"
    try:
        net.node.space.write_sysctls(
            {conf + "rp_filter": strict, conf + "src_valid_mark": marks_count}
        )
        with serving(net, manifests):
            for protocol in ("TCP", "UDP"):
                answer = ask(net.client.space, protocol, net.node.ipv4, 30080)
                assert answer.split()[1:] == [net.client.ipv4]
    finally:
        net.node.space.write_sysctls({conf + "rp_filter": 0, conf + "src_valid_mark": 0})


@pytest.mark.parametrize(("family", "kind"), [("IPv4", "ipv4"), ("IPv6", "ipv6")])
def test_reverse_path_filter_of_firewalld(
    net: World, manifests: Path, family: str, kind: str
) -> None:
    """It is on unless IPv6_rpfilter is "no", takes the mark into account, and comes after our
    chain. (firewalld has it for IPv6 only.)"""
    node = net.node.space
    for line in (
        "table inet host",
        "chain inet host filter_PREROUTING { type filter hook prerouting priority filter + 10; }",
        "rule inet host filter_PREROUTING icmpv6 type { nd-router-advert, nd-neighbor-solicit,"
        " nd-neighbor-advert } accept",
        f"rule inet host filter_PREROUTING meta nfproto {kind}"
        " fib saddr . mark . iif oif missing drop",
    ):
        node.run("nft", f"add {line}")
    try:
        with serving(net, manifests):
            for protocol in ("TCP", "UDP"):
                answer = ask(net.client.space, protocol, net.node.address(family), 30080)
                assert answer.split()[1:] == [net.client.address(family)]
    finally:
        node.run("nft", "delete table inet host")


@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_more_flows_than_a_client_has_ports(net: World, manifests: Path, family: str) -> None:
    """The rest get the node's address, with which the same ports are free."""
    address, ports, flows = net.node.address(family), 32, 40
    one = [(net.local[0], "here", "ready")]
    write(manifests, "web.yaml", web(externalTrafficPolicy="Local"), *slices("web", one))
    with ExitStack() as stack:
        it = stack.enter_context(pod("a", net.local[0]))
        uproxy = stack.enter_context(program(net.node.space, manifests))
        with port_range(net.node.space, f"40000 {40000 + ports - 1}"):
            for _ in range(flows):
                sock = stack.enter_context(net.client.space.socket(kit.family_of(address), 1))
                sock.settimeout(20)
                sock.connect((address, 30080))
                assert sock.recv(100).startswith(b"a ")
        seen = [(client, number) for _, client, number in it.seen]
        assert len(set(seen)) == flows
        shown = sum(client == net.client.address(family) for client, _ in seen)
        assert shown == ports
        frontend = next(each["frontend"] for each in uproxy.status()["frontends"])
        wait_for(
            "the others to be counted",
            lambda: uproxy.counts(frontend)["masqueraded"] == flows - ports,
        )


def test_a_worker_that_is_replaced(net: World, manifests: Path) -> None:
    with serving(net, manifests) as served:
        (before,) = served.uproxy.worker_pids()
        os.kill(before, signal.SIGKILL)
        wait_for("another worker", lambda: served.uproxy.worker_pids() not in ([before], [0]))
        answer = ask(net.client.space, "TCP", net.node.ipv4, 30080)
        assert answer.split()[1] == net.client.ipv4


@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_with_a_proxy_header(net: World, manifests: Path, family: str) -> None:
    """Both at once."""
    made = web(externalTrafficPolicy="Local")
    made["metadata"]["annotations"] = {"uproxy.dev/proxy-protocol": "v1"}
    places = [(net.local[0], "here", "ready")]
    write(manifests, "web.yaml", made, *slices("web", places))
    node, client = net.node.address(family), net.client.address(family)
    with pod("a", net.local[0]) as it, program(net.node.space, manifests):
        with net.client.space.socket(kit.family_of(node), 1) as sock:
            sock.settimeout(20)
            sock.connect((node, 30080))
            number = sock.getsockname()[1]
            with sock.makefile("rb") as answer:
                assert answer.readline().decode().split() == ["a", client]
                # The pod echoes what it gets.
                kind = "TCP6" if family == "IPv6" else "TCP4"
                wanted = f"PROXY {kind} {client} {node} {number} 30080\r\n"
                assert answer.readline().decode() == wanted
        assert [client for _, client, _ in it.seen] == [net.client.address(family)]


@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_a_pod_that_refuses(net: World, manifests: Path, family: str, protocol: str) -> None:
    """Its refusal (RST, or an ICMP error about a packet of the client's) finds the flow, which
    goes on to the next pod with the same address."""
    places = [(net.local[2], "here", "ready"), (net.local[1], "here", "ready")]
    write(manifests, "web.yaml", web(externalTrafficPolicy="Local"), *slices("web", places))
    with pod("b", net.local[1]), program(net.node.space, manifests) as uproxy:
        for _ in range(2):
            answer = ask(net.client.space, protocol, net.node.address(family), 30080)
            assert answer == f"b {net.client.address(family)}"
        wanted = "0.0.0.0" if family == "IPv4" else "[::]"
        frontend = f"{wanted}:30080/{protocol}"
        wait_for("a failed dial", lambda: uproxy.counts(frontend)["dialFailures"] > 0)
        assert uproxy.counts(frontend)["masqueraded"] == 0


@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_a_reply_in_several_fragments(net: World, manifests: Path, family: str) -> None:
    """Only the first one has the ports by which a socket is found."""
    places = [(net.local[3], "here", "ready")]
    write(manifests, "web.yaml", web(externalTrafficPolicy="Local"), *slices("web", places))
    data, target = bytes(5000), (net.node.address(family), 30080)
    with (
        pod("b", net.local[3]),
        program(net.node.space, manifests),
        net.client.space.socket(kit.family_of(target[0]), socket.SOCK_DGRAM) as sock,
    ):
        sock.settimeout(20)
        sock.connect(target)
        sock.send(data)
        assert sock.recv(65536) == f"b {net.client.address(family)}\n".encode() + data
