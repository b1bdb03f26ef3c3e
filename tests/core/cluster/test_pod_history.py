"""A flow is shown with the pod that it went to, also if the pod is gone by then."""

from __future__ import annotations

from typing import Any

import msgspec

from uproxy.core.cluster import pod_history
from uproxy.core.cluster.objects import (
    Endpoint,
    EndpointAddress,
    EndpointConditions,
    EndpointPort,
    Endpoints,
    EndpointSlice,
    EndpointSubset,
    ObjectMeta,
    ObjectName,
    TargetRef,
)
from uproxy.core.cluster.pod_history import NOWHERE, Place, PodHistory
from uproxy.core.cluster.state import ClusterState
from uproxy.core.route import Backend

WEB = ObjectName("default", "web")
ADDRESS = Backend("10.0.0.1", 8080)


class World:
    """A state, and a clock that stands."""

    def __init__(self) -> None:
        self.now = 100.0
        self.state = ClusterState(["source"])
        self.history = PodHistory(self.state, lambda: self.now)

    def has(self, pod: str, address: str = "10.0.0.1", kind: str = "Pod", **more: Any) -> None:
        labels = {"kubernetes.io/service-name": "web"}
        endpoint = Endpoint(
            addresses=(address, "10.9.9.9"),
            node_name="node-a",
            target_ref=TargetRef(kind=kind, namespace="default", name=pod) if pod else None,
            **more,
        )
        self.state.apply(
            "source",
            EndpointSlice(
                metadata=ObjectMeta(name="web-1", namespace="default", labels=labels),
                address_type="IPv4",
                endpoints=(endpoint,),
                ports=(EndpointPort(name="http", port=8080), EndpointPort(name="x", port=9090)),
            ),
        )

    def loses_it(self) -> None:
        self.state.remove("source", EndpointSlice, ObjectName("default", "web-1"))

    def at(self, wall: float, backend: Backend = ADDRESS, service: ObjectName = WEB) -> Place:
        return self.history.at(service, backend, wall)


def test_the_present_pod() -> None:
    world = World()
    world.has("web-0")
    assert world.at(100) == Place("web-0", "node-a")
    assert world.at(100, Backend("10.0.0.1", 9090)) == Place("web-0", "node-a")


def test_what_is_not_known() -> None:
    world = World()
    world.has("web-0")
    assert world.at(100, Backend("10.0.0.2", 8080)) == NOWHERE
    assert world.at(100, Backend("10.9.9.9", 8080)) == NOWHERE, "kube-proxy uses the first only"
    assert world.at(100, service=ObjectName("default", "other")) == NOWHERE


def test_what_is_no_pod_has_a_node_at_most() -> None:
    world = World()
    world.has("vm-1", kind="VirtualMachine")
    assert world.at(100) == Place("", "node-a")
    world.has("")
    assert world.at(100) == Place("", "node-a")


def test_a_pod_that_is_gone() -> None:
    world = World()
    world.has("web-0")
    world.now = 200
    world.loses_it()
    assert world.at(199) == Place("web-0", "node-a")
    assert world.at(201) == NOWHERE


def test_an_address_that_was_given_to_another_pod() -> None:
    world = World()
    world.has("web-0")
    world.now = 200
    world.has("web-1")
    world.now = 300
    world.has("web-2")
    assert [world.at(wall).pod for wall in (150, 200, 250, 301)] == [
        "web-0",
        "web-0",
        "web-1",
        "web-2",
    ]


def test_other_changes_of_a_slice_are_no_change_of_pods() -> None:
    world = World()
    world.has("web-0")
    world.now = 200
    world.has("web-0", zone="a")
    world.now = 300
    world.has("web-1")
    assert world.at(250).pod == "web-0"
    assert world.at(350).pod == "web-1"


def test_a_pod_that_ends_does_not_hide_its_successor() -> None:
    """On the network of a node, both have the node's address."""
    world = World()
    world.has("web-0")
    ending = Endpoint(
        addresses=("10.0.0.1",),
        conditions=EndpointConditions(terminating=True),
        target_ref=TargetRef(kind="Pod", name="web-1"),
    )
    (slice_,) = world.state.slices_of(WEB)
    endpoints = (*(slice_.endpoints or ()), ending)
    world.state.apply("source", msgspec.structs.replace(slice_, endpoints=endpoints))
    assert world.at(100).pod == "web-0"


def test_legacy_endpoints() -> None:
    world = World()
    target = TargetRef(kind="Pod", name="old-0")
    address = EndpointAddress(ip="10.0.0.1", node_name="node-b", target_ref=target)
    subset = EndpointSubset(addresses=(address,), ports=(EndpointPort(port=8080),))
    assert world.at(100) == NOWHERE
    legacy = Endpoints(metadata=ObjectMeta(name="web", namespace="default"), subsets=(subset,))
    world.state.apply("source", legacy)
    assert world.at(100) == Place("old-0", "node-b")


def test_former_pods_do_not_pile_up() -> None:
    world = World()
    for number in range(pod_history._FORMER + 10):
        world.has(f"web-{number}", f"10.{number // 62500}.{number // 250 % 250}.{number % 250 + 1}")
    assert len(world.history._former) == pod_history._FORMER
    for number in range(100):
        world.has(f"web-{number}")
    assert len(world.history._former) == pod_history._FORMER
    assert len(world.history._former[WEB, ADDRESS]) == pod_history._PODS
