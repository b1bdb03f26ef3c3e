"""Pods that call a Service of their cluster are shown to backends, and nothing else suffers.

Whose address backends see in every case is in test_kube_proxy_answers.py.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest

from tests.netns import kit
from tests.netns.kube_proxy_answers import BACKEND, OUTSIDE, POD_N1
from tests.netns.peers import ask, ping
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
