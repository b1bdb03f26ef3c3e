"""A cluster of two nodes with a uproxy each, which serves the Services of `kube_proxy_answers`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.netns.kit import Place, PodNetwork, World, world
from tests.netns.kube_proxy_answers import (
    BACKEND,
    HOST_POD,
    LOCAL,
    N1,
    N2,
    OUTSIDE,
    POD_N1,
    POD_N2,
    SERVICES,
    Tried,
)
from tests.netns.node import Node, program, service, slices, write
from tests.netns.peers import Pod, pod
from uproxy.core.protocols import TCP, UDP

FAMILIES: Final = ("IPv4", "IPv6")
_QUIET: Final = "uproxy.dev/preserve-client-ip"
OTHERS: Final = {
    "partly": Tried(backends=("x", "b1")),  # Nothing listens at backend "x".
    "only-outside": Tried("NodePort", annotations={_QUIET: "local"}, spec=LOCAL),
    "nobody": Tried("NodePort", annotations={_QUIET: "never"}, spec=LOCAL),
}
"""Services for which there is no answer of kube-proxy."""
ALL: Final = {**SERVICES, **OTHERS}
_NUMBERS: Final = {name: number for number, name in enumerate(ALL, 1)}
"""Part of all addresses of a Service."""
_FIRST: Final = {"ClusterIP": 0, "LB-IP": 64, "externalIP": 128}
_POD_NETWORKS: Final = {
    "n1": ("198.51.100.0/25", "2001:db8:2::/64"),
    "n2": ("198.51.100.128/25", "2001:db8:2:1::/64"),
}


class Cluster(NamedTuple):
    net: World
    uproxies: tuple[Node, Node]
    """Of n1 and n2."""
    backend: Pod
    """Backend b1, which is on n1."""

    def place(self, caller: str) -> Place:
        net = self.net
        return {
            POD_N1: net.local[1],
            POD_N2: net.remote[1],
            BACKEND: net.local[0],
            HOST_POD: net.node,
            N1: net.node,
            N2: net.node2,
            OUTSIDE: net.client,
        }[caller]

    def target(self, kind: str, name: str, family: str, at: str = "") -> tuple[str, int]:
        """Address and port of a Service."""
        if kind == "NodePort":
            node = self.net.node if at == "n1" else self.net.node2
            return node.address(family), 30000 + _NUMBERS[name]
        if kind == "externalIP" and ALL[name].external_ips == "n1":
            return self.net.node.address(family), 80
        return _virtual(kind, name, family), 80


@contextmanager
def two_nodes(directory: Path, pods: PodNetwork) -> Iterator[Cluster]:
    """Both nodes, running, with everything in an empty directory for manifests."""
    with ExitStack() as stack:
        net = stack.enter_context(world(local=3, remote=2, pods=pods))
        nodes = {"n1": net.node, "n2": net.node2}
        write(directory, "nodes.yaml", *(_node(name, place) for name, place in nodes.items()))
        places = {"b1": (net.local[0], "n1"), "b2": (net.remote[0], "n2")}
        places |= {"h1": (net.node, "n1"), "h2": (net.node2, "n2")}
        silent = {"x": (net.local[2], "n1")}
        for name, tried in ALL.items():
            endpoints = [(*(places | silent)[each], "ready") for each in tried.backends]
            write(directory, f"{name}.yaml", _service(name, tried, net), *slices(name, endpoints))
        running = {
            name: stack.enter_context(pod(name, place)) for name, (place, _) in places.items()
        }
        options = ("--external-ip-cidrs", "203.0.113.128/26,2001:db8:3::80/121")
        first, second = (
            stack.enter_context(program(place.space, directory, *options, name=name))
            for name, place in nodes.items()
        )
        yield Cluster(net, (first, second), running["b1"])


def _virtual(kind: str, name: str, family: str) -> str:
    number = _NUMBERS[name] + _FIRST[kind]
    return f"203.0.113.{number}" if family == "IPv4" else f"2001:db8:3::{number:x}"


def _both(kind: str, name: str) -> list[str]:
    return [_virtual(kind, name, family) for family in FAMILIES]


def _service(name: str, tried: Tried, net: World) -> dict[str, Any]:
    ports: list[dict[str, Any]] = [
        {"name": protocol[0].lower(), "port": 80, "protocol": protocol} for protocol in (TCP, UDP)
    ]
    spec: dict[str, Any] = {"type": tried.type, "clusterIPs": _both("ClusterIP", name)}
    if tried.type != "ClusterIP":
        ports = [each | {"nodePort": 30000 + _NUMBERS[name]} for each in ports]
    if tried.type == "LoadBalancer":
        ingress = [{"ip": address} for address in _both("LB-IP", name)]
        spec["status"] = {"loadBalancer": {"ingress": ingress}}
    if tried.external_ips == "n1":
        spec["externalIPs"] = [net.node.ipv4, net.node.ipv6]
    elif tried.external_ips:
        spec["externalIPs"] = _both("externalIP", name)
    made = service(name, ports=ports, **spec, **tried.spec)
    made["metadata"]["annotations"] = dict(tried.annotations)
    return made


def _node(name: str, place: Place) -> dict[str, Any]:
    addresses = [
        {"type": "InternalIP", "address": place.ipv4},
        {"type": "InternalIP", "address": place.ipv6},
    ]
    networks = _POD_NETWORKS[name]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name},
        "spec": {"podCIDR": networks[0], "podCIDRs": list(networks)},
        "status": {"addresses": addresses},
    }
