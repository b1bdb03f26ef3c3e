"""trafficDistribution, which reaches a proxy as hints of the EndpointSlice controller."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from tests.e2e.pods import Pod, pod, read_line, visit
from tests.e2e.program import endpoints, program, service, wait_for, write
from tests.ports import free_port

HERE = "127.0.0.1"
NODE = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": "here", "labels": {"topology.kubernetes.io/zone": "a"}},
}


class Target(NamedTuple):
    """A pod with its node, and what the controller writes about it."""

    pod: Pod
    node: str
    hints: Mapping[str, Sequence[str]] = MappingProxyType({})
    conditions: Mapping[str, bool] = MappingProxyType({})

    def slice(self) -> dict[str, Any]:
        [made] = endpoints("web", [self.pod], node=self.node)
        [endpoint] = made["endpoints"]
        endpoint["conditions"] = dict(self.conditions)
        if self.hints:
            endpoint["hints"] = {
                field: [{"name": name} for name in names] for field, names in self.hints.items()
            }
        return made


def terminating(pod: Pod, node: str) -> Target:
    """The controller gives hints only to endpoints that are ready."""
    conditions = {"ready": False, "serving": True, "terminating": True}
    return Target(pod, node, conditions=conditions)


def for_node(*names: str, zone: str) -> dict[str, Sequence[str]]:
    """What PreferSameNode makes. (PreferSameZone: the zone alone.)"""
    return {"forNodes": names, "forZones": (zone,)}


class World:
    """A Service on a node of zone a, which runs while the hints of its endpoints change."""

    def __init__(self, manifests: Path) -> None:
        self.port = free_port()
        self.manifests = manifests

    def write(self, *targets: Target) -> None:
        ports = [{"name": "main", "port": 80, "nodePort": self.port}]
        slices = [each.slice() for each in targets]
        write(self.manifests, "web.yaml", NODE, service("web", ports=ports), *slices)

    def visited(self) -> set[str]:
        return {visit(HERE, self.port) for _ in range(8)}

    def wait_for_visits(self, *names: str) -> None:
        wait_for(f"visits at {names}", lambda: self.visited() == set(names))


@pytest.fixture
def world(tmp_path: Path) -> World:
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    return World(manifests)


def test_prefer_same_node_while_pods_terminate_and_come_back(world: World) -> None:
    """Upstream's "should route traffic to an endpoint on the same node when using PreferSameNode
    and fall back when the endpoint becomes unavailable"."""
    with pod("here") as here, pod("near") as near, pod("far") as far:
        on = {
            "here": Target(here, "here", for_node("here", zone="a")),
            "near": Target(near, "there", for_node("there", zone="a")),
            "far": Target(far, "elsewhere", for_node("elsewhere", zone="b")),
        }
        world.write(*on.values())
        with program(world.manifests):
            assert world.visited() == {"here"}
            with socket.create_connection((HERE, world.port), 20) as client:
                assert read_line(client) == "here"
                leaving = terminating(here, "here")
                world.write(leaving, on["near"], on["far"])
                world.wait_for_visits("near")
                client.sendall(b"still here\n")
                assert read_line(client) == "still here"
                # The others leave as well: of those that terminate, all serve.
                world.write(
                    leaving,
                    terminating(near, "there"),
                    terminating(far, "elsewhere"),
                )
                world.wait_for_visits("here", "near", "far")
                world.write(*on.values())
                world.wait_for_visits("here")
                client.sendall(b"and still\n")
                assert read_line(client) == "and still"


def test_prefer_same_zone_follows_hints(world: World) -> None:
    """Upstream's "should route traffic to an endpoint in the same zone when using
    PreferSameZone"."""
    with pod("a1") as a1, pod("a2") as a2, pod("b") as b:
        zones: list[dict[str, Sequence[str]]] = [{"forZones": (zone,)} for zone in ("a", "a", "b")]
        first, second, other = (
            Target(each, "there", zone) for each, zone in zip((a1, a2, b), zones, strict=True)
        )
        world.write(first, second, other)
        with program(world.manifests):
            assert world.visited() == {"a1", "a2"}
            world.write(first, terminating(a2, "there"), other)
            world.wait_for_visits("a1")
            # The controller has not got to the new pod yet, so no hint counts.
            world.write(first, Target(a2, "there"), other)
            world.wait_for_visits("a1", "a2", "b")
            world.write(terminating(a1, "there"), other)
            world.wait_for_visits("b")
