"""Which backends pods, the node itself and outside clients reach, at every kind of address.

The rows are those of kube-proxy's own packet-flow tests (pkg/proxy/nftables), without address
translation; all Services are served by one uproxy at once, on both families, TCP and UDP.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from tests.netns import kit
from tests.netns.kit import Namespace, World
from tests.netns.node import program, service, slices, write
from tests.netns.peers import REFUSED, RESET, SILENCE, Pod, ask, pod

pytestmark = kit.needs()

DENIED = "denied"
"""A TCP client is reset, a UDP client gets no reply, and neither reaches a pod."""

READY, DRAINING, DEAD = "ready", "terminating", "dead"
L1, L2, L3, L4, R = "pod1", "pod2", "pod3", "pod4", "remote"
LOCAL_ETP = {"externalTrafficPolicy": "Local"}
LOCAL_ITP = {"internalTrafficPolicy": "Local"}


class Case(NamedTuple):
    """A Service and its endpoints."""

    number: int
    """Part of all of its addresses."""
    endpoints: Mapping[str, str]
    spec: Mapping[str, Any] = {}
    protocols: tuple[str, ...] = ("TCP", "UDP")


CASES: Final = {
    "svc1": Case(1, {L1: READY, R: READY}),
    "svc2": Case(2, {L1: READY, R: READY}, LOCAL_ETP),
    "svc3": Case(3, {L1: READY, R: READY}, LOCAL_ITP),
    "both": Case(4, {L1: READY, R: READY}, LOCAL_ETP | LOCAL_ITP),
    "none": Case(5, {}),
    "dead": Case(6, {L1: DEAD, R: DEAD}, LOCAL_ETP),
    "remote-etp": Case(7, {R: READY}, LOCAL_ETP),
    "remote-itp": Case(8, {R: READY}, LOCAL_ITP),
    "some-drain": Case(9, {L1: READY, L2: READY, L3: DRAINING, L4: DEAD, R: READY}, LOCAL_ETP),
    "all-local-drain": Case(10, {L1: DRAINING, L2: DRAINING, L3: DEAD, R: READY}, LOCAL_ETP),
    "remote-drains": Case(11, {R: DRAINING}, LOCAL_ETP),
    "all-drain": Case(12, {L1: DRAINING, R: DRAINING}),
    "tcp-only": Case(13, {L1: READY}, protocols=("TCP",)),
}
CLUSTER_IP, LB_IP, EXTERNAL_IP, NODE_PORT = "ClusterIP", "LB IP", "externalIP", "NodePort"
_FIRST = {CLUSTER_IP: 0, LB_IP: 64, EXTERNAL_IP: 128}

EVERYWHERE = (CLUSTER_IP, LB_IP, EXTERNAL_IP, NODE_PORT)
OUTSIDE = (LB_IP, EXTERNAL_IP, NODE_PORT)
ANYONE = ("pod", "node", "external")

Row = tuple[str, tuple[str, ...], tuple[str, ...], set[str] | str]
"""Service, client, address, and the backends that answer."""
ROWS: Final[list[Row]] = [
    ("svc1", ANYONE, EVERYWHERE, {L1, R}),
    ("svc2", ANYONE, (CLUSTER_IP,), {L1, R}),
    ("svc2", ("pod", "node"), OUTSIDE, {L1, R}),
    ("svc2", ("external",), OUTSIDE, {L1}),
    ("svc3", ANYONE, (CLUSTER_IP,), {L1}),
    ("svc3", ANYONE, OUTSIDE, {L1, R}),
    ("both", ANYONE, (CLUSTER_IP,), {L1}),
    ("both", ("pod", "node"), OUTSIDE, {L1, R}),
    ("both", ("external",), OUTSIDE, {L1}),
    ("none", ANYONE, EVERYWHERE, REFUSED),
    ("dead", ANYONE, EVERYWHERE, REFUSED),
    ("remote-etp", ANYONE, (CLUSTER_IP,), {R}),
    ("remote-etp", ("pod", "node"), OUTSIDE, {R}),
    ("remote-etp", ("external",), OUTSIDE, DENIED),
    ("remote-itp", ANYONE, (CLUSTER_IP,), REFUSED),
    ("remote-itp", ANYONE, OUTSIDE, {R}),
    ("some-drain", ANYONE, (CLUSTER_IP,), {L1, L2, R}),
    ("some-drain", ("pod", "node"), OUTSIDE, {L1, L2, R}),
    ("some-drain", ("external",), OUTSIDE, {L1, L2}),
    ("all-local-drain", ANYONE, (CLUSTER_IP,), {R}),
    ("all-local-drain", ("pod", "node"), OUTSIDE, {R}),
    ("all-local-drain", ("external",), OUTSIDE, {L1, L2}),
    ("remote-drains", ANYONE, (CLUSTER_IP,), {R}),
    ("remote-drains", ("pod", "node"), OUTSIDE, {R}),
    ("remote-drains", ("external",), OUTSIDE, DENIED),
    ("all-drain", ANYONE, EVERYWHERE, {L1, R}),
]


def parameters(rows: list[Row]) -> list[Any]:
    return [
        pytest.param(name, client, place, expected, id=f"{client} to {name} {place}")
        for name, clients, places, expected in rows
        for client in clients
        for place in places
    ]


def address_of(kind: str, number: int, family: str) -> str:
    number += _FIRST[kind]
    return f"203.0.113.{number}" if family == "IPv4" else f"2001:db8:3::{number:x}"


def addresses_of(kind: str, number: int) -> list[str]:
    return [address_of(kind, number, family) for family in ("IPv4", "IPv6")]


@pytest.fixture(scope="module")
def pods(net: World) -> Iterator[dict[str, Pod]]:
    places = [*net.local, *net.remote]
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(pod(name, place))
            for name, place in zip((L1, L2, L3, L4, R), places, strict=True)
        }


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory, pods: dict[str, Pod]) -> Path:
    directory = tmp_path_factory.mktemp("flow") / "manifests"
    directory.mkdir()
    for name, case in CASES.items():
        ports = [
            {"name": protocol[0].lower(), "port": 80, "protocol": protocol}
            | {"nodePort": 30000 + case.number}
            for protocol in case.protocols
        ]
        ingress = [{"ip": address} for address in addresses_of(LB_IP, case.number)]
        wanted = service(
            name,
            type="LoadBalancer",
            clusterIPs=addresses_of(CLUSTER_IP, case.number),
            externalIPs=addresses_of(EXTERNAL_IP, case.number),
            ports=ports,
            status={"loadBalancer": {"ingress": ingress}},
            **case.spec,
        )
        endpoints = [
            (pods[each].place, "there" if each == R else "here", state)
            for each, state in case.endpoints.items()
        ]
        write(directory, f"{name}.yaml", wanted, *slices(name, endpoints))
    return directory


EXTERNAL_CIDRS = ("--external-ip-cidrs", "203.0.113.128/26,2001:db8:3::80/121")


@pytest.fixture(scope="module")
def uproxy(net: World, manifests: Path) -> Iterator[None]:
    options = (*EXTERNAL_CIDRS, "--cluster-cidr", ",".join(kit.PODS))
    with program(net.node.space, manifests, *options):
        yield


def space_of(net: World, who: str) -> Namespace:
    return {"pod": net.local[1], "node": net.node, "external": net.client}[who].space


def where(net: World, name: str, kind: str, family: str) -> tuple[str, int]:
    number = CASES[name].number
    if kind == NODE_PORT:
        return net.node.address(family), 30000 + number
    return address_of(kind, number, family), 80


def check(
    space: Namespace,
    protocol: str,
    target: tuple[str, int],
    expected: set[str] | str,
    pods: Mapping[str, Pod],
) -> None:
    """Ask so often that each backend has had its place in the rotation twice."""
    before = [len(each.seen) for each in pods.values()]
    if isinstance(expected, set):
        answers = [ask(space, protocol, *target).split()[0] for _ in range(2 * len(expected))]
        assert set(answers) == expected
        return
    if expected == DENIED:
        expected = RESET if protocol == "TCP" else SILENCE
    assert ask(space, protocol, *target, patience=0.25) == expected
    assert [len(each.seen) for each in pods.values()] == before


@pytest.mark.usefixtures("uproxy")
@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
@pytest.mark.parametrize(("name", "client", "kind", "expected"), parameters(ROWS))
def test_flow(
    net: World,
    pods: dict[str, Pod],
    *,
    name: str,
    client: str,
    kind: str,
    expected: set[str] | str,
    protocol: str,
    family: str,
) -> None:
    target = where(net, name, kind, family)
    check(space_of(net, client), protocol, target, expected, pods)


@pytest.mark.usefixtures("uproxy")
@pytest.mark.parametrize("kind", EVERYWHERE)
@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_a_protocol_that_the_service_lacks(
    net: World, pods: dict[str, Pod], kind: str, family: str
) -> None:
    target = where(net, "tcp-only", kind, family)
    check(net.client.space, "UDP", target, REFUSED, pods)
    check(net.client.space, "TCP", target, {L1}, pods)


@pytest.mark.usefixtures("uproxy")
@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "::1"])
@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
def test_node_ports_on_loopback(
    net: World, pods: dict[str, Pod], address: str, protocol: str
) -> None:
    """kube-proxy can do this over IPv4 only, with route_localnet, and not at all in nftables."""
    check(net.node.space, protocol, (address, 30002), {L1, R}, pods)


def test_without_pod_networks_pods_are_outside(manifests: Path) -> None:
    """Nothing tells pods from other clients, so externalTrafficPolicy Local holds for them."""
    with (
        kit.world(local=2, remote=1) as net,
        pod(L1, net.local[0]),
        pod(R, net.remote[0]),
        # A pod's reply to a pod on its bridge would never come by the node.
        program(net.node.space, manifests, *EXTERNAL_CIDRS, "--preserve-client-ip", "never"),
    ):
        for family in ("IPv4", "IPv6"):
            for protocol in ("TCP", "UDP"):
                for kind in OUTSIDE:
                    target = where(net, "svc2", kind, family)
                    check(net.local[1].space, protocol, target, {L1}, {})
                    check(net.node.space, protocol, target, {L1, R}, {})
