"""The same answers as kube-proxy's: which backends, and whose address they see.

Two nodes, each with a uproxy of its own, whose pods are on a bridge or on links of their own. All
rows of `kube_proxy_answers` are tried there, over both IP families. `DIFFERENCES` lists every row
whose answer differs, with the reason.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Final, NamedTuple

import pytest

from tests.netns import kit
from tests.netns.kit import Place, PodNetwork, World, world
from tests.netns.kube_proxy_answers import (
    BACKEND,
    CLIENT,
    DERIVED,
    HOST_POD,
    N1,
    N2,
    NODE,
    NOTHING,
    OUTSIDE,
    POD_N1,
    POD_N2,
    RECORDED,
    SERVICES,
    TIMEOUT,
    Row,
    Tried,
)
from tests.netns.node import program, service, slices, write
from tests.netns.peers import RESET, SILENCE, Pod, ask, ping, pod
from uproxy.core.protocols import TCP, UDP

pytestmark = kit.needs("nft=nftables")

FAMILIES: Final = ("IPv4", "IPv6")
ROWS: Final = RECORDED + DERIVED
_HIDDEN, _SHOWN = f" sees {NODE}", f" sees {CLIENT}"


class Difference(NamedTuple):
    """Rows in which uproxy answers differently."""

    reason: str
    answer: Callable[[Row], frozenset[str]]
    """What uproxy answers: the same as kube-proxy in all rows that are not concerned."""


def _reset(row: Row) -> frozenset[str]:
    return frozenset(RESET if each == TIMEOUT else each for each in row.answer)


def _host_backend_hidden(row: Row) -> frozenset[str]:
    here = f"h{row.served_by[1:]}"
    return frozenset(
        each.replace(_SHOWN, _HIDDEN) if each.startswith(here) else each for each in row.answer
    )


def _pods_hidden(row: Row) -> frozenset[str]:
    if not row.is_from_pod or row.home != row.served_by:
        return row.answer
    return frozenset(each.replace(_SHOWN, _HIDDEN) for each in row.answer)


DIFFERENCES: Final = {
    "dropped": Difference(
        "The kernel has established a connection before a userspace proxy learns of it, so the "
        "proxy can reset it, but cannot ignore it.",
        _reset,
    ),
    "backend in the host network of the node that serves": Difference(
        "It would reply to the client directly instead of through the proxy's socket.",
        _host_backend_hidden,
    ),
    "pods": Difference("Their own addresses are not shown yet.", _pods_hidden),
}


def expected(row: Row) -> frozenset[str]:
    """What uproxy answers."""
    for each in DIFFERENCES.values():
        row = row._replace(answer=each.answer(row))
    return row.answer


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_difference_differs(name: str) -> None:
    """And is not listed for nothing."""
    assert any(DIFFERENCES[name].answer(row) != row.answer for row in ROWS)


def test_all_rows_are_tried() -> None:
    assert len(RECORDED) == 252
    assert max(Counter(row._replace(answer=frozenset()) for row in ROWS).values()) == 1


class Cluster(NamedTuple):
    net: World
    spare: Place
    """A pod on n1 that no Service has as a backend."""
    busy: Pod
    """Backend b1."""

    def place(self, caller: str) -> Place:
        return {
            POD_N1: self.spare,
            POD_N2: self.net.remote[1],
            BACKEND: self.net.local[0],
            HOST_POD: self.net.node,
            N1: self.net.node,
            N2: self.net.node2,
            OUTSIDE: self.net.client,
        }[caller]

    def target(self, row: Row, family: str) -> tuple[str, int]:
        number = 1 + list(SERVICES).index(row.service)
        if row.kind == "NodePort":
            return (self.net.node if row.at == "n1" else self.net.node2).address(family), (
                30000 + number
            )
        if SERVICES[row.service].external_ips == "n1" and row.kind == "externalIP":
            return self.net.node.address(family), 80
        return _virtual(row.kind, number, family), 80


_FIRST: Final = {"ClusterIP": 0, "LB-IP": 64, "externalIP": 128}


def _virtual(kind: str, number: int, family: str) -> str:
    number += _FIRST[kind]
    return f"203.0.113.{number}" if family == "IPv4" else f"2001:db8:3::{number:x}"


def _both(kind: str, number: int) -> list[str]:
    return [_virtual(kind, number, family) for family in FAMILIES]


def _service(name: str, number: int, tried: Tried, net: World) -> dict[str, Any]:
    ports: list[dict[str, Any]] = [
        {"name": protocol[0].lower(), "port": 80, "protocol": protocol} for protocol in (TCP, UDP)
    ]
    spec: dict[str, Any] = {"type": tried.type, "clusterIPs": _both("ClusterIP", number)}
    if tried.type != "ClusterIP":
        ports = [each | {"nodePort": 30000 + number} for each in ports]
    if tried.type == "LoadBalancer":
        ingress = [{"ip": address} for address in _both("LB-IP", number)]
        spec["status"] = {"loadBalancer": {"ingress": ingress}}
    if tried.external_ips == "n1":
        spec["externalIPs"] = [net.node.ipv4, net.node.ipv6]
    elif tried.external_ips:
        spec["externalIPs"] = _both("externalIP", number)
    return service(name, ports=ports, **spec, **tried.spec)


def _node(name: str, place: Place, pods: tuple[str, str]) -> dict[str, Any]:
    addresses = [
        {"type": "InternalIP", "address": place.ipv4},
        {"type": "InternalIP", "address": place.ipv6},
    ]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name},
        "spec": {"podCIDR": pods[0], "podCIDRs": list(pods)},
        "status": {"addresses": addresses},
    }


@pytest.fixture(scope="module", params=PodNetwork, ids=lambda each: str(each.value))
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """Two nodes that serve everything."""
    pods: PodNetwork = request.param
    if pods is PodNetwork.UNFILTERED_BRIDGE and not kit.HAS_BRIDGE_FILTER:
        pytest.skip("the kernel has no br_netfilter, so this is the same as the other bridge")
    directory = tmp_path_factory.mktemp("answers") / "manifests"
    directory.mkdir()
    with ExitStack() as stack:
        net = stack.enter_context(world(local=3, remote=2, pods=pods))
        places = {"b1": (net.local[0], "n1"), "b2": (net.remote[0], "n2")}
        places |= {"h1": (net.node, "n1"), "h2": (net.node2, "n2")}
        nodes = [
            _node("n1", net.node, ("198.51.100.0/25", "2001:db8:2::/64")),
            _node("n2", net.node2, ("198.51.100.128/25", "2001:db8:2:1::/64")),
        ]
        write(directory, "nodes.yaml", *nodes)
        for number, (name, tried) in enumerate(SERVICES.items(), 1):
            endpoints = [(*places[each], "ready") for each in tried.backends]
            wanted = _service(name, number, tried, net)
            write(directory, f"{name}.yaml", wanted, *slices(name, endpoints))
        # Nothing listens at one of its backends.
        partly = _service("partly", 1 + len(SERVICES), Tried(), net)
        endpoints = [(net.local[2], "n1", "ready"), (net.local[0], "n1", "ready")]
        write(directory, "partly.yaml", partly, *slices("partly", endpoints))
        running = {
            name: stack.enter_context(pod(name, place)) for name, (place, _) in places.items()
        }
        options = ("--external-ip-cidrs", "203.0.113.128/26,2001:db8:3::80/121")
        for name, place in (("n1", net.node), ("n2", net.node2)):
            stack.enter_context(program(place.space, directory, *options, name=name))
        yield Cluster(net, net.local[1], running["b1"])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_row(cluster: Cluster, row: Row, family: str) -> None:
    """Ask until all expected answers have come, and at least as often as there are backends."""
    wanted = expected(row)
    backends = len(SERVICES[row.service].backends)
    found: set[str] = set()
    for tries in range(4 * backends):
        if found >= wanted and tries >= backends:
            break
        found.add(_answer(cluster, row, family, patience=0.25 if NOTHING in wanted else 15))
        assert found <= wanted
    assert found == wanted


def _answer(cluster: Cluster, row: Row, family: str, patience: float) -> str:
    caller = cluster.place(row.caller)
    target = cluster.target(row, family)
    answer = ask(caller.space, row.protocol, *target, patience=patience)
    if answer == SILENCE:
        return TIMEOUT if row.protocol == TCP else NOTHING
    name, _, seen = answer.partition(" ")
    if seen in cluster.net.node_addresses:
        return name + _HIDDEN
    return name + _SHOWN if seen == caller.address(family) else answer


@pytest.mark.parametrize("family", FAMILIES)
def test_direct_traffic_of_the_same_pods(cluster: Cluster, family: str) -> None:
    """What two pods say to each other is left alone while one of them calls the other through a
    Service: with TCP, UDP and ICMP, in both directions, whatever port the caller has."""
    caller, backend = cluster.spare, cluster.place(BACKEND)
    own, other = caller.address(family), (backend.address(family), cluster.busy.port)
    with ExitStack() as stack:

        def connected(kind: int, target: tuple[str, int], port: int = 0) -> socket.socket:
            sock = stack.enter_context(caller.space.socket(kit.family_of(own), kind))
            sock.settimeout(15)
            sock.bind((own, port))
            sock.connect(target)
            if kind == socket.SOCK_STREAM:
                assert sock.recv(100).startswith(b"b1 ")
            return sock

        number = 1 + list(SERVICES).index("self")
        service_address = _virtual("ClusterIP", number, family), 80
        kinds = (socket.SOCK_STREAM, socket.SOCK_DGRAM)
        conversations = [connected(kind, service_address) for kind in kinds]
        assert all(_is_answered(sock) for sock in conversations)
        for protocol in (TCP, UDP):
            assert ask(caller.space, protocol, *other) == f"b1 {own}"
        # A port of the range that uproxy uses, which a pod may choose as well.
        taken = {port for _, _, port in cluster.busy.seen}
        port = next(each for each in range(20000, 30000) if each not in taken)
        conversations += [connected(kind, other, port) for kind in kinds]
        assert ping(caller.space, other[0]) == other[0]
        assert ping(backend.space, own) == own
        assert all(_is_answered(sock) for sock in conversations)


def _is_answered(sock: socket.socket) -> bool:
    sock.send(b"more")
    return bool(sock.recv(100))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("caller", [POD_N1, BACKEND])
def test_a_backend_that_refuses(cluster: Cluster, caller: str, protocol: str, family: str) -> None:
    """Its refusal comes back to the proxy, which tries another backend."""
    number = 1 + len(SERVICES)
    space = cluster.place(caller).space
    for _ in range(2):
        answer = ask(space, protocol, _virtual("ClusterIP", number, family), 80)
        assert answer.startswith("b1 ")
