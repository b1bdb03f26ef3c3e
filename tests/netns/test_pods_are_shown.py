"""Pods that call a Service of their cluster are shown to backends, and nothing else suffers.

Whose address backends see in every case is in test_kube_proxy_answers.py.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.netns import kit
from tests.netns.kit import Namespace, PodNetwork
from tests.netns.kube_proxy_answers import BACKEND, N1, N2, OUTSIDE, POD_N1
from tests.netns.peers import RESET, ask, ping
from tests.netns.two_nodes import ALL, FAMILIES, Cluster
from uproxy.core.protocols import TCP, UDP

pytestmark = kit.needs("nft=nftables")

LONG = bytes(range(256)) * 32
"""More than a packet holds."""


@pytest.mark.parametrize("family", FAMILIES)
def test_direct_traffic_of_the_same_pods(cluster: Cluster, family: str) -> None:
    """What two pods say to each other is left alone while one of them calls the other through a
    Service: with TCP, UDP and ICMP, in both directions, whatever port the caller has."""
    caller, backend = cluster.place(POD_N1), cluster.place(BACKEND)
    own, other = caller.address(family), (backend.address(family), cluster.backend.port)
    with ExitStack() as stack:

        def connected(kind: int, target: tuple[str, int], port: int = 0) -> socket.socket:
            sock = stack.enter_context(caller.space.socket(kit.family_of(own), kind))
            sock.settimeout(15)
            sock.bind((own, port))
            sock.connect(target)
            if kind == socket.SOCK_STREAM:
                assert sock.recv(100).startswith(b"b1 ")
            return sock

        target = cluster.target("ClusterIP", "self", family)
        kinds = (socket.SOCK_STREAM, socket.SOCK_DGRAM)
        conversations = [connected(kind, target) for kind in kinds]
        assert all(_is_echoed(sock, LONG) for sock in conversations)
        for protocol in (TCP, UDP):
            assert ask(caller.space, protocol, *other) == f"b1 {own}"
        # A port of the range that uproxy uses, which a pod may choose as well.
        taken = {port for _, _, port in cluster.backend.seen}
        port = next(each for each in range(20000, 30000) if each not in taken)
        conversations += [connected(kind, other, port) for kind in kinds]
        assert ping(caller.space, other[0]) == other[0]
        assert ping(backend.space, own) == own
        assert all(_is_echoed(sock, LONG) for sock in conversations)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("caller", [POD_N1, BACKEND])
def test_a_backend_that_refuses(cluster: Cluster, caller: str, protocol: str, family: str) -> None:
    """Its refusal comes back to the proxy, which tries another backend."""
    target = cluster.target("ClusterIP", "partly", family)
    answers = [ask(cluster.place(caller).space, protocol, *target) for _ in ALL["partly"].backends]
    assert {each.split()[0] for each in answers} == {"b1"}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("caller", "kind", "name"),
    [
        pytest.param(POD_N1, "ClusterIP", "cl", id="pod"),
        pytest.param(BACKEND, "ClusterIP", "cl", id="backend"),
        pytest.param(OUTSIDE, "LB-IP", "lbl", id="outside"),
    ],
)
@pytest.mark.parametrize(
    ("how", "data"),
    [
        # Only the first fragment of a reply has ports.
        pytest.param(socket.SOCK_DGRAM, LONG, id="datagrams"),
        pytest.param(socket.SOCK_STREAM, LONG * 128, id="streams"),
    ],
)
def test_long_messages(
    cluster: Cluster, how: int, data: bytes, caller: str, kind: str, name: str, family: str
) -> None:
    target = cluster.target(kind, name, family)
    for _ in ALL[name].backends:
        with cluster.place(caller).space.socket(kit.family_of(target[0]), how) as sock:
            sock.settimeout(15)
            sock.connect(target)
            for start in range(0, len(data), len(LONG)):
                assert _is_echoed(sock, data[start : start + len(LONG)])


def _is_echoed(sock: socket.socket, data: bytes) -> bool:
    """Whether a pod returns what it gets, after its greeting."""
    received = b""
    sock.send(data)
    while not received.endswith(data):
        received += sock.recv(65536)
    return True


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize(
    ("name", "caller", "kind", "shown"),
    [
        ("only-outside", POD_N1, "ClusterIP", False),
        ("only-outside", POD_N1, "NodePort", False),
        ("only-outside", OUTSIDE, "NodePort", True),
        ("nobody", POD_N1, "ClusterIP", False),
        ("nobody", OUTSIDE, "NodePort", False),
    ],
)
def test_a_service_that_does_not_want_it(
    cluster: Cluster, name: str, caller: str, kind: str, shown: bool, protocol: str, family: str
) -> None:
    place = cluster.place(caller)
    for _ in ALL[name].backends:
        answer = ask(place.space, protocol, *cluster.target(kind, name, family, "n1"))
        assert (answer.split()[1] == place.address(family)) == shown
        assert shown or answer.split()[1] in cluster.net.node_addresses


@contextmanager
def network_policy(space: Namespace, hook: str, caller: str, backend: str) -> Iterator[None]:
    """What a network plugin may install on a node so that a pod cannot call another one."""
    version = "ip6" if ":" in caller else "ip"
    denied = f"{version} saddr {caller} {version} daddr {backend} tcp dport 8080"
    space.run(
        "nft",
        "add table inet plugin;"
        f"add chain inet plugin {hook} {{ type filter hook {hook} priority 0; }};"
        f"add rule inet plugin {hook} {denied} reject with tcp reset",
    )
    try:
        yield
    finally:
        space.run("nft", "delete table inet plugin")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_network_policy_on_the_node_of_the_backend(cluster: Cluster, family: str) -> None:
    """The rejection is addressed to the pod, and comes back to the proxy like any other answer."""
    caller, target = cluster.place(POD_N1), cluster.target("ClusterIP", "cl", family)
    own, denied = caller.address(family), cluster.net.remote[0].address(family)
    with network_policy(cluster.place(N2).space, "forward", own, denied):
        answers = {ask(caller.space, TCP, *target) for _ in ALL["cl"].backends}
    assert answers == {f"b1 {own}"}


@pytest.mark.parametrize("cluster", [PodNetwork.PTP], indirect=True)
def test_a_network_policy_on_the_node_of_the_pod(cluster: Cluster) -> None:
    """What a node's own chain for output rejects is silence to the proxy, which takes it for a
    policy if the backend has answered another pod."""
    caller, other = cluster.place(POD_N1), cluster.net.local[2]
    target = cluster.target("ClusterIP", "self", "IPv4")
    assert ask(other.space, TCP, *target) == f"b1 {other.ipv4}"
    backend = cluster.place(BACKEND)
    with network_policy(cluster.place(N1).space, "output", caller.ipv4, backend.ipv4):
        assert ask(caller.space, TCP, *target) == RESET
        assert ask(other.space, TCP, *target) == f"b1 {other.ipv4}"


def test_the_status_says_so(cluster: Cluster) -> None:
    """Flows that need not show the pod are not counted as flows that could not."""
    for caller in (POD_N1, BACKEND, N1):
        for protocol in (TCP, UDP):
            for name in ("cl", "np"):
                target = cluster.target("ClusterIP", name, "IPv4")
                assert ask(cluster.place(caller).space, protocol, *target).startswith("b")
    status = cluster.uproxies[0].status()
    found = {
        name: [each for each in status["frontends"] if each["service"] == f"default/{name}"]
        for name in ("cl", "np", "lbl", "only-outside", "nobody")
    }
    shown = {
        name: {(each["kind"], each["clientAddress"]) for each in frontends}
        for name, frontends in found.items()
    }
    assert shown["cl"] == {("ClusterIP", "pods")}
    assert shown["np"] == {("ClusterIP", "pods"), ("NodePort", "node")}
    assert ("NodePort", "preserved") in shown["lbl"] & shown["only-outside"]
    assert {address for _, address in shown["nobody"]} == {"node"}
    wanted = [each for name in ("cl", "np", "lbl") for each in found[name]]
    assert {each["clientAddressReason"] for each in wanted} == {""}
    assert {each["counts"]["masqueraded"] for each in wanted} == {0}
