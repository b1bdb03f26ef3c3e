"""The steps that are timed. Each case is created anew, so that none inherits another's state."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from bench.wire import manifests
from tests.builders import cluster, endpoint_slice, service
from uproxy.core.cluster.decode import from_json
from uproxy.core.cluster.objects import EndpointSlice, Service
from uproxy.core.cluster.state import ClusterState
from uproxy.core.flows.balancer import Balancer
from uproxy.core.route import (
    Backend,
    BalancerKind,
    Frontend,
    FrontendKind,
    Route,
    ServicePortName,
)
from uproxy.core.routing.build import build
from uproxy.core.routing.options import RoutingOptions
from uproxy.core.routing.table import RoutingTable
from uproxy.sources.manifests.file import read_manifest

_SERVICES = 2000
_SOURCE = "test"


class Case(NamedTuple):
    """A step to time."""

    name: str
    prepare: Callable[[], Callable[[], object]]
    """Returns what is timed."""


def _pick(backends: int, kind: BalancerKind, affinity: int = 0) -> Callable[[], object]:
    targets = tuple(Backend(f"10.0.{n >> 8}.{n & 255}", 8080) for n in range(backends))
    route = Route(
        frontend=Frontend("TCP", "10.96.0.1", 80),
        owner=ServicePortName("default", "web", "", "TCP"),
        kind=FrontendKind.CLUSTER_IP,
        backends=targets,
        balancer=kind,
        affinity_timeout=affinity,
    )
    balancer = Balancer(random=random.Random(1).random)

    def step() -> None:
        backend = balancer.pick(route, targets, "192.0.2.1", 0.0)
        assert backend is not None
        tally = balancer.begin(backend)
        balancer.succeeded(route, backend, "192.0.2.1", 0.0)
        tally.active -= 1

    return step


def _cluster() -> ClusterState:
    objects: list[Service | EndpointSlice] = []
    for n in range(_SERVICES):
        objects.append(service(f"web-{n}", ip=f"10.96.{n >> 8}.{n & 255}"))
        objects.append(endpoint_slice(f"web-{n}", *_pods(n, 3)))
    return cluster(*objects)


def _pods(seed: int, count: int) -> list[str]:
    return [f"10.{1 + n % 200}.{seed >> 8}.{seed & 255}" for n in range(count)]


def _first_table() -> Callable[[], object]:
    state, options = _cluster(), RoutingOptions()
    dirty = state.take_dirty()
    return lambda: build(state, options, RoutingTable(), dirty)


def _next_table(endpoints: int) -> Callable[[], object]:
    """One Service gets other endpoints than before, again and again."""
    state, options = _cluster(), RoutingOptions()
    table = build(state, options, RoutingTable(), state.take_dirty())
    full = _pods(7, endpoints + 1)
    turns: Iterator[EndpointSlice] = itertools.cycle(
        [endpoint_slice("web-7", *full[1:]), endpoint_slice("web-7", *full[:-1])]
    )

    def step() -> None:
        nonlocal table
        state.apply(_SOURCE, next(turns))
        table = build(state, options, table, state.take_dirty())
        assert len(table.changed) == 1

    return step


def _slice_json(endpoints: int) -> bytes:
    document = manifests.bystander_slice(0, 0)
    document["endpoints"] = [
        {
            "addresses": [f"10.1.{n >> 8}.{n & 255}"],
            "conditions": {"ready": True, "serving": True, "terminating": False},
            "nodeName": f"node-{n % 50}",
            "zone": "eu-1a",
            "targetRef": {"kind": "Pod", "name": f"web-{n}", "namespace": "default"},
        }
        for n in range(endpoints)
    ]
    return json.dumps(document).encode()


def _decode(endpoints: int) -> Callable[[], object]:
    raw = _slice_json(endpoints)
    return lambda: from_json(raw, EndpointSlice)


def _manifest(name: str, endpoints: int) -> Callable[[], object]:
    """JSON is YAML as well: the same text both times."""
    raw = _slice_json(endpoints)
    return lambda: read_manifest(name, raw)


CASES: Final = (
    Case("pick, round-robin, 3 backends", lambda: _pick(3, BalancerKind.ROUND_ROBIN)),
    Case("pick, round-robin, 1000 backends", lambda: _pick(1000, BalancerKind.ROUND_ROBIN)),
    Case("pick, random, 1000 backends", lambda: _pick(1000, BalancerKind.RANDOM)),
    Case("pick, least-connections, 10 backends", lambda: _pick(10, BalancerKind.LEAST_CONNECTIONS)),
    Case("pick, ClientIP, 1000 backends", lambda: _pick(1000, BalancerKind.ROUND_ROBIN, 10800)),
    Case("build, first table, 2000 Services", _first_table),
    Case("build, one of 2000 Services, 3 endpoints", lambda: _next_table(3)),
    Case("build, one of 2000 Services, 100 endpoints", lambda: _next_table(100)),
    Case("decode, slice of 100 endpoints", lambda: _decode(100)),
    Case("decode, slice of 1000 endpoints", lambda: _decode(1000)),
    Case("manifest, slice of 100 endpoints, JSON", lambda: _manifest("a.json", 100)),
    Case("manifest, slice of 100 endpoints, YAML", lambda: _manifest("a.yaml", 100)),
)
