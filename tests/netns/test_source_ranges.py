"""loadBalancerSourceRanges: which clients are admitted where. Others cost the backends nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns import kit
from tests.netns.kit import World
from tests.netns.node import Node, program, service, slices, wait_for, write
from tests.netns.peers import RESET, SILENCE, Pod, ask, pod

pytestmark = kit.needs()

# `client` is within, `node2` is not, and `node` is; the pods are not.
IPV4 = [" 192.0.2.96/28", "192.0.2.1/32 "]
IPV6 = ["2001:db8:1::100/128", "2001:db8:1::1/128"]
CLUSTER_IP, LB_IP, EXTERNAL_IP, NODE_PORT = "ClusterIP", "LB IP", "externalIP", "NodePort"
ADDRESSES = {
    "dual": {
        CLUSTER_IP: ("203.0.113.1", "2001:db8:3::1"),
        LB_IP: ("203.0.113.2", "2001:db8:3::2"),
        EXTERNAL_IP: ("203.0.113.3", "2001:db8:3::3"),
    },
    "ipv4-only": {
        CLUSTER_IP: ("203.0.113.11", "2001:db8:3::11"),
        LB_IP: ("203.0.113.12", "2001:db8:3::12"),
        EXTERNAL_IP: ("203.0.113.13", "2001:db8:3::13"),
    },
}
NUMBERS = {"dual": 30001, "ipv4-only": 30002}
RANGES = {"dual": IPV4 + IPV6, "ipv4-only": IPV4}


@pytest.fixture(scope="module")
def backend(net: World) -> Iterator[Pod]:
    with pod("a", net.local[0]) as running:
        yield running


@pytest.fixture(scope="module")
def manifests(net: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("ranges") / "manifests"
    directory.mkdir()
    for name, addresses in ADDRESSES.items():
        number = NUMBERS[name]
        ports = [
            {"name": protocol[0].lower(), "port": 80, "protocol": protocol, "nodePort": number}
            for protocol in ("TCP", "UDP")
        ]
        wanted = service(
            name,
            type="LoadBalancer",
            clusterIPs=list(addresses[CLUSTER_IP]),
            externalIPs=list(addresses[EXTERNAL_IP]),
            loadBalancerSourceRanges=RANGES[name],
            ports=ports,
            status={"loadBalancer": {"ingress": [{"ip": each} for each in addresses[LB_IP]]}},
        )
        write(directory, f"{name}.yaml", wanted, *slices(name, [(net.local[0], "here", "ready")]))
    return directory


OPTIONS = ("--external-ip-cidrs", ",".join(kit.VIRTUAL), "--cluster-cidr", ",".join(kit.PODS))


@pytest.fixture(scope="module", params=["", "strict"], ids=["as kube-proxy", "strict"])
def uproxy(
    net: World, manifests: Path, backend: Pod, request: pytest.FixtureRequest
) -> Iterator[Node]:
    strict = ("--strict-source-ranges",) if request.param else ()
    with program(net.node.space, manifests, *OPTIONS, *strict) as running:
        yield running


def admitted(who: str, name: str, kind: str, family: str, *, strict: bool) -> bool:
    """The rules, in so many words."""
    covered = kind == LB_IP or (strict and kind != CLUSTER_IP)
    if not covered:
        return True
    if name == "ipv4-only" and family == "IPv6":
        return not strict
    return who in ("client", "node")


@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
@pytest.mark.parametrize("kind", [CLUSTER_IP, LB_IP, EXTERNAL_IP, NODE_PORT])
@pytest.mark.parametrize("name", ["dual", "ipv4-only"])
@pytest.mark.parametrize("who", ["client", "node2", "node", "pod"])
def test_which_clients_are_admitted(
    net: World,
    backend: Pod,
    uproxy: Node,
    request: pytest.FixtureRequest,
    *,
    who: str,
    name: str,
    kind: str,
    protocol: str,
    family: str,
) -> None:
    strict = request.node.callspec.params["uproxy"] == "strict"
    place = {"client": net.client, "node2": net.node2, "node": net.node, "pod": net.local[1]}[who]
    if kind == NODE_PORT:
        target = net.node.address(family), NUMBERS[name]
    else:
        target = ADDRESSES[name][kind][family == "IPv6"], 80
    before = len(backend.seen)
    answer = ask(place.space, protocol, *target, patience=0.2)
    if admitted(who, name, kind, family, strict=strict):
        assert answer.startswith("a ")
    else:
        assert answer == (RESET if protocol == "TCP" else SILENCE)
        assert len(backend.seen) == before


def test_refusals_are_counted(net: World, uproxy: Node) -> None:
    def refused() -> int:
        count: int = uproxy.counts("203.0.113.2:80/TCP")["dropped"].get("source_refused", 0)
        return count

    before = refused()
    assert ask(net.node2.space, "TCP", "203.0.113.2", 80) == RESET
    wait_for("the count", lambda: refused() > before)
