"""What the control process knows of backends: counts from workers, names from the cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from tests.builders import SOURCE, cluster, endpoint_slice, service
from uproxy.control.backends import Backends, Periods
from uproxy.core.cluster.objects import Endpoint, EndpointSlice, ObjectName, TargetRef
from uproxy.core.flows import backend_reachability, counter_totals
from uproxy.core.flows.backend_counts import BackendCounts
from uproxy.core.route import Backend, ServicePortName
from uproxy.core.routing.build import build
from uproxy.core.routing.options import RoutingOptions
from uproxy.core.routing.table import RoutingTable
from uproxy.net.messages import Report

WEB = ServicePortName("default", "web", "", "TCP")
NAME = ObjectName("default", "web")
A, B = Backend("10.0.0.1", 8080), Backend("10.0.0.2", 8080)
PATIENCE = 15.0


def pods(*names: str) -> EndpointSlice:
    """Endpoints 10.0.0.1, 10.0.0.2, ... with pods of these names."""
    endpoints = (
        Endpoint(addresses=(f"10.0.0.{at}",), target_ref=TargetRef(kind="Pod", name=name))
        for at, name in enumerate(names, start=1)
    )
    return endpoint_slice("web", *endpoints)


class Node:
    """The Backends of a node with one Service."""

    def __init__(self) -> None:
        self.state = cluster(service("web"), pods("web-1", "web-2"))
        self.changes = 0
        self.table = build(self.state, RoutingOptions(), RoutingTable(), self.state.take_dirty())
        self.backends = Backends(
            self.state, lambda: self.table, self._changed, periods=Periods(0.01, 0.01)
        )

    def report(self, worker: int, backend: Backend, counts: BackendCounts) -> None:
        self.backends.reported(worker, Report([], 0, backends=[(WEB, backend, counts)]))

    def shown(self) -> list[tuple[str, int]]:
        """Pods or addresses, with the number of flows."""
        return [
            (each.pod or str(each.backend), each.counts.flows)
            for port in self.backends.ports_of(NAME, 0.0)
            for each in port.backends
        ]

    def _changed(self) -> None:
        self.changes += 1


@asynccontextmanager
async def running(node: Node) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(node.backends.run())
        yield
        task.cancel()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def test_counts_of_all_workers_have_the_names_of_pods() -> None:
    node = Node()
    node.report(0, A, BackendCounts(flows=1, active=1))
    node.report(1, A, BackendCounts(flows=2))
    node.report(1, B, BackendCounts(flows=5))
    assert node.shown() == [("web-1", 3), ("web-2", 5)]
    assert list(node.backends.ports_of(ObjectName("default", "other"), 0.0)) == []


async def test_a_pod_that_fails_is_named_and_recovery_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(backend_reachability, "WINDOW", 0.0)
    node = Node()
    async with running(node):
        node.report(0, B, BackendCounts(flows=1, connect_times=[1]))
        node.report(0, A, BackendCounts(failures={"ECONNREFUSED": 48}))
        await until(lambda: WEB in node.backends.failing)
        reason = node.backends.failing[WEB].reason
        assert reason == "no backend answers: web-1 (10.0.0.1:8080)"
        node.report(1, B, BackendCounts(flows=1, connect_times=[1]))
        await until(lambda: not node.backends.failing[WEB].none_answers)
        reason = node.backends.failing[WEB].reason
        assert reason == "1 of 2 backends does not answer: web-1 (10.0.0.1:8080)"
        node.report(0, A, BackendCounts(flows=1, connect_times=[1]))
        await until(lambda: not node.backends.failing)
    assert node.changes == 3
    told = [record.getMessage() for record in caplog.records]
    assert any("web-1 (10.0.0.1:8080); see: uproxy explain default/web" in each for each in told)
    assert (
        "default/web: backends answer again, have changed, or had no client for 5 minutes" in told
    )


async def test_counts_of_a_pod_go_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node()
    node.report(0, A, BackendCounts(flows=1))
    node.report(0, B, BackendCounts(flows=2))
    async with running(node):
        node.state.apply(SOURCE, pods("web-1"))
        await until(lambda: node.shown() == [("web-1", 1), ("10.0.0.2:8080", 2)])
        monkeypatch.setattr("uproxy.core.flows.backend_totals.KEPT", 0.0)
        await until(lambda: node.shown() == [("web-1", 1)])
        node.state.apply(SOURCE, pods("web-9"))
        await until(lambda: node.shown() == [("web-9", 0)])
    assert counter_totals.KEPT > 0
