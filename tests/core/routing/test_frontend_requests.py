"""Thousands of Services that want one frontend: a change costs what one Service does, and little is
said of it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import msgspec
import pytest

from tests.builders import SOURCE, cluster, endpoint_slice, port, service
from tests.http.statuses import EMPTY
from uproxy.core.cluster.objects import Service
from uproxy.core.report.overview import frontend_statuses, service_statuses
from uproxy.core.report.problems import problems
from uproxy.core.report.status_format import Filter, status_view
from uproxy.core.route import Frontend
from uproxy.core.routing.build import build
from uproxy.core.routing.options import RoutingOptions
from uproxy.core.routing.table import RoutingTable

SHARED = Frontend("TCP", "203.0.113.1", 80)
OPTIONS = RoutingOptions()


def rival(index: int, **fields: Any) -> Service:
    created = f"2026-01-01T00:{index // 60 % 60:02}:{index % 60:02}Z"
    ip = f"10.{96 + (index >> 16)}.{index >> 8 & 255}.{index & 255}"
    return service(f"s{index:05}", ip=ip, external_ips=(SHARED.address,), created=created, **fields)


def calls_of(work: Callable[[], object]) -> int:
    """How many functions are called meanwhile, in Python and in C: a measure without a clock."""
    count = 0

    def counting(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(counting)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


class CrowdedCluster:
    def __init__(self, number: int) -> None:
        self.number = number
        self.state = cluster(*map(rival, range(number)))
        self.table = RoutingTable()
        self.build()

    def build(self) -> None:
        self.table = build(self.state, OPTIONS, self.table, self.state.take_dirty())

    def change(self, obj: Any) -> int:
        """How much work a change is."""
        self.state.apply(SOURCE, obj)
        return calls_of(self.build)

    def json(self) -> int:
        """Bytes of /api/v1/routes."""
        frontends = tuple(frontend_statuses(self.table, {}, {}))
        services = tuple(service_statuses(self.table))
        status = msgspec.structs.replace(EMPTY, frontends=frontends, services=services)
        view = status_view(status, Filter())
        return len(msgspec.json.encode(view))


@pytest.fixture(scope="module")
def clusters() -> tuple[CrowdedCluster, CrowdedCluster]:
    """A small cluster, and one ten times as large."""
    return CrowdedCluster(200), CrowdedCluster(2000)


@pytest.mark.parametrize(
    "which", [pytest.param(0, id="the winner"), pytest.param(150, id="one that has lost")]
)
def test_a_change_is_no_more_work_among_many(
    clusters: tuple[CrowdedCluster, CrowdedCluster], which: int
) -> None:
    name = f"s{which:05}"
    small, large = (each.change(endpoint_slice(name, f"10.0.0.{which}")) for each in clusters)
    assert large < 1.5 * small
    small, large = (each.change(rival(which, labels={"a": "b"})) for each in clusters)
    assert large < 1.5 * small


def test_a_takeover_is_no_more_work_among_many(
    clusters: tuple[CrowdedCluster, CrowdedCluster],
) -> None:
    def take_away(cluster: CrowdedCluster) -> int:
        assert cluster.table.routes[SHARED].owner.name == "s00000"
        work = cluster.change(service("s00000", ip="10.96.0.0"))
        assert cluster.table.routes[SHARED].owner.name == "s00001"
        work += cluster.change(rival(0))
        assert cluster.table.routes[SHARED].owner.name == "s00000"
        return work

    small, large = map(take_away, clusters)
    assert large < 1.5 * small


def test_what_is_said_grows_with_the_number_only(
    clusters: tuple[CrowdedCluster, CrowdedCluster],
) -> None:
    small, large = (each.json() for each in clusters)
    assert large < 11 * small
    for each in clusters:
        conflict = each.table.conflicts[SHARED]
        assert len(conflict.losers) == each.number - 1
        assert conflict.message == (
            "203.0.113.1:80/TCP is served for default/s00000, the oldest that wants it,"
            f" and not for default/s00001, and {each.number - 2:,} more"
        )
        found = problems("here", each.table, {}, {})
        assert max(len(each.note) for each in found.values()) < 250


def test_two_services_with_many_frontends_each() -> None:
    """When one Service changes, the frontends of the other one are not searched for each of
    them."""

    def rivals(number: int) -> int:
        ports = [port(1000 + each, f"p{each}") for each in range(number)]
        state = cluster()
        table = build(state, OPTIONS, RoutingTable(), ())
        for index in range(2):
            each = service(
                f"s{index}", *ports, ip=f"10.96.0.{index + 1}", external_ips=(SHARED.address,)
            )
            state.apply(SOURCE, each)
        dirty = state.take_dirty()
        return calls_of(lambda: build(state, OPTIONS, table, sorted(dirty)))

    assert rivals(1000) < 11 * rivals(100)
